"""What a warehouse holds of texts that were planted in it: every file, and every cell of those that are compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file under a root as text, and the cells of Parquet and of lines of JSON decoded; sockets are no files.

    Pages of Parquet are compressed, those of Delta's checkpoints with the statistics of other files in them; JSON escapes
    what is no ASCII.
    """
    for file in filter(Path.is_file, root.rglob("*")):
        text = file.read_bytes().decode("utf-8", "replace")
        yield file, text
        if file.suffix == ".parquet":
            yield file, "\n".join(map(str, cells(file)))
        elif file.suffix in (".json", ".crc", ".jsonl"):
            yield file, "\n".join(map(str, leaves(list(_values(text)))))


def cells(file: Path) -> Iterator[Any]:
    """Every value of a Parquet file that is not null, those within structs, lists and maps one by one."""
    for column in pl.read_parquet(file):
        yield from leaves(column.to_list())


def leaves(value: Any) -> Iterator[Any]:
    """The values that a nested one is made of."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from leaves(part)
    elif value is not None:
        yield value


def _values(text: str) -> Iterator[Any]:
    """Values of JSON, a line or the whole file; nothing of Hadoop's checksums, which are called .crc too."""
    for part in (text, *text.splitlines()):
        try:
            yield json.loads(part)
        except ValueError:
            continue
        if part is text:
            return
