"""Delta tables made from their contracts, one write path for history, and reads that say what is missing."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delta.tables import DeltaMergeBuilder, DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from etl import table_contract, table_log
from etl.code import code_version
from etl.contracts import Table
from etl.errors import InputError
from etl.quarantine import root_cause
from etl.table_lock import table_lock
from etl.warehouse import is_delta

log = logging.getLogger(__name__)

_RECENT_COMMITS = 100  # far more than other writers make between our commit and the look at it

_REMEMBERED_COMMITS = 20  # a run that was cut off is made again before others have made as many

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class WriteError(RuntimeError):
    """A commit was skipped or landed with other rows than were sent."""


def ensure(spark: SparkSession, path: str, table: Table) -> None:
    """Create the table with comments, constraints and properties, if it is not there.

    Reader version 1 is kept (no deletion vectors, no column mapping), so that other engines open it.

    Raises:
        InputError: it is there, and was made under another contract.
    """
    with table_lock(spark, path):
        if is_delta(path):
            require_contract(path, table)
        else:
            _remove_begun_log(spark, path)
            _create(spark, path, table)


def _remove_begun_log(spark: SparkSession, path: str) -> None:
    """A writer that is killed before its first version leaves a log without one, which Delta takes for that of a table."""
    jvm: Any = spark.sparkContext._jvm
    begun = jvm.org.apache.hadoop.fs.Path(path, "_delta_log")
    begun.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).delete(begun, True)


def _create(spark: SparkSession, path: str, table: Table) -> None:
    builder = DeltaTable.createIfNotExists(spark).location(path).comment(table.comment)
    schema = StructType.fromDDL(table.ddl)
    assert isinstance(schema, StructType)
    for column, spark_field in zip(table.columns, schema.fields, strict=True):
        builder = builder.addColumn(column.name, spark_field.dataType, nullable=column.nullable, comment=column.comment)
    if table.partition_by:
        builder = builder.partitionedBy(*table.partition_by)
    # As properties, not by ALTER TABLE: one commit makes the table whole, or there is none.
    for key, value in table_contract.properties(table).items():
        builder = builder.property(key, value)
    builder.execute()


def require_contract(path: str, table: Table) -> None:
    """See that rows of a contract can be written to a table; comments and the like may be older.

    Raises:
        InputError: they cannot; all that stands against it is named.
    """
    found = [str(difference) for difference in table_contract.differences(path, table) if difference.blocks]
    if found:
        heading = (
            f"table {table.name} at {path} was made under another contract; run `labeller migrate` and it says what can"
        )
        raise InputError.of(found, heading=f"{heading} be mended:")


def sql_name(path: str) -> str:
    """The table at a path for the text of a statement that takes no parameters: whatever is in the path stays a name."""
    return "delta.`" + path.replace("`", "``") + "`"


def read(spark: SparkSession, path: str, table: Table, *, version: int | None = None, **where: Any) -> DataFrame:
    """Rows of a Delta table that one of our jobs wrote, filtered by equality; of its newest version unless one is given.

    Raises:
        InputError: there is no such table, or its log is damaged (:func:`etl.table_log.opened`).
    """
    if not is_delta(path):
        raise InputError(f"table {table.name} is not at {path}: run the stage that writes it first (see `labeller --help`)")
    table_log.opened(path, version)
    reader = spark.read.format("delta")
    frame = (reader if version is None else reader.option("versionAsOf", version)).load(path)
    for column, value in where.items():
        frame = frame.where(F.col(column) == F.lit(value))
    return frame


def content_version(frame: DataFrame) -> str:
    """Hash of the rows of a frame, whatever their order, files and table version: what a rerun gives again.

    One pass over the columns of ``frame``; a sum of 64-bit hashes, so rows that occur twice do not cancel out.
    """
    # xxhash64 skips nulls: without the flags a null would count the same in either of two columns.
    flags = [F.isnull(name) for name in frame.columns]
    # As a decimal, since under ANSI a sum of long overflows.
    hashed = F.xxhash64(*frame.columns, *flags).cast("decimal(20,0)")
    rows, total = frame.agg(F.count(F.lit(1)), F.sum(hashed)).collect()[0]
    return "rows:" + hashlib.sha256(f"{rows}:{total or 0}".encode()).hexdigest()[:12]


def write_slice(
    frame: DataFrame, path: str, table: Table, where: Mapping[str, str | dt.date], metadata: Mapping[str, Any] | None = None
) -> int:
    """Replace the rows with ``where`` by ``frame``, and prove that they landed; returns their number.

    This is the only write path for history: ``replaceWhere`` rejects rows outside of its predicate, and an
    empty frame clears the slice. ``txnAppId``/``txnVersion`` are never used: they skip a write whose version is
    not the newest and report success.

    The commit carries a hash of ``where``, ``metadata`` and the code. Where one of the last commits carries the same and the
    slice holds these very rows, an earlier attempt wrote them and was killed, or was never told, and nothing is written.

    Raises:
        WriteError: no new version, or another number of rows in it than was sent.
    """
    spark = frame.sparkSession
    ensure(spark, path, table)
    predicate = " AND ".join(f"{column} = '{_literal(value)}'" for column, value in where.items())
    token, carried = uuid.uuid4().hex, {**where, **(metadata or {})}
    identity = hashlib.sha256(_as_json(carried).encode()).hexdigest()[:16]
    rows = frame.select(*table.names)
    if (there := _there_already(rows, path, predicate, identity)) is not None:
        log.info("%s has these %d rows with %s already, by an earlier attempt: no commit", _shown(path), there, predicate)
        return there
    # Counting once more would compute the frame twice; the commit's own metrics say what Spark wrote.
    write = (
        rows.write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", predicate)
        .option("userMetadata", _as_json({**carried, "identity": identity, "write": token}))
    )
    with table_lock(spark, path), _unless_landed(spark, path, token):
        write.save(path)
    entry = commit_of(spark, path, token)
    if entry is None:
        # Delta makes no version of nothing that replaces nothing.
        if frame.isEmpty() and spark.read.format("delta").load(path).where(predicate).isEmpty():
            return 0
        raise WriteError(f"{table.name}: the write of {predicate} made no new version")
    sent = int(entry["operationMetrics"].get("numOutputRows", 0))
    landed = spark.read.format("delta").load(path).where(predicate).count()
    if landed != sent:
        # Another writer may have replaced them since. Asked second: an older version takes five times as long to open.
        landed = spark.read.format("delta").option("versionAsOf", entry["version"]).load(path).where(predicate).count()
    if landed != sent:
        raise WriteError(f"{table.name} version {entry['version']}: {landed} rows landed with {predicate}, {sent} were sent")
    log.info("%s version %d: %d rows with %s", _shown(path), entry["version"], landed, predicate)
    return landed


def _there_already(rows: DataFrame, path: str, predicate: str, identity: str) -> int | None:
    """The number of rows in a slice if an earlier write of that identity left them there, and they are ``rows``; else None.

    The rows are compared, not trusted to be those of the identity: somebody may have changed the slice since.
    """
    commits = table_log.opened(path).history(_REMEMBERED_COMMITS)
    if not any(f'"{identity}"' in (commit.get("userMetadata") or "") for commit in commits):
        return None
    there = rows.sparkSession.read.format("delta").load(path).where(predicate).select(*rows.columns)
    return there.count() if content_version(there) == content_version(rows) else None


@contextmanager
def _unless_landed(spark: SparkSession, path: str, token: str) -> Iterator[None]:
    """Let an error pass that came although the commit of ``token`` landed: its reply was lost."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        if not _has_landed(spark, path, token):
            raise
        log.warning("%s: an error came after the commit had landed: %s", _shown(path), root_cause(error))


