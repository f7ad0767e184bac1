"""Input tables of any warehouse, Delta, Parquet or Hive: found, checked against their contract, renamed, cast, versioned."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from etl import contracts, metastore, storage
from etl.contracts import Table
from etl.errors import InputError, TryLater, did_you_mean
from etl.files import (
    check_files,
    data_files,
    day_directories,
    files_version,
    schema_problems,
    without_derived_day,
)
from etl.outage import says_so
from etl.quarantine import root_cause
from etl.sources import Source
from etl.tables import latest_version
from etl.warehouse import Warehouse, is_delta

log = logging.getLogger(__name__)

# What a further column may be: whatever has one obvious text.
_PLAIN_TYPES = ("boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "date", "timestamp")
_YEAR = dt.timedelta(days=366)


def read_input(
    spark: SparkSession,
    warehouse: Warehouse,
    table: Table,
    *,
    days: Sequence[dt.date] | None = None,
    without: frozenset[str] = frozenset(),
    further: Sequence[str] = (),
) -> DataFrame:
    """An input table, its columns as the contract names and types them; further columns are left out.

    A click log without a column ``ds`` gets the day of ``event_time``. Of such a log ``days`` also brings the events that
    are of no day, with null for ``ds``: those without a time, before 2000, or a year after the last of these days. Nearer
    ones cannot be told from those of days to come, since nothing says when an event arrived.

    Args:
        spark: The session.
        warehouse: Where its inputs are, and what their columns are called there.
        table: The contract.
        days: Read these only, and check the footer of each Parquet file of them; all rows if None.
        without: Paths of Parquet files to leave out, see :func:`etl.quarantine.with_quarantine`.
        further: Columns beside the contract to read too, by their names; they come as strings, nulls allowed.

    Raises:
        UnreadableFiles: Parquet files have no good footer; all listed.
        InputError: the table is missing or no table, or columns are missing or of another type; all listed.
    """
    source, place = warehouse.source(table), warehouse.place(table)
    asked = [name for name in further if name not in table.names]
    extra = [
        contracts.Column(n, "string", "[text] product_text names it", nullable=True, accepts=_PLAIN_TYPES) for n in asked
    ]
    wanted = replace(table, columns=(*table.columns, *extra))
    if source.table:
        frame = _of_catalogue(spark, warehouse, wanted, days, without)
    else:
        frame = _of_path(spark, warehouse, wanted, days, without)
    expected = without_derived_day(wanted, source, frame.columns)
    problems = schema_problems(dict(frame.dtypes), expected, source)
    if problems:
        raise InputError.of(problems, heading=f"input table {table.name} at {place} does not fit its contract:")
    ignored = sorted(set(frame.columns) - {_found(frame, source.theirs(name), source) for name in wanted.names})
    if ignored:
        log.info("%s has further columns, which are ignored: %s", table.name, ", ".join(ignored))
    for column in wanted.columns:
        meant = did_you_mean(source.theirs(column.name), ignored)
        if column.optional and meant and _found(frame, source.theirs(column.name), source) is None:
            log.warning("%s has no %s, which is null%s", table.name, source.named(column.name), meant)
    return _of_days(frame, table, source, days).select(
        *(_as_ours(frame, c, source, days).alias(c.name) for c in wanted.columns)
    )


def read_day(
    spark: SparkSession,
    warehouse: Warehouse,
    table: Table,
    ds: dt.date,
    *,
    without: frozenset[str] = frozenset(),
    further: Sequence[str] = (),
) -> DataFrame:
    """One day of an input table that has days.

    Raises:
        InputError: as :func:`read_input`; the day has no rows.
    """
    frame = read_input(spark, warehouse, table, days=[ds], without=without, further=further)
    if frame.isEmpty():
        raise no_rows(spark, warehouse, table, ds)
    return frame


def no_rows(spark: SparkSession, warehouse: Warehouse, table: Table, ds: dt.date) -> InputError:
    """The error on a day that has no rows; says which days the table holds."""
    first, last = read_input(spark, warehouse, table).agg(F.min("ds"), F.max("ds")).collect()[0]
    span = f"{first} to {last}" if first else "no day at all"
    return InputError(f"{table.name}/ds={ds} has 0 rows (expected >= 1; the table holds {span}): is that day complete?")


def version_of(
    spark: SparkSession,
    warehouse: Warehouse,
    table: Table,
    days: Sequence[dt.date] | None = None,
    without: frozenset[str] = frozenset(),
) -> str:
    """Which state of a table was read: Delta's version, or a hash over names, sizes and times of the files of ``days``."""
    source = warehouse.source(table)
    if source.table:
        frame = metastore.table_named(spark, source.table, table.name)
        if metastore.is_delta_table(spark, source.table):
            return f"delta:{_pinned(spark, warehouse, table)}"
        return metastore.catalogue_version(spark, source.table, _of_days(frame, table, source, days))
    path = warehouse.table(table)
    if is_delta(path):
        return f"delta:{_pinned(spark, warehouse, table)}"
    return files_version(path, (file for file in data_files(path, source, days) if file.path not in without))


