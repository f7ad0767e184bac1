"""Which day is live, by the records that Delta and the log of runs keep; read without Spark."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from deltalake import DeltaTable

from etl.contracts import LABELS_CURRENT, RUNS
from etl.warehouse import Warehouse, is_delta
from labeling import local_tables


@dataclass(frozen=True, slots=True)
class LiveDay:
    """A day that was made live, by whom and when."""

    at: dt.datetime
    """UTC."""
    stage: str
    """What made it live, such as publish."""
    ds: dt.date
    run_id: str
    bundle: str


def live_now(warehouse: Warehouse) -> LiveDay | None:
    """What was made live last; None before the first publishing."""
    return max((*live_commits(warehouse), *_records(warehouse)), key=lambda day: (day.at, day.ds), default=None)


def live_commits(warehouse: Warehouse) -> Iterator[LiveDay]:
    """Of the commits of LABELS_CURRENT those that a stage made for a day: no compaction, no vacuum."""
    path = warehouse.table(LABELS_CURRENT)
    for commit in DeltaTable(path).history() if is_delta(path) else ():
        said = json.loads(commit.get("userMetadata") or "{}")
        if {"stage", "ds", "run_id", "bundle"} <= said.keys():
            at = dt.datetime.fromtimestamp(commit["timestamp"] / 1000, dt.UTC)
            yield LiveDay(at, said["stage"], dt.date.fromisoformat(said["ds"]), said["run_id"], said["bundle"])


def _records(warehouse: Warehouse) -> Iterator[LiveDay]:
    """Of the log of runs those that say so: a day that changed no label made no commit."""
    path = warehouse.table(RUNS)
    rows = local_tables.scan(path).filter(pl.col("run_id").is_not_null()).collect().to_dicts() if is_delta(path) else []
    for row in rows:
        if json.loads(row["counts"]).get("live"):
            yield LiveDay(row["finished_at"], row["stage"], row["ds"], row["run_id"], row["bundle"] or "")