def _has_landed(spark: SparkSession, path: str, token: str) -> bool:
    try:
        return commit_of(spark, path, token) is not None
    except (Py4JJavaError, PySparkException):
        return False  # the error that was first says more


def _shown(path: str) -> str:
    return ("staging/" if Path(path).parent.name == "staging" else "") + Path(path).name


@contextmanager
def commit_metadata(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Let the commits made meanwhile carry ``metadata``, for commands that take it no other way; gives their token."""
    spark = SparkSession.active()
    key = "spark.databricks.delta.commitInfo.userMetadata"
    token = uuid.uuid4().hex
    spark.conf.set(key, _as_json({**metadata, "write": token}))
    try:
        yield token
    finally:
        spark.conf.unset(key)


def execute_merge(merge: DeltaMergeBuilder, path: str, metadata: Mapping[str, Any]) -> Row | None:
    """Run a MERGE whose commit carries ``metadata``; returns that commit's row of the history, None if there is none."""
    spark = SparkSession.active()
    with commit_metadata(metadata) as token, table_lock(spark, path), _unless_landed(spark, path, token):
        merge.execute()
    return commit_of(spark, path, token)


def delete_rows(spark: SparkSession, path: str, condition: Column, metadata: Mapping[str, Any]) -> None:
    """Delete rows of a table that one of our jobs wrote, and prove that they are gone.

    Raises:
        WriteError: rows that meet the condition are left.
    """
    with commit_metadata(metadata) as token, table_lock(spark, path), _unless_landed(spark, path, token):
        DeltaTable.forPath(spark, path).delete(condition)
    left = spark.read.format("delta").load(path).where(condition).count()
    if left:
        raise WriteError(f"{path}: {left} rows that were to be deleted are left")


def latest_version(spark: SparkSession, path: str) -> int:
    """The newest version of a Delta table, an input's too.

    Raises:
        InputError: entries of its log are missing or empty.
    """
    table_log.require_entries(path)
    return int(DeltaTable.forPath(spark, path).history(1).select("version").collect()[0][0])


def first_version(spark: SparkSession, path: str) -> int:
    """The earliest version that the table's log still has."""
    return int(DeltaTable.forPath(spark, path).history().agg(F.min("version")).collect()[0][0])


def commit_of(spark: SparkSession, path: str, token: str) -> Row | None:
    """The commit that carries ``token``: the newest one may be another writer's, of another day."""
    history = DeltaTable.forPath(spark, path).history(_RECENT_COMMITS)
    return history.where(F.col("userMetadata").contains(token)).head()


def _as_json(metadata: Mapping[str, Any]) -> str:
    """What a commit carries: beside what its writer says, the code that made it."""
    return json.dumps({"code": code_version(), **metadata}, default=str, sort_keys=True)


def _literal(value: str | dt.date) -> str:
    # replaceWhere takes text, so only values that cannot end the literal are let through.
    if isinstance(value, dt.date):
        return value.isoformat()
    if not _IDENTIFIER.fullmatch(value):
        raise InputError(f"{value!r} cannot name a slice of a table: use letters, digits and _ . : -")
    return value
