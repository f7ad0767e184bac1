"""What is live and what was: the commits of LABELS_CURRENT, each of which carries the run that it made live.

Read without Spark.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from etl.contracts import LABELS_CURRENT, LINEAGE, RUNS, Table
from etl.polars_scan import scan
from etl.table_log import naming_table, opened
from etl.warehouse import Warehouse, is_delta

PUBLISH, ROLLBACK = "publish", "rollback"
"""Stages that make a run live."""


@dataclass(frozen=True, slots=True)
class LiveCommit:
    """One commit that made a run live."""

    version: int
    """Of LABELS_CURRENT, which holds what was live from then on."""
    stage: str
    ds: dt.date
    """Day whose labels it made live."""
    at: dt.datetime
    """When (UTC)."""
    lineage: Mapping[str, str | None]
    """Columns LINEAGE of that run."""
    changes_of: dt.date | None
    """Day under which LABEL_CHANGES has what it changed; None in commits of versions of this package that did not say."""
    rolled_back: bool
    """Whether the run is live because a newer one was taken back."""
    history: Mapping[str, int]
    """Version of each history table that holds the run's rows."""
    overrides_as_of: dt.date | None
    """Day at whose end overrides were judged; None in commits of versions of this package that did not say."""

    @property
    def run_id(self) -> str:
        return self.lineage["run_id"] or ""

    @property
    def bundle(self) -> str:
        return self.lineage["bundle"] or ""

    @classmethod
    def of(cls, version: int, at: dt.datetime, metadata: Mapping[str, Any]) -> LiveCommit:
        days = {name: metadata.get(name) for name in ("changes_of", "overrides_as_of")}
        return cls(
            version=version,
            stage=metadata["stage"],
            ds=dt.date.fromisoformat(metadata["ds"]),
            at=at,
            lineage={column.name: metadata.get(column.name) for column in LINEAGE},
            **{name: dt.date.fromisoformat(day) if day else None for name, day in days.items()},
            rolled_back=metadata.get("rolled_back", False),
            history=metadata.get("history", {}),
        )


def live_metadata(
    stage: str, ds: dt.date, lineage: Mapping[str, str | None], *, changes_of: dt.date, rolled_back: bool,
    history: Mapping[str, int], overrides_as_of: dt.date,
) -> dict[str, Any]:  # fmt: skip
    """What a commit of LABELS_CURRENT carries; :class:`LiveCommit` says what each means."""
    return {
        "stage": stage, "ds": str(ds), **lineage, "changes_of": str(changes_of), "rolled_back": rolled_back,
        "history": dict(history), "overrides_as_of": str(overrides_as_of),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class LiveState:
    """What may go live, by what did."""

    newest: dt.date | None
    """Newest day that ever went live; None before the first."""
    now: LiveCommit | None
    """The commit that made live what is live."""

    def admits(self, ds: dt.date, run_id: str) -> bool:
        """Whether a run may go live: of a newer day, or again; after a rollback only what it made live, or a newer day."""
        if self.newest is None or ds > self.newest:
            return True
        if self.now is not None and self.now.rolled_back:
            return run_id == self.now.run_id
        return ds == self.newest

    def overrides_as_of(self, ds: dt.date) -> dt.date:
        """Day at whose end overrides are judged if this day goes live: an earlier one would take corrections back."""
        said = self.now.overrides_as_of if self.now is not None and self.now.ds <= ds else None
        return max(ds, said or ds)

    def stays_back(self, ds: dt.date, run_id: str) -> bool:
        """Whether what a rollback took back stays so once this run is live: it is of an older day, or is live by one."""
        if self.newest is not None and ds < self.newest:
            return True
        now = self.now
        return now is not None and now.rolled_back and (now.ds, now.run_id) == (ds, run_id)


def live_state(warehouse: Warehouse) -> LiveState:
    """Two records are read, since a warehouse of an earlier version says only in RUNS which days changed no label."""
    commits = live_commits(warehouse)
    days = [commit.ds for commit in commits]
    if is_delta(warehouse.table(RUNS)):
        published = scan(warehouse.table(RUNS)).filter(pl.col("stage") == PUBLISH).select("ds", "counts")
        days += [ds for ds, counts in published.collect().iter_rows() if json.loads(counts).get("live")]
    return LiveState(max(days, default=None), commits[0] if commits else None)


def live_commits(warehouse: Warehouse) -> list[LiveCommit]:
    """All commits that made a run live, newest first: no compaction, no vacuum. The table's log keeps them for a year.

    Raises:
        InputError: as :func:`etl.table_log.opened`.
    """
    path = warehouse.table(LABELS_CURRENT)
    if not is_delta(path):
        return []
    with naming_table(path):
        history = opened(path).history()
    found = []
    for commit in history:
        said = json.loads(commit.get("userMetadata") or "{}")
        if said.get("stage") in (PUBLISH, ROLLBACK):
            at = dt.datetime.fromtimestamp(commit["timestamp"] / 1000, dt.UTC)
            found.append(LiveCommit.of(commit["version"], at, said))
    return sorted(found, key=lambda commit: commit.version, reverse=True)


def history_versions(warehouse: Warehouse, written: Mapping[Table, Any]) -> dict[str, int]:
    """Versions of the history tables that hold what was just written to them."""
    return {table.name: opened(warehouse.table(table)).version() for table in written}
