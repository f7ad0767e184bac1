"""What the adapters of public sets share: their settings, input tables by contract, truth tables, a marked root.

A public set has no shoppers. Whatever an adapter makes up (users, sessions, positions, times, clicks) it says in
``benchmark.json`` at the root of the warehouse and in its log.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.unleased import Unleased
from etl.config import JobConfig, arg_parser
from etl.contracts import CATALOGUE, CLICK_LOG, INPUTS, VOCABULARY, Table
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.job import run_job
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

MARKER = "benchmark.json"
DWELL_MS = 10_000  # made up; long enough to be no misclick

_ARROW_TYPES = {
    "string": pa.string(),
    "bigint": pa.int64(),
    "int": pa.int32(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "array<string>": pa.list_(pa.string()),
}

TRUTH_TERMS = pa.schema([("item_id", pa.string()), ("term_id", pa.string()), ("lacks_term", pa.bool_())])
TRUTH_CATEGORIES = pa.schema([("item_id", pa.string()), ("category_id", pa.string())])


class AdapterConfig(Unleased, JobConfig):
    """What every adapter takes; each gives ``data`` its own default."""

    data: str
    """Directory with the public set."""

    ds: dt.date = dt.date(2024, 5, 7)
    """Day that the rows are dated, YYYY-MM-DD (UTC)."""


Work = Callable[[Any], Mapping[str, Any] | int]


def run_command(
    module: str, description: str | None, commands: Mapping[str, tuple[type[JobConfig], Work]], argv: Sequence[str] | None
) -> int:
    """Run the command that the first argument names; returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    prog = f"python -m {module}"
    summary = "".join(f"\n  {name:10} {(work.__doc__ or '').splitlines()[0]}" for name, (_, work) in commands.items())
    if given[:1] in (["--help"], ["-h"]):
        print(f"usage: {prog} COMMAND [options]\n\n{(description or '').strip()}\n\ncommands:{summary}")
        return EXIT_OK
    if not given or given[0] not in commands:
        print(f"{prog}: error: expected one of {', '.join(commands)} (found {given[:1]}){summary}", file=sys.stderr)
        return EXIT_BAD_INPUT
    config, work = commands[given[0]]
    return run_job(arg_parser(config, f"{prog} {given[0]}", work.__doc__ or ""), config, work, given[1:])


def data_file(directory: str, name: str) -> Path:
    """A file of a public set.

    Raises:
        InputError: it is not there.
    """
    path = Path(directory).expanduser() / name
    if not path.is_file():
        raise InputError(f"{path} is no file: give --data the directory that holds {name} (see its README for the origin)")
    return path


def open_root(root: str, public_set: str, made_up: Sequence[str]) -> Path:
    """Create or empty the warehouse at ``root`` of its input tables and its truth.

    Raises:
        InputError: something else lies there, which must not be overwritten.
    """
    path = Path(root).expanduser().resolve()
    marker = path / MARKER
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and _marked_as(marker) != public_set)):
        raise InputError(f"{path} holds something else than a {public_set} warehouse: give --root a new directory")
    path.mkdir(parents=True, exist_ok=True)
    # First, so that a warehouse that was cut off half-way is recognised and can be written again.
    marker.write_text(json.dumps({"set": public_set, "made_up": list(made_up)}, indent=2) + "\n", encoding="utf-8")
    for name in [*(table.name for table in INPUTS), "truth"]:
        shutil.rmtree(path / name, ignore_errors=True)
    for line in made_up:
        log.info("made up: %s", line)
    return path


def adapted_warehouse(root: str, public_set: str) -> Warehouse:
    """The warehouse that the adapter of ``public_set`` wrote.

    Raises:
        InputError: it is none.
    """
    warehouse = Warehouse.at(root)
    if _marked_as(warehouse.files / MARKER) != public_set:
        raise InputError(
            f"{warehouse.root} is no {public_set} warehouse: "
            f"run `python -m benchmarks.sets.{public_set} warehouse` with this --root first"
        )
    return warehouse


def write_input(root: Path, table: Table, columns: Mapping[str, Any], ds: dt.date | None = None) -> int:
    """Write one input table (one day of it, where it is partitioned) as Parquet; returns its rows.

    Columns that are left out become null.
    """
    rows = len(next(iter(columns.values())))
    stored = [column for column in table.columns if column.name not in table.partition_by]
    arrays = {}
    for column in stored:
        kind = _ARROW_TYPES[column.type]
        array = pa.array(columns[column.name], kind) if column.name in columns else pa.nulls(rows, kind)
        assert column.nullable or array.null_count == 0, f"{table.name}.{column.name} must not be null"
        arrays[column.name] = array
    assert bool(table.partition_by) == (ds is not None), f"{table.name} is partitioned by {table.partition_by}"
    directory = root / table.name / (f"ds={ds}" if ds else "")
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), directory / "part-00000.parquet")
    return rows


def write_events(root: Path, ds: dt.date, sessions: Sequence[str], columns: Mapping[str, Any]) -> int:
    """Write a day of ``click_log`` whose users and times are made up: a user for each session, evenly over the day.

    ``columns`` gives query, item_id, event and position; ``sessions`` the session of each row.
    """
    number = {session: n for n, session in enumerate(dict.fromkeys(sessions))}
    step = np.timedelta64(86_400_000_000 // max(len(number), 1), "us")
    start = np.datetime64(ds, "us")
    made_up = {
        "event_time": np.array([start + number[session] * step for session in sessions]),
        "user_id": [f"u{number[session]}" for session in sessions],
        "session_id": list(sessions),
        "dwell_ms": [None if event == "impression" else DWELL_MS for event in columns["event"]],
    }
    return write_input(root, CLICK_LOG, {**columns, **made_up}, ds)


def write_catalogue(root: Path, ds: dt.date, item_ids: Sequence[str], titles: Sequence[str], language: str) -> int:
    """Write a day of ``catalogue``."""
    columns = {"item_id": list(item_ids), "title": list(titles), "language": [language] * len(item_ids)}
    return write_input(root, CATALOGUE, columns, ds)


def write_vocabulary(root: Path, term_ids: Mapping[str, str], language: str) -> int:
    """Write ``vocabulary`` from term -> id: all active, without synonyms."""
    size = len(term_ids)
    columns = {"term_id": list(term_ids.values()), "term": list(term_ids), "synonyms": [[]] * size}
    return write_input(root, VOCABULARY, columns | {"language": [language] * size, "status": ["active"] * size})


def write_truth(root: Path, name: str, schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> int:
    """Write one truth table from tuples in the order of ``schema``; returns its rows."""
    directory = root / "truth" / name
    directory.mkdir(parents=True, exist_ok=True)
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    table = pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema)
    pq.write_table(table, directory / "part-00000.parquet")
    return len(rows)


def write_settings(root: Path, text: str) -> None:
    """Write ``warehouse.toml``, unless somebody changed the one that is there."""
    path = root / "warehouse.toml"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        log.warning("%s differs from the adapter's settings and is kept; delete it to get them", path)
        return
    path.write_text(text, encoding="utf-8")


def _marked_as(marker: Path) -> str | None:
    return json.loads(marker.read_text(encoding="utf-8"))["set"] if marker.is_file() else None
