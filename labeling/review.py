"""Judged samples come back: what people corrected becomes overrides, what they found right a figure of quality.

`--export FILE` writes the day's sample for somebody to fill in (yes or no in term_right and category_right, the right id
where it is no, author and at); `--file FILE...` reads it. All files of a day are given at once, since the figure is of all.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from delta.tables import DeltaTable
from pydantic import model_validator
from pyspark.sql import SparkSession

from etl import config, tables
from etl.config import SparkJobConfig
from etl.contracts import ANNOTATION_SAMPLE, OVERRIDES
from etl.errors import InputError
from etl.job import run_job
from etl.runs import record_stage
from etl.session import start_session
from etl.taxonomy import load_taxonomy
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse, is_delta
from labeling.audit import write_quality
from labeling.check import Check
from labeling.judgements import Judgement, read_sheets, write_sheet
from labeling.stratified import Share, stratified_share

log = logging.getLogger(__name__)

STAGE = "review"
_ID = {"term": "term_id", "category": "category_id"}
_PROBABILITY = {"term": "term_probability", "category": "category_probability"}


class ReviewConfig(SparkJobConfig):
    """Settings of `labeller review`."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark")

    file: tuple[str, ...] = ()
    """CSV files of the day's sample, filled in."""

    export: str = ""
    """Write the day's sample to this CSV file, for a person to fill in; nothing else is done."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ReviewConfig:
        if bool(self.file) == bool(self.export):
            raise ValueError("give either --file with judged samples, or --export with where to write one")
        return self


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(ReviewConfig, "labeller review", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), ReviewConfig, run, argv)


def run(settings: ReviewConfig) -> Mapping[str, Any]:
    """Write the sheet, or take it back.

    Raises:
        InputError: the day has no sample, judged rows do not fit it, or overrides are not ours to write; nothing is written.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    spark = start_session("labeller review", settings)
    sample = read_sample(spark, warehouse, settings)
    if settings.export:
        write_sheet(sample, Path(settings.export))
        return {"items": len(sample), "path": settings.export}
    files = [Path(file) for file in settings.file]
    judged = read_sheets(files, sample, known_ids(spark, warehouse, settings))
    _require_own(warehouse)
    run_id = sample[0]["run_id"]
    checks = [check for what in _ID for check in figures(what, judged, sample)]
    write_quality(spark, warehouse, settings.ds, f"{run_id}.review", checks)
    written = write_overrides(spark, warehouse, judged, {"stage": STAGE, "ds": settings.ds, "judged_run": run_id})
    counts = {"judged": len(judged), "overrides": written}
    record_stage(
        spark, warehouse, settings.ds, STAGE, inputs={}, counts=counts, seconds=time.monotonic() - started, run_id=run_id
    )
    for check in checks:
        log.info("%s: %s (%s)", check.name, check.value, check.expected)
    return counts


def read_sample(spark: SparkSession, warehouse: Warehouse, settings: ReviewConfig) -> list[dict[str, Any]]:
    """Rows of ANNOTATION_SAMPLE of the day, by item.

    Raises:
        InputError: there are none.
    """
    rows = tables.read(spark, warehouse.table(ANNOTATION_SAMPLE), ANNOTATION_SAMPLE, ds=settings.ds).orderBy("item_id")
    found = [row.asDict() for row in rows.collect()]
    if not found:
        raise InputError(
            f"annotation_sample has no rows of ds={settings.ds}: was that day published, with annotated_items > 0?"
        )
    return found


def known_ids(spark: SparkSession, warehouse: Warehouse, settings: ReviewConfig) -> dict[str, frozenset[str]]:
    """What a person may set: ids of active terms and of categories."""
    terms, categories = frozenset[str](), frozenset[str]()
    if "vocabulary" not in settings.absent:
        terms = frozenset(term.term_id for term in load_vocabulary(spark, warehouse).terms)
    if "taxonomy" not in settings.absent:
        categories = frozenset(load_taxonomy(spark, warehouse).nodes)
    return {"term": terms, "category": categories}


