"""Files of input tables: which there are, their version, and whether their footers fit the contract."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_type

from etl import storage
from etl.contracts import CLICK_LOG, Table
from etl.errors import InputError, TryLater, UnreadableFiles, did_you_mean
from etl.outage import may_pass
from etl.sources import Source
from etl.storage import StoredFile, shown


def data_files(path: str, source: Source, days: Iterable[dt.date] | None = None) -> list[StoredFile]:
    """Files that Spark would read in a directory; of ``days`` only, if it has directories of days.

    Hidden ones are left out as Spark does; the ending of a name says nothing (Hive writes ``000000_0``).
    """
    found = (file for directory in day_directories(path, source, days) for file in storage.files_under(directory))
    return sorted(file for file in found if not is_hidden(shown(file.path, path)))


def day_directories(path: str, source: Source, days: Iterable[dt.date] | None) -> list[str]:
    """Directories of ``days`` under ``path``, there or not; ``path`` itself if it has none of any day, or all are meant."""
    key = source.theirs("ds")
    if days is None or not any(name.startswith(f"{key}=") for name in storage.entries(path)):
        return [path]
    return [storage.join(path, f"{key}={source.day(day)}") for day in days]


def without_derived_day(table: Table, source: Source, found: Collection[str]) -> Table:
    """The contract less ``ds`` for a click log that has no such column: there it is the day of ``event_time`` (UTC)."""
    if table.name != CLICK_LOG.name or "ds" in source.columns or "ds" in found:
        return table
    return replace(table, columns=tuple(column for column in table.columns if column.name != "ds"))


def files_version(path: str, files: Iterable[StoredFile]) -> str:
    """Version of plain files under ``path``: a hash over their names, sizes and times of change."""
    return listing_version("parquet", ((shown(file.path, path), file.size, file.changed_ns) for file in files))


def listing_version(kind: str, files: Iterable[tuple[str, int, int]]) -> str:
    """Version of files by (name, size, time of change): a file may be written again with as many bytes."""
    return f"{kind}:" + hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:12]


def schema_problems(found: Mapping[str, str], table: Table, source: Source | None = None) -> list[str]:
    """Every difference between columns (their name -> Spark type) and a contract, as sentences."""
    source = source or Source()
    types = {source.fold(name): kind for name, kind in found.items()}
    known = {source.fold(source.theirs(name)) for name in table.names}
    others = [name for name in found if source.fold(name) not in known]
    problems = []
    for column in table.columns:
        kind = types.get(source.fold(source.theirs(column.name)))
        accepted = (column.type, *column.accepts)
        if column.name == "ds" and source.day_format:
            accepted = ("date", "string", "int", "bigint")
        if kind is None:
            if not column.optional:
                meant = did_you_mean(source.theirs(column.name), others)
                problems.append(f"{source.named(column.name)} is missing (expected {column.type}: {column.comment}){meant}")
        elif kind not in accepted and kind.partition("(")[0] not in accepted:
            problems.append(f"{source.named(column.name)} is {kind} (expected {' or '.join(accepted)})")
    return problems


def check_files(
    place: str, table: Table, source: Source, files: Sequence[str], known: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Compare each Parquet file with the contract; returns the columns of each, name -> Spark type.

    Spark takes the schema of one file for all of them: a column that this one lacks is null in all, and one that has
    another type in the next file ends the job in the middle.

    Args:
        place: Where the table is, for messages; names of files are told relative to it.
        table: The contract.
        source: Their names of its columns.
        files: The paths of the files to compare.
        known: Columns that files need not hold, their name -> Spark type: those of partitions of a table whose types
            stand in a metastore; None where Spark finds the types in the files.

    Raises:
        UnreadableFiles: files have no good footer, and all others fit; all of them listed.
        InputError: columns are missing or of another type in a file; all files listed.
    """
    with ThreadPoolExecutor() as pool:
        footers = list(pool.map(_footer, files))
    damaged = {file: footer for file, footer in zip(files, footers, strict=True) if isinstance(footer, str)}
    held = {file: footer for file, footer in zip(files, footers, strict=True) if not isinstance(footer, str)}
    found = {file: {**_partitions(file, place), **footer, **(known or {})} for file, footer in held.items()}
    expected = without_derived_day(table, source, frozenset().union(*found.values()))
    problems = _by_file({file: schema_problems(columns, expected, source) for file, columns in found.items()}, place)
    if known is None:
        problems += _mixed_types(held, table, source, place)
    if problems:
        reasons = [f"{shown(file, place)}: {reason}" for file, reason in damaged.items()]
        raise InputError.of(problems + reasons, heading=f"input table {table.name} at {place} does not fit its contract:")
    if damaged:
        # Whole paths: with_quarantine lists these reasons beside others', under a heading that names no table.
        error = UnreadableFiles.of(
            [f"{file}: {reason}" for file, reason in damaged.items()],
            heading=f"input table {table.name} at {place} has files that cannot be read, write them again:",
        )
        error.files = frozenset(damaged)
        raise error
    return held


def _mixed_types(held: Mapping[str, Mapping[str, str]], table: Table, source: Source, place: str) -> list[str]:
    """Columns that are of one type in some files and of another in others, each of which would do alone."""
    problems = []
    for column in table.columns:
        files: dict[str, list[str]] = {}
        for file, footer in held.items():
            theirs = source.fold(source.theirs(column.name))
            for name, kind in footer.items():
                if source.fold(name) == theirs:
                    # Spark reads both as the same; INT96, which older writers use, says nothing of the zone.
                    files.setdefault(kind.removesuffix("_ntz"), []).append(file)
        if len(files) > 1:
            kinds = " and ".join(f"{kind} in {len(f)} files ({shown(f[0], place)})" for kind, f in sorted(files.items()))
            cure = "expected one type in all that are read: write some again"
            problems.append(f"{source.named(column.name)} is {kinds} ({cure})")
    return problems


def _by_file(problems: Mapping[str, list[str]], place: str) -> list[str]:
    """One line for what is wrong with every file, else one for each file."""
    counts = Counter(problem for of_file in problems.values() for problem in of_file)
    common = [problem for problem, count in counts.items() if count == len(problems) > 1]
    single = [f"{shown(file, place)}: {p}" for file, of_file in problems.items() for p in of_file if p not in common]
    return [f"in all {len(problems)} files: {problem}" for problem in common] + single


def _footer(file: str) -> dict[str, str] | str:
    """Spark types of the columns, or the reason why the file cannot be read."""
    try:
        schema = storage.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and may_pass(error):
            raise TryLater(f"{file} cannot be read now: {error} (expected an answer): try again later") from error
        return f"{storage.size_of(file)} bytes, {error}"
    return {field.name: _spark_type(field.type) for field in schema}


def _spark_type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    try:
        return from_arrow_type(kind).simpleString()
    except PySparkException:
        return str(kind)


def _partitions(file: str, place: str) -> dict[str, str]:
    """Columns that stand in the names of directories; their values are text."""
    inside = shown(file, place)
    return {part.partition("=")[0]: "string" for part in PurePosixPath(inside).parts[:-1] if inside != file and "=" in part}


def is_hidden(path: str) -> bool:
    """Whether a file below a table is none of its own, as Spark has it: ``_x=1`` is a partition."""
    parts = PurePosixPath(path).parts
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)
