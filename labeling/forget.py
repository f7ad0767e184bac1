"""Remove a query from everything that this system wrote, and name the bundles that were trained on it.

Its rows go, lists lose it, datasets that hold it are removed whole (`labeller dataset` makes them again without it), and of
every table touched the earlier versions go too, so that no file has it. The click log is the shop's own: remove the query
there first, or the next night reads it again. Weights cannot forget; train again where a bundle that saw it must not label.
Run it when nothing else runs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from delta.tables import DeltaTable
from pydantic import SecretStr
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from etl import config, tables
from etl.config import SparkJobConfig
from etl.contracts import PAIRS, Table
from etl.durable import read_json
from etl.errors import InputError
from etl.job import run_job
from etl.lease import lock_directory, require_idle
from etl.log_history import drop_history
from etl.runs import record_stage
from etl.session import start_session
from etl.splits import query_key
from etl.table_lock import table_lock
from etl.text import Normaliser
from etl.warehouse import Warehouse, is_delta
from model.bundle import MANIFEST_FILE
from model.leftovers import abandoned

log = logging.getLogger(__name__)

STAGE = "forget"
QUERY, LISTS = "query", ("evidence", "phrases")
"""Columns of the contracts that hold queries: a row of its own, or a list that loses one."""

_SEED = 42
"""With which Spark's function hashes."""

_GROUPS = {"pairs": "query_group", "known": "query_group", "heldout": "query_id"}
"""Part of a dataset -> its column that tells a query, or those that differ from it in word order or a plural only."""


class ForgetConfig(SparkJobConfig):
    """Settings of `labeller forget`; the query stays out of logs and of Delta's, which keep hashes."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark")

    query: SecretStr
    """What was typed, in any spelling that is the same to `labeller pairs`: case, width and spaces make no difference."""

    dry_run: bool = False
    """Only say what holds it; nothing is written."""

    @property
    def writes(self) -> bool:
        """A dry run does not."""
        return not self.dry_run


@dataclass(frozen=True, slots=True)
class Trace:
    """A query as tables and datasets know it: 64-bit hashes by Spark's xxhash64."""

    ids: tuple[int, ...]
    """Of its normalised forms, with and without simplified Chinese."""
    groups: tuple[int, ...]

    def says(self, text: Column) -> Column:
        """Whether a text is the query; by hash, since Delta's log keeps the condition of a change."""
        return F.xxhash64(text).isin(*self.ids)

    def row(self, table: Table) -> Column | None:
        """Whether a whole row is about the query; None for a table without such rows."""
        return self.says(F.col(QUERY)) if QUERY in table.names else None

    def listed(self, table: Table) -> dict[str, Column]:
        """Column -> whether a list of a row holds the query."""
        return {name: F.exists(name, self._entry(name)) for name in _lists(table)}

    def without(self, table: Table) -> dict[str, Column]:
        """Column -> the list without it."""
        return {name: F.filter(name, self._entry(name, wanted=False)) for name in _lists(table)}

    def _entry(self, name: str, *, wanted: bool = True) -> Callable[[Column], Column]:
        """Whether an entry of a list is the query, or is not; ``phrases`` holds it with its figures."""

        def is_wanted(entry: Column) -> Column:
            found = self.says(entry[QUERY] if name == "phrases" else entry)
            return found if wanted else ~found

        return is_wanted


def _lists(table: Table) -> list[str]:
    return [name for name in LISTS if name in table.names]


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(ForgetConfig, "labeller forget", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), ForgetConfig, run, argv)


def run(settings: ForgetConfig) -> Mapping[str, Any]:
    """Find the query and remove it; returns how many rows, datasets and bundles had to do with it.

    Raises:
        InputError: no word is in the query.
        DayTaken: a job of another day runs.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    if not settings.dry_run:
        require_idle(lock_directory(settings), settings.ds)  # before counting: what is committed meanwhile would be missed
    spark = start_session("labeller forget", settings)
    trace = trace_of(spark, settings.query.get_secret_value())
    rows = {place: found for place in _places(warehouse) if (found := count(spark, *place, trace))}
    days = days_of(spark, warehouse, trace)
    datasets = [path for path in sorted(warehouse.datasets.glob("*ds=*")) if holds(path, trace)]
    days |= {dt.date.fromisoformat(path.name.partition("ds=")[2][:10]) for path in datasets}
    cut_off = [path for path in abandoned(warehouse.checkpoints, dt.date.max) if path.name in {f"ds={day}" for day in days}]
    saw, unknown = bundles_that_saw(warehouse, days, spark)
    for (table, path), found in rows.items():
        log.info("%s at %s: %d rows hold it", table.name, path, found)
    for directory in (*datasets, *cut_off):
        log.info("%s holds it", directory)
    log.info("trained on a dataset that held it: %s; on one that is no longer there, so nobody knows: %s", saw, unknown)
    counts: dict[str, Any] = {"rows": sum(rows.values()), "datasets": len(datasets), "checkpoints": len(cut_off)}
    counts |= {"bundles": ",".join(saw) or "none", "unknown_bundles": ",".join(unknown) or "none"}
    if settings.dry_run:
        log.info("dry run: nothing was written")
        return counts
    # Again: a job that started meanwhile writes back what it has read.
    require_idle(lock_directory(settings), settings.ds)
    # On record first, and pairs last: a run that was cut off is made again from what they still tell, and where nothing is
    # left of them its own record stays.
    if rows or datasets:
        record_stage(spark, warehouse, settings.ds, STAGE, inputs={}, counts=counts, seconds=time.monotonic() - started)
    for directory in (*cut_off, *datasets):
        shutil.rmtree(directory)
    for table, path in sorted(rows, key=lambda place: place[0] is PAIRS):
        remove(spark, table, path, trace)
    # Also where no row has it now: a version of before may.
    for _, path in _places(warehouse):
        drop_history(spark, path, {"stage": STAGE})
    log.warning("the click log still has it, if the shop did not remove it there: the next night would read it again")
    return counts


def trace_of(spark: SparkSession, query: str) -> Trace:
    """The hashes of a raw query.

    Raises:
        InputError: no word is in it.
    """
    forms = {Normaliser(simplified=simplified).normal_form(query) for simplified in (False, True)} - {""}
    if not forms:
        raise InputError("--query has no word in it (expected what a shopper typed): nothing to forget")

    def hashes(texts: Iterable[str]) -> tuple[int, ...]:
        return tuple(xxhash64(spark, text) for text in sorted(texts))

    return Trace(hashes(forms), hashes({query_key(form) for form in forms}))


def xxhash64(spark: SparkSession, text: str) -> int:
    """What Spark's function of that name says of a text, by its code but in no plan: event logs and the UI keep plans."""
    jvm: Any = spark._jvm
    hasher = jvm.org.apache.spark.sql.catalyst.expressions.XXH64
    return int(hasher.hashUTF8String(jvm.org.apache.spark.unsafe.types.UTF8String.fromString(text), _SEED))


