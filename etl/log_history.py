"""Files of earlier versions of a Delta table: how they are removed, in time or at once."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import deltalake
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from etl import storage
from etl.table_lock import table_lock
from etl.tables import commit_metadata, latest_version, sql_name

log = logging.getLogger(__name__)

_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_VERSION = re.compile(r"(\d{20})\.")


def vacuum(spark: SparkSession, path: str, hours: int) -> None:
    """Remove the data files that no version of a table younger than that needs.

    Under the table's lock, since Delta commits what it is about to do and what it has done.
    """
    # By default Delta lists the directories by 10,000 tasks: minutes of a laptop for a table of three days.
    settings = {_LISTING: str(2 * spark.sparkContext.defaultParallelism)} | ({} if hours else {_CHECK: "false"})
    with _set(spark, settings), table_lock(spark, path):
        DeltaTable.forPath(spark, path).vacuum(hours)


def drop_history(spark: SparkSession, path: str, metadata: Mapping[str, Any]) -> None:
    """Remove data files and log entries of all versions but the newest, so that what was deleted lies in no file any more.

    Log entries hold the least and the greatest value of each file's columns and the conditions of changes, so they go as the
    data files do. A commit without rows is made first: the newest entry, which has to stay, then says nothing of any file.
    Whoever reads the table meanwhile fails; whoever would write it waits.
    """
    with table_lock(spark, path):
        last = latest_version(spark, path)
        with commit_metadata(metadata):
            spark.sql(f"ALTER TABLE {sql_name(path)} SET TBLPROPERTIES ('labeller.versions_dropped_to' = '{last}')")
        vacuum(spark, path, 0)
        newest = deltalake.DeltaTable(path)
        newest.create_checkpoint()
        files = [file.path for file in storage.files_under(f"{path}/_delta_log")]
        gone = [file for file in files if _version(file) < newest.version()]
        for file in gone:
            storage.remove(file)
    # The session remembers entries that are gone now.
    jvm: Any = spark.sparkContext._jvm
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    log.info("%s: version %d is the first that can be read, %d log files removed", path, newest.version(), len(gone))


@contextmanager
def _set(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    before = {key: spark.conf.get(key, None) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


def _version(file: str) -> float:
    """Version that a file of the log is of; those of no version stay."""
    found = _VERSION.match(file.rpartition("/")[2].removeprefix("."))  # checksums of local files are hidden
    return int(found[1]) if found else float("inf")
