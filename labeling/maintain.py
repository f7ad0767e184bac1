"""Keep the warehouse small and fast: old days, bundles and datasets go, small files are put together, dead ones removed.

What is live, what a rollback can go back to and what rows that stay refer to is kept, whatever the settings say. Run it when
no night runs: a commit to a table that is compacted meanwhile may have to be made again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import config, log_history, storage, tables
from etl.contracts import ITEM_EMBEDDINGS, OUTPUTS, PAIRS, TITLE_GROUPS
from etl.errors import InputError
from etl.job import run_job
from etl.pairs_config import PairsConfig
from etl.runs import record_stage
from etl.session import start_session
from etl.table_lock import table_lock
from etl.warehouse import Warehouse, is_delta
from labeling import local_tables
from labeling.live_log import live_state
from labeling.referred import referred_bundles, referred_datasets
from labeling.retention import CHECKPOINTS, DATED, MaintainConfig
from model.bundle import MANIFEST_FILE
from model.leftovers import abandoned

log = logging.getLogger(__name__)

STAGE = "maintain"

LEFT_SECONDS = 86_400.0
"""Since the last change in a directory that a job writes; after it the job is taken to be gone. Writing takes minutes."""


@dataclass(frozen=True, slots=True)
class OldRows:
    """Partitions of one table that go."""

    name: str
    path: str
    column: str
    values: tuple[Any, ...]
    """Values of the partitions, ascending."""
    rows: int
    size: int
    """Bytes of the files that hold them; they lie there until they are ``vacuum_days`` old."""


@dataclass(frozen=True, slots=True)
class OldDirectory:
    """A directory that nothing refers to any more."""

    path: Path
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes, by a look at what is there; nothing of it is done yet."""

    rows: Sequence[OldRows]
    directories: Sequence[OldDirectory]
    dead_bytes: int
    """Of files that no version younger than ``vacuum_days`` needs; those of ``rows`` will be, that many days after."""

    @property
    def counts(self) -> dict[str, int]:
        return {
            "dead_bytes": self.dead_bytes,
            "rows": sum(old.rows for old in self.rows),
            "row_bytes": sum(old.size for old in self.rows),
            "directories": len(self.directories),
            "directory_bytes": sum(old.size for old in self.directories),
        }


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(MaintainConfig, "labeller maintain", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), MaintainConfig, run, argv)