def _pinned(spark: SparkSession, warehouse: Warehouse, table: Table) -> int:
    """Version of a Delta table: of an input the one that this job saw first, of a table of ours the newest."""
    name = warehouse.source(table).table

    def newest() -> int:
        return metastore.delta_version(spark, name) if name else latest_version(spark, warehouse.table(table))

    if table.name not in {known.name for known in contracts.INPUTS}:
        return newest()
    if table.name not in warehouse.pins:
        warehouse.pins[table.name] = newest()
    return warehouse.pins[table.name]


def _of_catalogue(
    spark: SparkSession, warehouse: Warehouse, table: Table, days: Sequence[dt.date] | None, without: frozenset[str]
) -> DataFrame:
    """Rows as they are in Spark's catalogue, their Parquet files checked."""
    source = warehouse.source(table)
    frame = metastore.table_named(spark, source.table, table.name)
    _refuse_to_leave_out(without, table, source.table)
    if metastore.is_delta_table(spark, source.table):
        return spark.read.option("versionAsOf", _pinned(spark, warehouse, table)).table(source.table)
    _refuse_pin(warehouse, table)
    if days is not None or not table.partition_by:
        files = metastore.parquet_files(spark, source.table, _of_days(frame, table, source, days))
        partitions = metastore.partition_columns(spark, source.table)
        check_files(source.table, table, source, files, {n: kind for n, kind in frame.dtypes if n in partitions})
    return frame


def _of_path(
    spark: SparkSession, warehouse: Warehouse, table: Table, days: Sequence[dt.date] | None, without: frozenset[str]
) -> DataFrame:
    """Rows as they are in a directory; of Parquet only the days asked for, where they have directories."""
    path = warehouse.table(table)
    if not storage.entries(path):
        cure = f"put it there, or say where it is under [warehouse.inputs.{table.name}]"
        if table.name in ("taxonomy", "vocabulary"):
            cure += f', or declare `absent = ["{table.name}"]` under [warehouse] in {warehouse.root}/warehouse.toml'
        raise InputError(f"input table {table.name} is not at {path} (expected a Delta table or Parquet files): {cure}")
    try:
        if is_delta(path):
            _refuse_to_leave_out(without, table, path)
            return spark.read.format("delta").option("versionAsOf", _pinned(spark, warehouse, table)).load(path)
        _refuse_pin(warehouse, table)
        paths, reader = [path], spark.read.option("basePath", path)
        if days is not None or without or not table.partition_by:
            footers = _checked_files(warehouse, table, days, without)
            directories = day_directories(path, warehouse.source(table), days)
            paths = list(footers) if without else [d for d in directories if storage.is_directory(d)] or paths
            names = {warehouse.source(table).theirs(name).lower() for name in table.names}
            held = {file: frozenset(name for name in footer if name.lower() in names) for file, footer in footers.items()}
            if len(set(held.values())) > 1:
                reader = reader.schema(_schema_of_all(spark, held))
            _say_what_differs(table, footers, names, path)
        return reader.parquet(*paths)
    except (AnalysisException, Py4JJavaError) as error:
        reason = root_cause(error)
        kind = TryLater if says_so(reason) else InputError
        raise kind(f"input table {table.name} at {path} cannot be read: {reason}") from error


def _checked_files(
    warehouse: Warehouse, table: Table, days: Iterable[dt.date] | None, without: frozenset[str]
) -> dict[str, dict[str, str]]:
    path, source = warehouse.table(table), warehouse.source(table)
    files = [file.path for file in data_files(path, source, days)]
    left = [file for file in files if file not in without]
    if files and not left:
        raise InputError(f"input table {table.name} at {path}: none of {len(files)} files can be read (expected >= 1)")
    return check_files(path, table, source, left)


def _schema_of_all(spark: SparkSession, held: Mapping[str, frozenset[str]]) -> StructType:
    """Spark's schema of files of which some lack columns that others have; file -> its columns that are wanted.

    ``mergeSchema`` would do the same for columns that nobody asked for, and fail where their types differ.
    """
    first: dict[frozenset[str], str] = {}
    for file, columns in held.items():
        first.setdefault(columns, file)
    fields = {field.name.lower(): field for file in first.values() for field in spark.read.parquet(file).schema}
    return StructType(list(fields.values()))


