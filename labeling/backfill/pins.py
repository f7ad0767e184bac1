"""The pins of a day as it was: what its lineage and the log of runs name, and whether all of that can still be had."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from etl import tables
from etl.catalogue import catalogue_version, read_catalogue
from etl.contracts import CATALOGUE, CLICK_LOG, PAIRS, RUNS, TAXONOMY, VOCABULARY, Table
from etl.errors import InputError, TryLater
from etl.inputs import read_input, version_of
from etl.pairs_config import PairsConfig
from etl.taxonomy import load_taxonomy
from etl.tokenizer_spec import read_spec
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse, is_delta
from labeling.backfill.config import as_flags, stage_settings
from model.bundle import read_calibration

_OLDEST = 200  # versions of a vocabulary or tree that are looked through: years of daily edits


def same_files(
    spark: SparkSession, warehouse: Warehouse, table: Table, days: Sequence[dt.date], then: str, now: str
) -> bool:
    """Whether two versions of an input hold the same files of these days: a log gets a new version every night."""
    if then == now:
        return True
    if not (then.startswith("delta:") and now.startswith("delta:")):
        return False

    def files(version: str) -> list[str]:
        pinned = replace(warehouse, pins={table.name: int(version.removeprefix("delta:"))})
        return sorted(read_input(spark, pinned, table, days=days).inputFiles())

    try:
        return files(then) == files(now)
    except TryLater:
        raise
    except InputError:  # the older version is vacuumed: nobody can say that it was the same
        return False


@dataclass(frozen=True, slots=True)
class AsItWas:
    """What made the rows that the history holds of a day."""

    bundle: str
    code: str
    pins: Mapping[str, int]
    """Delta versions of inputs that have changed since."""
    pairs: Mapping[str, Any]
    """Settings of `labeller pairs`."""
    predict: Mapping[str, Any]
    """Settings of `labeller predict`."""
    has_pairs: bool
    """Whether the day's pairs are still those that it was labelled from."""

    def flags(self, stage: str) -> tuple[str, ...]:
        """What a stage is told, so that it works as it did."""
        own = {"pairs": self.pairs, "embed": {"bundle": self.bundle}, "predict": {"bundle": self.bundle, **self.predict}}
        return as_flags({"pins": self.pins, **own.get(stage, {})})

    @classmethod
    def of(cls, spark: SparkSession, warehouse: Warehouse, ds: dt.date, lineage: Mapping[str, str] | None) -> AsItWas:
        """Read it from the lineage of the day's rows, and look whether all of it is there.

        Raises:
            InputError: the day is not in the history, or something of what made it is gone; all of that named.
        """
        if lineage is None:
            raise InputError(f"ds={ds} is not in the history (expected a published day): leave out --mode as-it-was")
        return _Search(spark, warehouse, ds, lineage).found()


