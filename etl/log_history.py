"""Earlier versions of a Delta table made unreadable, so that what was deleted lies in no file any more."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deltalake
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from etl.tables import commit_metadata, latest_version

log = logging.getLogger(__name__)

_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_VERSION = re.compile(r"(\d{20})\.")


def drop_history(spark: SparkSession, path: str, metadata: Mapping[str, Any]) -> None:
    """Remove data files and log entries of all versions but the newest; its rows stay as they are.

    Log entries hold the least and the greatest value of each file's columns and the conditions of changes, so they go as the
    data files do. A commit without rows is made first: the newest entry, which has to stay, then says nothing of any file.
    Whoever reads or writes the table meanwhile fails.
    """
    last = latest_version(spark, path)
    with commit_metadata(metadata):
        spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('labeller.versions_dropped_to' = '{last}')")
    spark.conf.set(_CHECK, "false")
    try:
        DeltaTable.forPath(spark, path).vacuum(0)
    finally:
        spark.conf.unset(_CHECK)
    newest = deltalake.DeltaTable(path)
    newest.create_checkpoint()
    gone = [file for file in (Path(path) / "_delta_log").iterdir() if _version(file) < newest.version()]
    for file in gone:
        file.unlink()
    # The session remembers entries that are gone now.
    spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    log.info("%s: version %d is the first that can be read, %d log files removed", path, newest.version(), len(gone))


def _version(file: Path) -> float:
    """Version that a file of the log is of; those of no version stay."""
    found = _VERSION.match(file.name.removeprefix("."))  # checksums of local files are hidden
    return int(found[1]) if found else float("inf")