# ---------------------------------------------------------------- tables


def _places(warehouse: Warehouse) -> list[tuple[Table, str]]:
    """Tables that hold queries, where there are any: those that are live, and what is staged of them."""
    holding = [(table, path) for table, path in warehouse.outputs().values() if QUERY in table.names or _lists(table)]
    return [(table, path) for table, path in holding if is_delta(path)]


def count(spark: SparkSession, table: Table, path: str, trace: Trace) -> int:
    """Rows of a table that hold the query."""
    conditions = [c for c in (trace.row(table), *trace.listed(table).values()) if c is not None]
    return tables.read(spark, path, table).where(_any(conditions)).count()


def remove(spark: SparkSession, table: Table, path: str, trace: Trace) -> None:
    """Rows about the query go, lists lose it, rows whose lists were all they said go too; what is left is counted: none.

    Raises:
        WriteError: rows that hold it are left.
    """
    metadata = {"stage": STAGE}
    if (about := trace.row(table)) is not None:
        tables.delete_rows(spark, path, about, metadata)
    listed, without = trace.listed(table), trace.without(table)
    if listed:
        if table.name == "copy_keywords":  # its contract: a row says something that the title does not
            empty = (F.size("missing_terms") == 0) & (F.size(without["phrases"]) == 0)
            tables.delete_rows(spark, path, _any(listed.values()) & empty, metadata)
        with table_lock(spark, path), tables.commit_metadata(metadata):
            DeltaTable.forPath(spark, path).update(_any(listed.values()), {**without})
    if left := count(spark, table, path, trace):
        raise tables.WriteError(f"{path}: {left} rows still hold the query")


def _any(conditions: Iterable[Column]) -> Column:
    first, *others = conditions
    for condition in others:
        first = first | condition
    return first


# ---------------------------------------------------------------- datasets and bundles


def days_of(spark: SparkSession, warehouse: Warehouse, trace: Trace) -> set[dt.date]:
    """Days whose pairs hold the query."""
    path = warehouse.table(PAIRS)
    if not is_delta(path):
        return set()
    about = trace.row(PAIRS)
    assert about is not None
    return {row["ds"] for row in tables.read(spark, path, PAIRS).where(about).select("ds").distinct().collect()}


def holds(dataset: Path, trace: Trace) -> bool:
    """Whether a dataset has a row of the query or of its group; numbers only are read, nothing is unpickled."""
    for part, column in _GROUPS.items():
        wanted = trace.ids if column == "query_id" else trace.groups
        for file in sorted((dataset / part).glob("*.parquet")):
            values = pq.ParquetFile(file).read(columns=[column])[column]
            if pc.any(pc.is_in(values, value_set=pa.array(wanted, pa.int64()))).as_py():
                return True
    return False


def bundles_that_saw(warehouse: Warehouse, days: set[dt.date], spark: SparkSession) -> tuple[list[str], list[str]]:
    """Ids of bundles whose dataset's day held the query; and of those of which neither dataset nor pairs tell any more."""
    kept = {path.name for path in warehouse.datasets.glob("ds=*")} | set(_days_with_pairs(spark, warehouse))
    saw, unknown = [], []
    for bundle, trained_on in _trainings(warehouse):
        if trained_on in {str(day) for day in days}:
            saw.append(bundle)
        elif f"ds={trained_on}" not in kept:
            unknown.append(bundle)
    return saw, unknown


def _trainings(warehouse: Warehouse) -> Iterator[tuple[str, str]]:
    for file in sorted(warehouse.bundles.glob(f"*/{MANIFEST_FILE}")):
        yield file.parent.name, str(read_json(file)["lineage"].get("dataset", ""))


def _days_with_pairs(spark: SparkSession, warehouse: Warehouse) -> Iterator[str]:
    if is_delta(path := warehouse.table(PAIRS)):
        for row in tables.read(spark, path, PAIRS).select("ds").distinct().collect():
            yield f"ds={row['ds']}"


if __name__ == "__main__":
    sys.exit(main())
