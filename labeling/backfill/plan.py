"""What a backfill of a day would do: what exists, which stages would run and why, how many rows, and what it costs."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.build_pairs import identity
from etl.catalogue import read_catalogue
from etl.code import code_version
from etl.contracts import CATALOGUE, CLICK_LOG, ITEM_CATEGORIES, ITEM_EMBEDDINGS, ITEM_TERMS, PAIRS, RUNS, Table
from etl.errors import InputError, TryLater
from etl.inputs import version_of
from etl.pairs_config import PairsConfig
from etl.runs import expected_cost
from etl.session import start_session
from etl.warehouse import Warehouse, is_delta
from labeling.backfill.config import STAGES, BackfillConfig, as_flags, stage_settings
from labeling.backfill.pins import AsItWas, same_files
from labeling.encoding import labelling_bundle
from labeling.lineage import changes, last_lineage, lineage_of
from labeling.predict import LACKING, PredictConfig, identify, joined_vectors
from model.bundle import Bundle, load_bundle

log = logging.getLogger(__name__)

ASKED = "asked for by --force"

Runs = dict[tuple[dt.date, str], dict[str, Any]]
"""Rows of RUNS by day and stage; ``finished_at`` in microseconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class DayPlan:
    """What one day has, and what would be done for it."""

    ds: dt.date
    exists: Mapping[str, str]
    """What is there of each kind, in words."""
    stages: Mapping[str, str] = field(default_factory=dict)
    """Stage -> why it would run, in their order; one that is not there is done with the same pins."""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Stage -> what it is told, beside root and day."""
    items: int = 0
    """Rows of the catalogue."""
    to_encode: int = 0
    """Items whose text has no vector of the bundle yet."""
    seconds: float | None = 0.0
    """What the stages would take, by earlier runs; None where one of them has never run."""
    bundle: str = ""
    """What labels it where that is for us to say; empty where the day's lineage does."""
    notes: Sequence[str] = ()
    """What else somebody should know."""
    problem: str = ""
    """Why the day cannot be made; empty if it can."""


class Planner:
    """Plans days of one warehouse."""

    def __init__(self, settings: BackfillConfig, passed: tuple[str, ...]) -> None:
        """Start Spark.

        Args:
            settings: What is asked for.
            passed: Flags that every stage gets.

        Raises:
            InputError: no warehouse.
        """
        self.settings = settings
        self.passed = passed
        self.warehouse = Warehouse.of(settings)
        self.spark: SparkSession = start_session("labeller backfill", settings)

    def day(self, ds: dt.date) -> DayPlan:
        """Look at a day; writes nothing. What keeps it from being made is its ``problem``, no error: other days may do."""
        runs = self.runs()
        exists = self._exists(ds, runs)
        try:
            return _Look(self, ds, runs).plan(exists)
        except TryLater:
            raise
        except InputError as error:
            return DayPlan(ds, exists, problem=str(error))

    def runs(self) -> Runs:
        """The log of runs, by day and stage."""
        path = self.warehouse.table(RUNS)
        if not is_delta(path):
            return {}
        # Collected as timestamps they would be local and without a zone: an hour that comes twice would mix up their order.
        runs = tables.read(self.spark, path, RUNS).withColumn("finished_at", F.unix_micros("finished_at"))
        rows = [row.asDict() for row in runs.collect()]
        return {(row["ds"], row["stage"]): {"settings": None, **row} for row in rows}  # a log of before has no settings

    def _exists(self, ds: dt.date, runs: Runs) -> dict[str, str]:
        published = runs.get((ds, "publish"))
        live = published is not None and json.loads(published["counts"]).get("live")
        return {
            "pairs": f"{rows:,}" if (rows := self.count(PAIRS, ds)) else "none",
            "dataset": "yes" if self.warehouse.dataset(ds).is_dir() else "no",
            "history": self.history_run(ds) or "none",
            "published": "no" if published is None else "went live" if live else "history only",
        }

    def pinned_warehouse(self, ds: dt.date) -> Warehouse:
        """The warehouse as the stages of a day see it.

        Raises:
            InputError: what made the day as it was is gone.
        """
        look = _Look(self, ds, self.runs())
        return Warehouse.of(stage_settings(PredictConfig, (*look.base, *look.flags["predict"])))

    def count(self, table: Table, ds: dt.date) -> int:
        path = self.warehouse.table(table)
        return tables.read(self.spark, path, table, ds=ds).count() if is_delta(path) else 0

    def history_lineage(self, ds: dt.date) -> dict[str, str] | None:
        """Lineage of the rows that the history holds of a day; None if there are none."""
        for table in (ITEM_TERMS, ITEM_CATEGORIES):
            path = self.warehouse.table(table)
            found = lineage_of(tables.read(self.spark, path, table, ds=ds)) if is_delta(path) else None
            if found is not None:
                return found
        return None

    def history_run(self, ds: dt.date) -> str | None:
        lineage = self.history_lineage(ds)
        return None if lineage is None else lineage["run_id"]