def _say_what_differs(table: Table, footers: Mapping[str, Mapping[str, str]], wanted: Collection[str], place: str) -> None:
    """Warn of columns that only some of the files have: those ``wanted`` are null in the others, the rest are ignored."""
    with_it: dict[str, set[str]] = {}
    for file, footer in footers.items():
        for name in footer:
            with_it.setdefault(name.lower(), set()).add(file)
    some = {name: files for name, files in sorted(with_it.items()) if len(files) < len(footers)}
    further = {name: files for name, files in some.items() if name not in wanted}
    for name in sorted(some.keys() - further.keys()):
        lacking = sorted(storage.shown(file, place) for file in footers.keys() - some[name])
        log.warning(
            "%s: %d of %d files lack the column %s, which is null there: %s to %s%s",
            table.name, len(lacking), len(footers), name, lacking[0], lacking[-1], did_you_mean(name, further),
        )  # fmt: skip
    if further:
        told = (f"{name} in {len(files)} of them ({storage.shown(min(files), place)})" for name, files in further.items())
        log.warning(
            "%s: some of %d files have further columns, which are ignored: %s", table.name, len(footers), ", ".join(told)
        )


def _refuse_pin(warehouse: Warehouse, table: Table) -> None:
    if table.name in warehouse.pins:
        raise InputError(
            f"input table {table.name} at {warehouse.place(table)} is no Delta table, so there is no version "
            f"{warehouse.pins[table.name]} of it to read (expected a table that keeps its versions): leave the pin out"
        )


def _refuse_to_leave_out(without: frozenset[str], table: Table, place: str) -> None:
    if without:
        raise InputError(
            f"input table {table.name} at {place}: {', '.join(sorted(without))} cannot be read, and only files of a plain "
            "Parquet directory can be left out: restore the table"
        )


def _of_days(frame: DataFrame, table: Table, source: Source, days: Sequence[dt.date] | None) -> DataFrame:
    """Rows of ``days``, in terms that reach partitions and row groups: their column compared with constants."""
    if days is None or "ds" not in table.names or not days:
        return frame
    theirs = _found(frame, source.theirs("ds"), source)
    if theirs is None:
        time = _column(source.theirs("event_time"))
        start, end = (F.lit(_midnight(day)) for day in (min(days), max(days) + dt.timedelta(days=1)))
        inside = (time >= start) & (time < end) & time.cast("date").isin(list(days))
        return frame.where(inside | time.isNull() | ~_has_day(time, days))
    if dict(frame.dtypes)[theirs] == "date":
        return frame.where(_column(theirs).isin(list(days)))
    return frame.where(_day_text(frame, theirs, source).isin([source.day(day) for day in days]))


def _has_day(time: Column, days: Sequence[dt.date] | None) -> Column:
    """Whether a time can be that of an event, as far as a log without days tells; null for null."""
    good = time >= F.lit(contracts.EARLIEST)
    return good & (time < F.lit(_midnight(max(days) + _YEAR))) if days else good


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _as_ours(frame: DataFrame, column: contracts.Column, source: Source, days: Sequence[dt.date] | None) -> Column:
    """A column of the contract, cast to its type."""
    theirs = _found(frame, source.theirs(column.name), source)
    if theirs is None and column.name == "ds":
        time = _column(source.theirs("event_time"))
        return F.when(_has_day(time, days), time.cast(column.type))
    if theirs is None:
        return F.lit(None).cast(column.type)
    if column.name == "ds" and source.day_format and dict(frame.dtypes)[theirs] != "date":
        return F.try_to_timestamp(_day_text(frame, theirs, source), F.lit(source.day_format)).cast("date")
    # try_cast: under ANSI one partition called ds=yesterday would end the job in the middle; it is no day, so never read.
    return _column(theirs).try_cast(column.type)


def _day_text(frame: DataFrame, theirs: str, source: Source) -> Column:
    text = _column(theirs).cast("string")
    # Spark reads the directory dt=01052024 as the number 1052024.
    return text if dict(frame.dtypes)[theirs] == "string" else F.lpad(text, len(source.day_format), "0")


def _found(frame: DataFrame, theirs: str, source: Source) -> str | None:
    return next((name for name in frame.columns if source.fold(name) == source.fold(theirs)), None)


def _column(name: str) -> Column:
    """A column by its very name: a dot in it is no path."""
    return F.col("`" + name.replace("`", "``") + "`")