# ---------------------------------------------------------------- quality


def figures(what: str, judged: Sequence[Judgement], sample: Sequence[Mapping[str, Any]]) -> list[Check]:
    """The share of labelled items whose term or category is right, and the ends of its interval; empty if none was judged.

    Strata are made by the labels, so the labelled items are whole strata: those in which the model abstained are left out.
    """
    labelled = {row["item_id"]: row for row in sample if row[_ID[what]] is not None}
    sizes = {row["stratum"]: row["stratum_items"] for row in labelled.values()}
    of_kind = [judgement for judgement in judged if judgement.item_id in labelled and what in judgement.right]
    outcomes: dict[str, list[bool]] = {}
    for judgement in of_kind:
        outcomes.setdefault(judgement.stratum, []).append(judgement.right[what])
    share = stratified_share(outcomes, sizes)
    if share is None:
        return []
    stated = sum(
        labelled[j.item_id][_PROBABILITY[what]] * sizes[j.stratum] / len(outcomes[j.stratum]) for j in of_kind
    ) / sum(sizes[name] for name in outcomes)
    return _checks(f"review.{what}_right", share, stated)


def _checks(name: str, share: Share, stated: float) -> list[Check]:
    said = (
        f"share of labelled items that people found right: {share.judged} judged, of strata with {share.covered:.0%} of "
        f"them; 95% interval {share.low:.4f} to {share.high:.4f} (expected to hold {stated:.4f}, the mean stated)"
    )
    return [
        Check(name, round(share.value, 6), said, passed=share.low <= stated <= share.high, hard=False),
        Check(f"{name}.low", round(share.low, 6), "lower end of the 95% interval", passed=True, hard=False),
        Check(f"{name}.high", round(share.high, 6), "upper end of the 95% interval", passed=True, hard=False),
    ]


# ---------------------------------------------------------------- overrides


def _require_own(warehouse: Warehouse) -> None:
    """See that overrides are a Delta table of our own columns, or not there yet.

    Raises:
        InputError: they are the shop's.
    """
    source = warehouse.source(OVERRIDES)
    if source.table or source.columns or (warehouse.has(OVERRIDES) and not is_delta(warehouse.table(OVERRIDES))):
        raise InputError(
            f"overrides at {warehouse.place(OVERRIDES)} are no Delta table with our own columns (expected one, or none "
            "yet), and only such is written to: move its rows into one, see `labeller tables overrides`"
        )


def write_overrides(
    spark: SparkSession, warehouse: Warehouse, judged: Sequence[Judgement], metadata: Mapping[str, Any]
) -> int:
    """Add what people corrected to OVERRIDES; what is there stays as it is, and the same sheet twice adds nothing.

    Raises:
        WriteError: the rows did not land.
    """
    rows = [(j.item_id, what, value, j.author, j.at, None) for j in judged for what, value in j.instead.items()]
    if not rows:
        return 0
    path = warehouse.table(OVERRIDES)
    tables.ensure(spark, path, OVERRIDES)
    given = spark.createDataFrame(rows, OVERRIDES.ddl)
    same = " AND ".join(f"old.{name} = new.{name}" for name in ("item_id", "what", "value", "author", "at"))
    merge = DeltaTable.forPath(spark, path).alias("old").merge(given.alias("new"), same).whenNotMatchedInsertAll()
    entry = tables.execute_merge(merge, path, metadata)
    kept = spark.read.format("delta").load(path)
    landed = kept.join(given, on=["item_id", "what", "value", "author", "at"], how="left_semi").count()
    if landed < len(rows):
        raise tables.WriteError(f"{OVERRIDES.name}: {landed} of {len(rows)} corrections are there")
    return int(entry["operationMetrics"]["numTargetRowsInserted"]) if entry else 0


if __name__ == "__main__":
    sys.exit(main())
