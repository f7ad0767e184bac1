"""Delta tables made from their contracts, one write path for history, and reads that say what is missing."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from etl.contracts import Table
from etl.errors import InputError
from etl.warehouse import is_delta

log = logging.getLogger(__name__)

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class WriteError(RuntimeError):
    """A commit was skipped or landed with other rows than were sent."""


def ensure(spark: SparkSession, path: str, table: Table) -> None:
    """Create the table with comments, constraints and properties, if it is not there.

    Reader version 1 is kept (no deletion vectors, no column mapping), so that other engines open it.
    """
    if is_delta(path):
        return
    builder = DeltaTable.createIfNotExists(spark).location(path).comment(table.comment)
    schema = StructType.fromDDL(table.ddl)
    assert isinstance(schema, StructType)
    for column, spark_field in zip(table.columns, schema.fields, strict=True):
        builder = builder.addColumn(column.name, spark_field.dataType, nullable=column.nullable, comment=column.comment)
    if table.partition_by:
        builder = builder.partitionedBy(*table.partition_by)
    for key, value in ({"delta.enableDeletionVectors": "false"} | table.properties).items():
        builder = builder.property(key, value)
    builder.execute()
    for name, condition in table.checks.items():
        spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT {name} CHECK ({condition})")


def read(spark: SparkSession, path: str, table: Table, **where: Any) -> DataFrame:
    """Rows of a Delta table that one of our jobs wrote, filtered by equality.

    Raises:
        InputError: there is no such table.
    """
    if not is_delta(path):
        raise InputError(f"table {table.name} is not at {path}: run the stage that writes it first (see `labeller --help`)")
    frame = spark.read.format("delta").load(path)
    for column, value in where.items():
        frame = frame.where(F.col(column) == F.lit(value))
    return frame


def write_slice(
    frame: DataFrame, path: str, table: Table, where: Mapping[str, str | dt.date], metadata: Mapping[str, Any] | None = None
) -> int:
    """Replace the rows with ``where`` by ``frame``, and prove that they landed; returns their number.

    This is the only write path for history: ``replaceWhere`` rejects rows outside of its predicate, and an
    empty frame clears the slice. ``txnAppId``/``txnVersion`` are never used: they skip a write whose version is
    not the newest and report success.

    Raises:
        WriteError: no new version, or another number of rows in it than was sent.
    """
    spark = frame.sparkSession
    ensure(spark, path, table)
    before = latest_version(spark, path)
    predicate = " AND ".join(f"{column} = '{_literal(value)}'" for column, value in where.items())
    # Counting once more would compute the frame twice; the commit's own metrics say what Spark wrote.
    (
        frame.select(*table.names)
        .write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", predicate)
        .option("userMetadata", json.dumps(metadata or {}, default=str, sort_keys=True))
        .save(path)
    )
    entry = DeltaTable.forPath(spark, path).history(1).collect()[0]
    if entry["version"] <= before:
        raise WriteError(f"{table.name}: the write of {predicate} made no new version (newest is {before})")
    sent = int(entry["operationMetrics"].get("numOutputRows", 0))
    landed = spark.read.format("delta").option("versionAsOf", entry["version"]).load(path).where(predicate).count()
    if landed != sent:
        raise WriteError(f"{table.name} version {entry['version']}: {landed} rows landed with {predicate}, {sent} were sent")
    log.info("%s version %d: %d rows with %s", table.name, entry["version"], landed, predicate)
    return landed


@contextmanager
def commit_metadata(spark: SparkSession, metadata: Mapping[str, Any]) -> Iterator[None]:
    """While entered, each Delta commit of the session carries ``metadata``: MERGE takes it no other way."""
    key = "spark.databricks.delta.commitInfo.userMetadata"
    spark.conf.set(key, json.dumps(metadata, default=str, sort_keys=True))
    try:
        yield
    finally:
        spark.conf.unset(key)


def latest_version(spark: SparkSession, path: str) -> int:
    return int(DeltaTable.forPath(spark, path).history(1).select("version").collect()[0][0])


def _literal(value: str | dt.date) -> str:
    # replaceWhere takes text, so only values that cannot end the literal are let through.
    if isinstance(value, dt.date):
        return value.isoformat()
    if not _IDENTIFIER.fullmatch(value):
        raise InputError(f"{value!r} cannot name a slice of a table: use letters, digits and _ . : -")
    return value
