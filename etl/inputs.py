"""Input tables of any warehouse, Delta or Parquet: found, checked against their contract, cast, versioned."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from etl.contracts import Table
from etl.errors import InputError
from etl.tables import latest_version
from etl.warehouse import Warehouse, is_delta, parquet_version

log = logging.getLogger(__name__)


def read_input(spark: SparkSession, warehouse: Warehouse, table: Table, further: Sequence[str] = ()) -> DataFrame:
    """The whole input table, its columns as the contract names and types them, and those of ``further`` as strings.

    Other columns are left out.

    Raises:
        InputError: the table is missing or no table, or columns are missing or of another type; all listed.
    """
    path = warehouse.table(table)
    if not warehouse.has(table):
        cure = "put it there"
        if table.name in ("taxonomy", "vocabulary"):
            cure += f', or declare `absent = ["{table.name}"]` under [warehouse] in {warehouse.root}/warehouse.toml'
        raise InputError(f"input table {table.name} is not at {path} (expected a Delta table or Parquet files): {cure}")
    try:
        reader = spark.read.format("delta" if is_delta(path) else "parquet")
        frame = reader.load(path)
    except (AnalysisException, Py4JJavaError) as error:
        raise InputError(f"input table {table.name} at {path} cannot be read: {_cause(error)}") from error
    problems = schema_problems(dict(frame.dtypes), table)
    problems += [
        f"column {name} is missing (expected, since the settings name it; found {', '.join(sorted(frame.columns))})"
        for name in further
        if name not in frame.columns
    ]
    if problems:
        raise InputError.of(problems, heading=f"input table {table.name} at {path} does not fit its contract:")
    if not table.partition_by:
        check_files(warehouse, table, sorted(Path(path).glob("*.parquet")))
    ignored = sorted(set(frame.columns) - set(table.names) - set(further))
    if ignored:
        log.info("%s has further columns, which are ignored: %s", table.name, ", ".join(ignored))
    # try_cast: under ANSI one partition called ds=yesterday would end the job in the middle; it is no day, so never read.
    columns = [
        F.col(c.name).try_cast(c.type).alias(c.name) if c.name in frame.columns else F.lit(None).cast(c.type).alias(c.name)
        for c in table.columns
    ]
    return frame.select(*columns, *(F.col(name).cast("string").alias(name) for name in further))


def schema_problems(found: Mapping[str, str], table: Table) -> list[str]:
    """Every difference between columns (name -> Spark type) and a contract, as sentences."""
    problems = []
    for column in table.columns:
        if column.name not in found:
            if not column.optional:
                problems.append(f"column {column.name} is missing (expected {column.type}: {column.comment})")
        elif found[column.name] != column.type and found[column.name] not in column.accepts:
            expected = " or ".join((column.type, *column.accepts))
            problems.append(f"column {column.name} is {found[column.name]} (expected {expected})")
    return problems


def check_days(warehouse: Warehouse, table: Table, days: Iterable[dt.date]) -> None:
    """Compare every Parquet file of each of ``days`` with the contract, see :func:`check_files`."""
    path = Path(warehouse.table(table))
    check_files(warehouse, table, [file for day in days for file in sorted((path / f"ds={day}").glob("*.parquet"))])


def check_files(warehouse: Warehouse, table: Table, files: Sequence[Path]) -> None:
    """Compare each Parquet file with the contract.

    Spark takes the schema of one file for all of them: a column that another lacks would read as null. Delta holds its
    files to one schema, so there is nothing to check.

    Raises:
        InputError: columns are missing or of another type in a file; all files listed.
    """
    path = warehouse.table(table)
    if is_delta(path):
        return
    with ThreadPoolExecutor() as pool:
        footers = list(pool.map(_footer, files))
    problems = [
        f"{file.relative_to(path)}: {problem}"
        for file, found in zip(files, footers, strict=True)
        for problem in schema_problems(found, table)
    ]
    if problems:
        raise InputError.of(problems, heading=f"input table {table.name} at {path} does not fit its contract:")


def read_day(spark: SparkSession, warehouse: Warehouse, table: Table, ds: dt.date, further: Sequence[str] = ()) -> DataFrame:
    """One day of an input table that is partitioned by ``ds``.

    Raises:
        InputError: as :func:`read_input`; the day has no rows.
    """
    frame = read_input(spark, warehouse, table, further).where(F.col("ds") == F.lit(ds))
    check_days(warehouse, table, [ds])
    if frame.isEmpty():
        days = sorted(str(r[0]) for r in read_input(spark, warehouse, table).select("ds").distinct().collect())
        span = f"{days[0]} to {days[-1]}" if days else "no day at all"
        raise InputError(f"{table.name}/ds={ds} has 0 rows (expected >= 1; the table holds {span}): is that day complete?")
    return frame


def version_of(spark: SparkSession, warehouse: Warehouse, table: Table, days: Iterable[dt.date] = ()) -> str:
    """Which state of an input was read: Delta's version, or a hash over names and sizes of the Parquet files of ``days``."""
    path = warehouse.table(table)
    return f"delta:{latest_version(spark, path)}" if is_delta(path) else parquet_version(path, days)


def _footer(file: Path) -> dict[str, str]:
    """Columns of a file of one day, name -> Spark type; ds is in its directory's name."""
    try:
        schema = pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file} cannot be read as Parquet: {error}") from None
    fields = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    return {f.name: f.dataType.simpleString() for f in from_arrow_schema(pa.schema(fields))} | {"ds": "date"}


def _cause(error: AnalysisException | Py4JJavaError) -> str:
    if isinstance(error, AnalysisException):
        return str(error.getMessage())
    # A file that is no Parquet comes as a Java error with the reason at the end of three causes.
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return str(cause.getMessage())