def run(settings: MaintainConfig) -> Mapping[str, Any]:
    """Say what would go, or let it go, compact and vacuum.

    Raises:
        InputError: nothing is live, so that nothing says which day to count from.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    work = plan(warehouse, settings)
    for old in work.rows:
        log.info("plan: %s: %d rows, %d bytes of %s %s to %s", old.name, old.rows, old.size, old.column, *ends(old.values))
    for directory in work.directories:
        log.info("plan: %s: %d bytes that nothing refers to", directory.path, directory.size)
    if settings.dry_run:
        log.info("dry run: nothing was written")
        return work.counts
    spark = start_session("labeller maintain", settings)
    for old in work.rows:
        condition = F.col(old.column).isin(*old.values)
        tables.delete_rows(spark, old.path, condition, {"stage": STAGE, "column": old.column, "values": old.values})
    counts = work.counts | {"compacted": compact(spark, warehouse, settings), "vacuumed": vacuum(spark, warehouse, settings)}
    for directory in work.directories:
        remove(directory.path)
    record_stage(spark, warehouse, settings.ds, STAGE, inputs={}, counts=counts, seconds=time.monotonic() - started)
    return counts


# ---------------------------------------------------------------- what goes


def plan(warehouse: Warehouse, settings: MaintainConfig) -> Plan:
    """What is older than the settings keep, and protected by nothing.

    Raises:
        InputError: nothing is live, or pairs are kept for less than their window.
    """
    _require_window(warehouse, settings)
    since = first_days(warehouse, settings)
    bundles = referred_bundles(warehouse, since, settings.keep_bundles)
    rows = [_old_days(name, path, since[name.partition("/")[0]]) for name, path in _dated(warehouse).items()]
    rows.append(_old_bundles(warehouse.table(ITEM_EMBEDDINGS), bundles))
    directories = list(_old_directories(warehouse, settings, bundles, since))
    return Plan([old for old in rows if old.values], directories, _dead_bytes(warehouse, settings))


def _require_window(warehouse: Warehouse, settings: MaintainConfig) -> None:
    given: dict[str, Any] = {"config": None, "root": str(warehouse.root), "ds": settings.ds}
    window = config.from_args(PairsConfig, argparse.Namespace(**given)).window_days
    problems = [
        f"keep_days of {table.name} is {settings.days[table.name]} (expected >= {window}: [pairs] window_days, whose late "
        "clicks name the days that have pairs)"
        for table in (PAIRS, TITLE_GROUPS)
        if settings.days[table.name] < window
    ]
    if problems:
        raise InputError.of(problems, heading="settings refused:")


def first_days(warehouse: Warehouse, settings: MaintainConfig) -> dict[str, dt.date]:
    """First day that is kept of everything that has days; days are counted back from the day that is live, or ``ds`` before.

    Raises:
        InputError: nothing is live.
    """
    live = live_state(warehouse).now
    if live is None:
        raise InputError(
            f"{warehouse.root} has no live labels (expected a day that `labeller publish` made live, to count from): "
            "publish one first"
        )
    last = min(settings.ds, live.ds)
    return {name: last - dt.timedelta(days=days - 1) for name, days in settings.days.items()}


def _dated(warehouse: Warehouse) -> dict[str, str]:
    """Name -> path of the tables with days; a staged one is called staging/NAME."""
    return {name: path for name, (table, path) in warehouse.outputs().items() if table in DATED}


def _old_days(name: str, path: str, first: dt.date) -> OldRows:
    return _old(name, path, "ds", pl.col("value") < first)


def _old_bundles(path: str, kept: Mapping[str, str]) -> OldRows:
    return _old(ITEM_EMBEDDINGS.name, path, "bundle", ~pl.col("value").is_in(list(kept)))


def _old(name: str, path: str, column: str, goes: pl.Expr) -> OldRows:
    """The partitions of a table that meet a condition on ``value``, by the log alone: no data file is opened."""
    if not is_delta(path):
        return OldRows(name, path, column, (), 0, 0)
    files = local_tables.files(path)
    if files.is_empty():
        return OldRows(name, path, column, (), 0, 0)
    found = files.select(pl.col(f"partition.{column}").alias("value"), "num_records", "size_bytes").filter(goes)
    values = tuple(found["value"].unique().sort())
    return OldRows(name, path, column, values, int(found["num_records"].sum()), int(found["size_bytes"].sum()))


def _old_directories(
    warehouse: Warehouse, settings: MaintainConfig, bundles: Mapping[str, str], since: Mapping[str, dt.date]
) -> Iterator[OldDirectory]:
    datasets = referred_datasets(warehouse, settings.keep_datasets)
    found = [file.parent for file in warehouse.bundles.glob(f"*/{MANIFEST_FILE}") if file.parent.name not in bundles]
    found += [path for path in warehouse.datasets.glob("ds=*") if path.name not in datasets]
    found += abandoned(warehouse.checkpoints, since[CHECKPOINTS] - dt.timedelta(days=1))
    found += [path for parent in (warehouse.bundles, warehouse.datasets) for path in _left_by_killed(parent)]
    for path in sorted(found):
        if not path.is_symlink():  # somebody keeps it elsewhere, and knows why
            yield OldDirectory(path, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))


def _left_by_killed(parent: Path) -> Iterator[Path]:
    """Directories of jobs that were killed while they wrote or removed a bundle or dataset."""
    yield from parent.glob(".*.removing")
    # A dataset that was taken out of its place and that none took the place of is put back by the next job that wants it.
    replaced = [old for old in parent.glob(".*.old") if old.with_name(old.name[1:].removesuffix(".old")).exists()]
    for path in (*parent.glob(".writing-*"), *parent.glob(".*.building"), *replaced):
        newest = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
        if path.is_dir() and time.time() - newest > LEFT_SECONDS:
            yield path


def _dead_bytes(warehouse: Warehouse, settings: MaintainConfig) -> int:
    hours, found = settings.vacuum_days * 24, 0
    for path in _delta_paths(warehouse):
        dead = deltalake.DeltaTable(path).vacuum(retention_hours=hours, dry_run=True, full=True)
        sizes = {storage.shown(file.path, path): file.size for file in storage.files_under(path)} if dead else {}
        found += sum(sizes[name] for name in dead)
    return found


def _delta_paths(warehouse: Warehouse) -> list[str]:
    return [path for _, path in warehouse.outputs().values() if is_delta(path)]


def ends(values: Sequence[Any]) -> tuple[Any, Any]:
    """First and last of them."""
    return values[0], values[-1]


# ---------------------------------------------------------------- doing it


def compact(spark: SparkSession, warehouse: Warehouse, settings: MaintainConfig) -> int:
    """Put small files of the newest days together, and those of tables without days; returns how many there were."""
    live = live_state(warehouse).now
    assert live is not None, "the plan counts from its day"
    if not settings.compact_days:
        return 0
    first = live.ds - dt.timedelta(days=settings.compact_days - 1)
    merged = 0
    for table in OUTPUTS:
        if not is_delta(path := warehouse.table(table)):
            continue
        optimize = DeltaTable.forPath(spark, path).optimize()
        if "ds" in table.partition_by:
            optimize = optimize.where(f"ds >= '{first}'")
        with table_lock(spark, path), tables.commit_metadata({"stage": STAGE, "what": "compaction"}):
            metrics = optimize.executeCompaction().select("metrics.numFilesRemoved").head()
        merged += int(metrics[0]) if metrics else 0
    return merged


def vacuum(spark: SparkSession, warehouse: Warehouse, settings: MaintainConfig) -> int:
    """Remove files that no version younger than ``vacuum_days`` needs; returns how many bytes."""
    freed = 0
    for path in _delta_paths(warehouse):
        before = _data_bytes(path)
        log_history.vacuum(spark, path, settings.vacuum_days * 24)
        freed += before - _data_bytes(path)
    return freed


def _data_bytes(path: str) -> int:
    files = ((storage.shown(file.path, path), file.size) for file in storage.files_under(path))
    return sum(size for name, size in files if name.endswith(".parquet") and not name.startswith("_delta_log/"))


def remove(directory: Path) -> None:
    """Rename, then remove: nobody ever sees half a bundle or dataset; what a crash leaves goes the next time."""
    aside = directory
    if not directory.name.startswith("."):
        aside = directory.with_name(f".{directory.name}.removing")
        directory.rename(aside)
    shutil.rmtree(aside)
    log.info("removed %s", directory)


if __name__ == "__main__":
    sys.exit(main())
