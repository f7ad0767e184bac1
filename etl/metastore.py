"""Input tables that have a name in Spark's catalogue, mostly a Hive metastore: what they are and which files they read."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.errors import InputError
from etl.files import listing_version


def table_named(spark: SparkSession, name: str, ours: str) -> DataFrame:
    """The whole table or view ``name``.

    Raises:
        InputError: there is none.
    """
    try:
        return spark.table(name)
    except AnalysisException as error:
        reason = str(error.getMessage()).strip().splitlines()[0]
        raise InputError(
            f"input table {ours}: {name} cannot be read from Spark's catalogue (expected a table): {reason}; give "
            f"[warehouse.inputs.{ours}] another table, or tell Spark where the metastore is: hive-site.xml in "
            'SPARK_CONF_DIR, or [spark] spark_conf = {"spark.hadoop.hive.metastore.uris" = "thrift://..."}'
        ) from error


def delta_version(spark: SparkSession, name: str) -> int:
    """Newest version of a Delta table."""
    return int(DeltaTable.forName(spark, name).history(1).select("version").collect()[0][0])


def is_delta_table(spark: SparkSession, name: str) -> bool:
    return _described(spark, name).get("Provider") == "delta"


def parquet_files(spark: SparkSession, name: str, frame: DataFrame) -> list[str]:
    """Parquet files that ``frame``, rows of the table ``name``, reads from mounted paths.

    None for a view, whose columns are not those of its files, and for other formats. Files on HDFS or in an object
    store are Spark's alone to open: there the metastore's columns are what is checked.
    """
    described = _described(spark, name)
    if "parquet" not in (described.get("Provider", "") + described.get("InputFormat", "")).lower():
        return []
    uris = map(urlsplit, frame.inputFiles())
    return sorted(unquote(uri.path) for uri in uris if uri.scheme in ("", "file"))


def partition_columns(spark: SparkSession, name: str) -> frozenset[str]:
    """Columns that stand in the names of directories, not in the files."""
    return frozenset(column.name for column in spark.catalog.listColumns(name) if column.isPartition)


def catalogue_version(spark: SparkSession, name: str, frame: DataFrame) -> str:
    """Version of what ``frame`` reads of the table ``name``, no Delta table: a hash over its files."""
    files = [unquote(uri) for uri in frame.inputFiles()]
    if not files:
        return listing_version("hive", [])
    # These columns of binaryFile read no content, on any file system that Spark knows.
    columns = ("path", "length", F.unix_micros("modificationTime"))
    listed = spark.read.format("binaryFile").load(files).select(*columns).collect()
    return listing_version("hive", [tuple(row) for row in listed])


def _described(spark: SparkSession, name: str) -> dict[str, str]:
    """What the catalogue says of a table beside its columns."""
    rows = spark.sql("DESCRIBE TABLE EXTENDED IDENTIFIER(:name)", args={"name": name}).collect()
    start = next((n for n, row in enumerate(rows) if row["col_name"] == "# Detailed Table Information"), len(rows))
    return {row["col_name"]: row["data_type"] for row in rows[start:]}
