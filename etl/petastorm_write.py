"""Write a DataFrame as a Petastorm directory whose files are equal in rows and the same bytes every time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from petastorm.codecs import ScalarCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.unischema import Unischema, UnischemaField
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

_NUMPY_TYPES = {"bigint": np.int64, "float": np.float32, "binary": np.bytes_}
_BUCKET_BITS = 10
# materialize_dataset sets these and, if the write in it fails, leaves them set for every later job.
_HADOOP_KEYS = (
    "parquet.summary.metadata.level",
    "parquet.enable.summary-metadata",
    "parquet.summary.metadata.propagate-errors",
    "parquet.block.size.row.check.min",
    "parquet.row-group.size.row.check.min",
    "parquet.block.size",
)


def write_petastorm(frame: DataFrame, directory: Path, *, keys: list[str], files: int, row_group_mb: int) -> None:
    """Write native columns (bigint, float, binary) with their Unischema.

    Args:
        frame: The rows, unique in ``keys``; read twice, so persist it if it is dear.
        directory: Where to; made here.
        keys: Columns whose hash gives the order of the rows.
        files: Number of files; fewer only if there are fewer rows.
        row_group_mb: Upper bound of a row group, MiB.
    """
    spark = frame.sparkSession
    schema = Unischema(
        directory.name,
        [
            UnischemaField(field.name, _NUMPY_TYPES[field.dataType.simpleString()], (), ScalarCodec(field.dataType), False)
            for field in frame.schema
        ],
    )
    ordered = in_files(frame, keys, files)
    with _hadoop_settings_kept(spark), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
        with materialize_dataset(
            spark, f"file://{directory}", schema, row_group_size_mb=row_group_mb, filesystem_factory=_local_filesystem
        ):
            ordered.write.parquet(str(directory))
            name_files(directory)
    for path in directory.glob(".*.crc"):
        path.unlink()


def in_files(frame: DataFrame, keys: list[str], files: int) -> DataFrame:
    """The rows in ``files`` partitions that differ by one row at most, in an order that depends on ``keys`` alone."""
    hashed = frame.withColumn("_hash", F.xxhash64(*keys))
    # A row's place in the whole order is its place in its bucket plus the sizes of the buckets before: a
    # row_number over everything would pull all rows to one task.
    bucket = F.shiftrightunsigned("_hash", 64 - _BUCKET_BITS)
    sizes = {row["_b"]: row["count"] for row in hashed.groupBy(bucket.alias("_b")).count().collect()}
    before, offsets = 0, []
    for number in range(2**_BUCKET_BITS):
        offsets.append(before)
        before += sizes.get(number, 0)
    offset = F.element_at(F.array(*map(F.lit, offsets)), (bucket + 1).cast("int"))
    place = F.row_number().over(Window.partitionBy(bucket).orderBy("_hash", *keys)) - 1 + offset
    file = file_of(place, before, files)
    placed = hashed.withColumns(
        {"_place": place, "_key": F.element_at(_partition_keys(frame.sparkSession, files), file + 1)}
    )
    return placed.repartition(files, "_key").sortWithinPartitions("_place").drop("_hash", "_place", "_key")


def file_of(place: Column, rows: int, files: int) -> Column:
    """Which of ``files`` equal files the row at ``place`` of ``rows`` goes to."""
    # As long: 64 files of 10^8 rows overflow what row_number() counts in, which ends the job under ANSI.
    return F.floor(place.cast("bigint") * files / F.lit(max(rows, 1))).cast("int")


def name_files(directory: Path) -> None:
    """Give Spark's files names without its random part, and remove its markers."""
    for n, path in enumerate(sorted(directory.glob("part-*.parquet"))):
        path.rename(directory / f"part-{n:05d}.parquet")
    for path in (*directory.glob(".*.crc"), *directory.glob("_SUCCESS")):
        path.unlink()


def _partition_keys(spark: SparkSession, files: int) -> Column:
    """An array column whose i-th value Spark's hash partitioning sends to partition i of ``files``."""
    spread = spark.range(files * 64).select("id", F.pmod(F.hash("id"), F.lit(files)).alias("partition"))
    found = spread.groupBy("partition").agg(F.min("id").alias("key")).orderBy("partition").collect()
    assert len(found) == files
    return F.array(*(F.lit(row["key"]).cast("bigint") for row in found))


def _local_filesystem() -> Any:
    # Petastorm's own factory is evaluated on each worker too and warns there, once a file.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pa.localfs


@contextmanager
def _hadoop_settings_kept(spark: SparkSession) -> Iterator[None]:
    settings = spark.sparkContext._jsc.hadoopConfiguration()
    before = {key: settings.get(key) for key in _HADOOP_KEYS}
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                settings.unset(key)
            else:
                settings.set(key, value)
