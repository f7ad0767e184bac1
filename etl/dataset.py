"""The tokenised dataset on disk: its parts, its manifest, and the check that stands before every read.

Plain Python without Spark, so that each training rank can use it. Layout of ``datasets/ds=.../``::

    pairs/      Petastorm, training split: query_id, item_group, weight, query_logp, item_logp, query, title, title_cut
    titles/     Petastorm, every distinct title of the catalogue: item_group, title
    heldout/    Parquet, queries of the valid and test splits: split, query_id, query, item_groups
    tokens.parquet, tokenizer_spec.json, tokenizer.json, manifest.json

Texts are binary columns of little-endian token ids (:attr:`Manifest.token_dtype`). The Unischema inside a Petastorm
directory is a pickle: nothing there may be opened before :func:`verify` has compared its hash.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow.parquet as pq

from etl.errors import InputError
from etl.tokenizer import TokenTable

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
TOKENS_FILE = "tokens.parquet"
Part = Literal["pairs", "titles", "heldout", "tokens", "tokenizer"]
_CURE = "build it again with `labeller dataset`"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """One file of a dataset; ``path`` is relative to the dataset, ``rows`` is 0 for files that hold none."""

    path: str
    rows: int
    size: int
    """Bytes."""
    sha256: str

    @classmethod
    def of(cls, directory: Path, path: Path) -> DataFile:
        """The entry of a file that lies under ``directory``."""
        rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else 0
        name = path.relative_to(directory).as_posix()
        return cls(path=name, rows=rows, size=path.stat().st_size, sha256=_sha256(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a dataset holds; written last, so that a dataset with a manifest is complete."""

    ds: dt.date
    token_dtype: Literal["int64", "uint32"]
    """Type of the token ids in binary columns, little-endian."""
    tokenizer: str
    """Hash of the tokenizer, see :func:`etl.tokenizer.tokenizer_hash`."""
    normaliser: str
    """Hash of the text normaliser, see :attr:`etl.text.Normaliser.hash`."""
    spec: Mapping[str, Any]
    """The tokenizer's spec."""
    inputs: Mapping[str, str]
    """Versions of the tables it was made from."""
    parts: Mapping[Part, tuple[DataFile, ...]]
    """Files in the order of their names."""

    def rows(self, part: Part) -> int:
        return sum(file.rows for file in self.parts[part])

    def files(self, part: Part) -> tuple[DataFile, ...]:
        """Files of a part that hold rows, so without Petastorm's metadata."""
        return tuple(file for file in self.parts[part] if file.path.endswith(".parquet"))

    def write(self, directory: Path) -> None:
        """Lay the manifest down by rename: either all of it is there or nothing."""
        content = {"format_version": FORMAT_VERSION, **asdict(self), "ds": self.ds.isoformat()}
        content["totals"] = {part: self.rows(part) for part in self.parts}
        aside = directory / f".{MANIFEST_FILE}"
        aside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        aside.rename(directory / MANIFEST_FILE)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest alone, its files unchecked; :func:`verify` is what a reader wants.

        Raises:
            InputError: there is none, or it is of another format.
        """
        path = directory / MANIFEST_FILE
        if not path.is_file():
            raise InputError(f"dataset {directory} has no {MANIFEST_FILE}: it is not there or was not finished; {_CURE}")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path}: format_version {content.get('format_version')!r} (expected {FORMAT_VERSION}); {_CURE}"
            )
        parts = {part: tuple(DataFile(**file) for file in content["parts"][part]) for part in get_args(Part)}
        keys = ("token_dtype", "tokenizer", "normaliser", "spec", "inputs")
        return cls(ds=dt.date.fromisoformat(content["ds"]), parts=parts, **{key: content[key] for key in keys})


def verify(directory: Path) -> Manifest:
    """The manifest of a dataset whose files are exactly those that it lists, byte for byte.

    Raises:
        InputError: no manifest; a file is missing, changed or not listed. All of them are named.
    """
    manifest = Manifest.read(directory)
    listed = {file.path: file for files in manifest.parts.values() for file in files}
    present = {p.relative_to(directory).as_posix(): p for p in data_files(directory)}
    problems = [f"{path} is missing" for path in sorted(listed.keys() - present.keys())]
    problems += [f"{path} is not in the manifest" for path in sorted(present.keys() - listed.keys())]
    for path in sorted(listed.keys() & present.keys()):
        size = present[path].stat().st_size
        if size != listed[path].size:
            problems.append(f"{path} has {size} bytes (expected {listed[path].size})")
        elif _sha256(present[path]) != listed[path].sha256:
            problems.append(f"{path} has another SHA-256 than the manifest says")
    if problems:
        raise InputError.of(problems, heading=f"dataset {directory} does not match its {MANIFEST_FILE}; {_CURE}:")
    return manifest


def data_files(directory: Path) -> list[Path]:
    """Every file of a dataset but its manifest, in the order of their names."""
    return sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST_FILE)


def decode_ids(value: bytes, token_dtype: str) -> np.ndarray:
    """Token ids of one text or of joined texts, int64."""
    return np.frombuffer(value, dtype=np.dtype(token_dtype).newbyteorder("<")).astype(np.int64)


def encode_ids(ids: np.ndarray, token_dtype: str) -> bytes:
    """The inverse of :func:`decode_ids`."""
    return ids.astype(np.dtype(token_dtype).newbyteorder("<")).tobytes()


def load_token_table(directory: Path) -> TokenTable:
    """Features of every token of a word-hashed dataset, ids ascending."""
    table = pq.read_table(directory / TOKENS_FILE)
    features = [np.frombuffer(value, dtype="<u4") for value in table["features"].to_pylist()]
    return TokenTable(
        ids=table["id"].to_numpy(),
        offsets=np.cumsum([0, *map(len, features)], dtype=np.int64),
        features=np.concatenate([np.empty(0, "<u4"), *features]).astype(np.int64),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