class _Look:
    """One look at one day."""

    def __init__(self, planner: Planner, ds: dt.date, runs: Runs) -> None:
        self.planner, self.ds, self.runs = planner, ds, runs
        self.settings, self.spark = planner.settings, planner.spark
        self.base = ("--root", self.settings.root, "--ds", str(ds), *planner.passed)
        self.late = late_days(ds, runs)
        self.was: AsItWas | None = None
        if self.settings.mode == "as-it-was":
            self.was = AsItWas.of(planner.spark, planner.warehouse, ds, planner.history_lineage(ds))

    def plan(self, exists: Mapping[str, str]) -> DayPlan:
        predict = stage_settings(PredictConfig, (*self.base, *self.flags["predict"]))
        warehouse = Warehouse.of(predict)  # with the pins of the day
        bundle = load_bundle(labelling_bundle(warehouse, predict.bundle))
        catalogue = read_catalogue(self.spark, warehouse, self.ds, bundle.tokenizer.spec.product_text)
        catalogue = catalogue.persist(StorageLevel.DISK_ONLY)
        try:
            items = catalogue.count()
            lacking = self._lacking(warehouse, bundle, catalogue)
            pairs = self._why_pairs(exists)
            stages = {"pairs": pairs} if pairs else {}
            if lacking or self.settings.force:
                stages["embed"] = f"{lacking} items have no vector of bundle {bundle.id}"
            stages |= self._why_labels(warehouse, predict, bundle, catalogue, pairs)
        finally:
            catalogue.unpersist()
        return DayPlan(
            self.ds, {**exists, "vectors": f"{items - lacking:,} of {items:,}"}, stages, self.flags, items, lacking,
            self._seconds(stages, bundle, items, lacking), "" if self.was else bundle.id, self._notes(), "",
        )  # fmt: skip

    @cached_property
    def flags(self) -> dict[str, tuple[str, ...]]:
        """Stage -> the pins that it gets as flags."""
        if self.was is not None:
            return {stage: self.was.flags(stage) for stage in STAGES}
        bundle = ("--bundle", self.settings.bundle) if self.settings.bundle else ()
        window = as_flags({"window_days": self.settings.window_days, "arrived_by": self._arrived_by})
        found: dict[str, tuple[str, ...]] = dict.fromkeys(STAGES, ())
        return found | {"pairs": window, "embed": bundle, "predict": bundle}

    @property
    def _arrived_by(self) -> str | None:
        """Up to which partition clicks of the day's window count: as far as any run has looked."""
        own = self.runs.get((self.ds, "pairs"))
        before = json.loads((own and own["settings"]) or "{}").get("arrived_by")
        return max([*map(str, self.late), *([before] if before else [])], default=None)

    def _why_pairs(self, exists: Mapping[str, str]) -> str:
        """Why the pairs are made; empty if they are there, made with the same pins."""
        row = self.runs.get((self.ds, "pairs"))
        if row is None or exists["pairs"] == "none":
            return "not made yet"
        if self.was is not None:
            kept = ASKED if self.settings.force else ""
            return kept if self.was.has_pairs else "other than those that the day was labelled from"
        config = stage_settings(PairsConfig, (*self.base, *self.flags["pairs"]))
        warehouse = Warehouse.of(config)
        now = identity(config)
        then, inputs = json.loads(row["settings"] or "{}"), json.loads(row["inputs"])
        reasons = [f"clicks came late with {ds}" for ds in self.late]
        for table, days in ((CLICK_LOG, config.partitions), (CATALOGUE, [self.ds])):
            version = version_of(self.spark, warehouse, table, days)
            if not same_files(self.spark, warehouse, table, days, inputs.get(table.name, ""), version):
                reasons.append(f"{table.name} changed")
        other = sorted(name for name in now if then.get(name) != now[name])
        if other and not self.late:
            reasons.append(f"settings changed ({', '.join(other)})" if then else "settings were not recorded")
        if row["code"].split()[0] != code_version():
            reasons.append("code changed")
        return ", ".join(reasons) or (ASKED if self.settings.force else "")

    def _why_labels(
        self, warehouse: Warehouse, predict: PredictConfig, bundle: Bundle, catalogue: DataFrame, pairs: str
    ) -> dict[str, str]:
        """Why the day is labelled, audited, published and related."""
        if pairs or self.settings.force:
            return dict.fromkeys(STAGES[2:], "pairs are made" if pairs != ASKED else ASKED)
        this = identify(self.spark, warehouse, predict, bundle, catalogue)
        published, related = self.runs.get((self.ds, "publish")), self.runs.get((self.ds, "relate"))
        history = self.planner.history_lineage(self.ds)
        is_published = history is not None and history["run_id"] == this.id
        is_published = is_published and published is not None and published["run_id"] == this.id
        if not is_published:
            staged = last_lineage(self.spark, warehouse, self.ds)
            if staged is None or staged["run_id"] != this.id:
                why = ", ".join(changes(history or staged, this.lineage))
                return dict.fromkeys(STAGES[2:], f"changed: {why}" if history or staged else "not labelled yet")
            audited = self.runs.get((self.ds, "audit"))
            passed = audited is not None and audited["run_id"] == this.id and not json.loads(audited["counts"])["failed"]
            return dict.fromkeys(STAGES[4 if passed else 3 :], f"run {this.id} is staged and not published")
        assert published is not None, "is_published"
        if related is None or related["finished_at"] < published["finished_at"]:
            return {"relate": "it did not follow the publishing"}
        return {}

    def _lacking(self, warehouse: Warehouse, bundle: Bundle, catalogue: DataFrame) -> int:
        if not is_delta(warehouse.table(ITEM_EMBEDDINGS)):
            return catalogue.count()
        return joined_vectors(self.spark, warehouse, bundle, catalogue).where(LACKING).count()

    def _seconds(self, stages: Mapping[str, str], bundle: Bundle, items: int, lacking: int) -> float | None:
        units = {"embed": ("encoded", "encoding_seconds", lacking), "predict": ("items", "scoring_seconds", items)}
        total = 0.0
        for stage in stages:
            earlier = [row for (_, name), row in self.runs.items() if name == stage]
            if stage in units:
                done, timed, number = units[stage]
                warehouse = self.planner.warehouse
                cost = expected_cost(self.spark, warehouse, stage, bundle.id, done=done, timed=timed, units=number)
                seconds = None if cost is None else cost.seconds
            else:
                seconds = max(earlier, key=lambda row: row["finished_at"])["seconds"] if earlier else None
            if seconds is None:
                return None
            total += seconds
        return total

    def _notes(self) -> list[str]:
        if self.was is None or self.was.code == code_version():
            return []
        return [f"made by code {self.was.code}; this is {code_version()}, whose rows may differ"]


def late_days(ds: dt.date, runs: Runs) -> list[dt.date]:
    """Days whose runs found clicks that the pairs of ``ds`` lack, since these were made before."""
    own = runs.get((ds, "pairs"))
    return sorted(
        day
        for (day, stage), row in runs.items()
        if own is not None
        and stage == "pairs"
        and str(ds) in json.loads(row["counts"]).get("affected_days", "").split()
        and row["finished_at"] > own["finished_at"]
    )


def planned_days(planner: Planner) -> list[DayPlan]:
    """All days of the range, in the order in which they would be made."""
    return [planner.day(ds) for ds in planner.settings.days]