class _Search:
    """Looks for all that a day was made of."""

    def __init__(self, spark: SparkSession, warehouse: Warehouse, ds: dt.date, lineage: Mapping[str, str]) -> None:
        self.spark, self.warehouse, self.ds, self.lineage = spark, warehouse, ds, lineage
        self.inputs: dict[str, str] = json.loads(lineage["inputs"])
        self.problems: list[str] = []
        self.pins: dict[str, int] = {}

    def found(self) -> AsItWas:
        records = self._records()
        mine = [n for n, r in enumerate(records) if r["stage"] == "predict" and r["run_id"] == self.lineage["run_id"]]
        predict = records[mine[0]] if mine else None
        before = [record for record in records[mine[0] + 1 :] if record["stage"] == "pairs"] if mine else []
        if predict is None or not before or not predict.get("settings") or not before[0].get("settings"):
            raise InputError(
                f"the log of runs does not say with which settings run {self.lineage['run_id']} was made (it was run by an "
                "earlier version of this package, or is older than the log's history): leave out --mode as-it-was"
            )
        self._require_bundle()
        self._pin_content(VOCABULARY, self.lineage["vocabulary"], lambda at: load_vocabulary(self.spark, at).version)
        self._pin_content(TAXONOMY, self.lineage["taxonomy"], lambda at: load_taxonomy(self.spark, at).version)
        self._pin_catalogue(json.loads(predict["inputs"])[CATALOGUE.name])
        has_pairs = self._has_pairs()
        if not has_pairs:
            self._pin_clicks(before[0])
        if self.problems:
            heading = f"run {self.lineage['run_id']} of ds={self.ds} cannot be made again as it was:"
            raise InputError.of(self.problems, heading=heading)
        pairs, labels = json.loads(before[0]["settings"]), json.loads(predict["settings"])
        return AsItWas(self.lineage["bundle"], self.lineage["code"], self.pins, pairs, labels, has_pairs)

    def _records(self) -> list[dict[str, Any]]:
        """Rows that the log of runs ever held of the day, newest first: another attempt replaces a row, not its commit."""
        path = self.warehouse.table(RUNS)
        if not is_delta(path):
            return []
        commits = DeltaTable.forPath(self.spark, path).history().select("userMetadata").collect()
        rows = [json.loads(row[0]) for row in commits if row[0]]
        return [row for row in rows if row.get("ds") == str(self.ds)]

    def _require_bundle(self) -> None:
        path = self.warehouse.bundle(self.lineage["bundle"])
        if not path.is_dir():
            self.problems.append(f"bundle {path.name} is not under {path.parent}: restore it")
            return
        calibration = (read_calibration(path) or {}).get("id", "default")
        if calibration != self.lineage["calibration"]:
            self.problems.append(
                f"bundle {path.name} has calibration {calibration} (the day was labelled with {self.lineage['calibration']})"
            )

    def _pin_content(self, table: Table, wanted: str, version: Callable[[Warehouse], str]) -> None:
        """Pin the newest version of a Delta table that has the content of then, where today's has not."""
        if not wanted or version(replace(self.warehouse, pins={})) == wanted:
            return
        held = version_of(self.spark, replace(self.warehouse, pins={}), table)
        if held.startswith("delta:"):
            newest = int(held.removeprefix("delta:"))
            for number in range(newest - 1, max(-1, newest - 1 - _OLDEST), -1):
                try:
                    if version(replace(self.warehouse, pins={table.name: number})) == wanted:
                        self.pins[table.name] = number
                        return
                except TryLater:
                    raise
                except InputError:  # vacuumed, or a state of it that could not be used then either
                    continue
        self.problems.append(
            f"{table.name} of version {wanted} is gone: {self.warehouse.place(table)} holds no such content "
            f"{'in its history' if held.startswith('delta:') else '(and, as no Delta table, has no history)'}"
        )

    def _pin_catalogue(self, then: str) -> None:
        bundle = self.warehouse.bundle(self.lineage["bundle"])
        if not bundle.is_dir():  # a problem already, and the bundle says how a text is made of the columns
            return
        template = read_spec(bundle).product_text
        wanted, _, version = then.partition(" ")

        def content(at: Warehouse) -> str:
            return catalogue_version(read_catalogue(self.spark, at, self.ds, template))

        now = replace(self.warehouse, pins={})
        if content(now) != wanted:
            self._pin_version(CATALOGUE, version)

    def _has_pairs(self) -> bool:
        path = self.warehouse.table(PAIRS)
        if not is_delta(path):
            return False
        return tables.content_version(tables.read(self.spark, path, PAIRS, ds=self.ds)) == self.inputs[PAIRS.name]

    def _pin_clicks(self, record: Mapping[str, Any]) -> None:
        settings = as_flags(json.loads(record["settings"]))
        config = stage_settings(PairsConfig, ("--root", str(self.warehouse.root), "--ds", str(self.ds), *settings))
        versions = json.loads(record["inputs"])
        for table, days in ((CLICK_LOG, config.partitions), (CATALOGUE, [self.ds])):
            then = versions[table.name]
            if then != version_of(self.spark, replace(self.warehouse, pins={}), table, days) and table.name not in self.pins:
                self._pin_version(table, then)

    def _pin_version(self, table: Table, then: str) -> None:
        if then.startswith("delta:"):
            number = int(then.removeprefix("delta:"))
            try:
                read_input(self.spark, replace(self.warehouse, pins={table.name: number}), table, days=[self.ds])
            except TryLater:
                raise
            except InputError as error:
                self.problems.append(f"{table.name} can no longer be read at version {number}: {error}")
            else:
                self.pins[table.name] = number
            return
        self.problems.append(
            f"{table.name} was {then}, its files have changed since, and {self.warehouse.place(table)} is no Delta table "
            "that keeps what they were"
        )
