"""Check the staged labels of a day before anything of them is live: staging -> QUALITY, and exit 3 if a hard check fails."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from etl import config, tables
from etl.catalogue import read_catalogue
from etl.config import SparkJobConfig, WarehouseConfig
from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, PAIRS, QUALITY, Table
from etl.errors import GateRefused, InputError
from etl.job import run_job
from etl.runs import record_stage
from etl.session import start_session
from etl.taxonomy import load_taxonomy
from etl.tokenizer_spec import read_spec
from etl.vocabulary import Vocabulary, load_vocabulary
from etl.warehouse import Warehouse, is_delta
from labeling.check import Check
from labeling.click_volume import ClickLimits, click_checks
from labeling.drift import Limits, drift_checks, newest, volume_checks
from labeling.label_checks import category_checks, common_checks, term_checks
from labeling.live_log import live_state
from labeling.override_checks import agreement
from labeling.overrides import read_overrides
from labeling.probability import Calibration
from labeling.probability_checks import clicked_for, reliability_checks, stated_and_clicked
from labeling.regression import regression_check
from model.bundle import read_calibration

log = logging.getLogger(__name__)


class AuditConfig(SparkJobConfig):
    """Thresholds of the gate; a change of one is a decision about what may go live."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "audit")

    max_abstention: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest share of items without any term, and without any category: a run that is silent about more than half of
    the catalogue is broken (wrong vocabulary, collapsed encoder), not careful."""

    volume_days: Annotated[int, Field(ge=1)] = 7
    """Earlier days in the history whose median is what is usual: a week, so that one broken day among them moves nothing."""

    max_volume_change: Annotated[float, Field(ge=0)] = 0.3
    """Largest relative change of the number of items against that median: catalogues move by a few percent a night, a third
    means that a part of the export is missing or doubled."""

    max_terms_change: Annotated[float, Field(ge=0)] = 0.25
    """Largest relative change of the number of terms per item against it; beyond it a warning: a new vocabulary or
    bundle may well do that, but somebody should know."""

    max_click_factor: Annotated[float, Field(ge=1)] = 3.0
    """How many times fewer or more events, or clicks, carts and orders, the day's click log may have than the median of the
    window's other days: no weekend makes a third, a log that ended early or was replayed does. Give a sale what it needs;
    of a first night it only warns."""

    max_recount_change: Annotated[float, Field(ge=0)] = 0.1
    """Largest relative change of an earlier day's events since the night before counted them: a part of ten. With fewer
    nothing is published, more is a warning up to `max_click_factor`. 1: any loss passes."""

    min_click_days: Annotated[int, Field(ge=1)] = 3
    """Least number of other days in the window for a median to be compared with."""

    min_click_events: Annotated[int, Field(ge=1)] = 30
    """Least of them a day for both, as a median and of a single day: of 30 chance alone makes no third."""

    max_psi: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index, of best terms, root categories and their scores against the newest earlier day, from which
    on there is a warning: by custom .1 is a small change and .25 one to look into. A new bundle moves all scores and may
    well exceed it."""

    min_drift_items: Annotated[int, Field(ge=1)] = 500
    """Least items of either day for that: over 22 bins chance alone makes .08 of 500, and .4 of 100."""

    max_top_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest share of labelled items whose best term is the same one: an encoder that collapsed calls everything alike.
    Checked for vocabularies of 20 terms or more; a small shop may sell mostly one thing."""

    max_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest expected calibration error of the terms' probabilities on held-out clicks of the day; beyond it a warning. Of
    a hundred clicked items chance alone makes .05."""

    block_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.4
    """The same, beyond which nothing is published: such probabilities mislead whoever sorts or cuts by them. 1: never."""

    min_calibration_cases: Annotated[int, Field(ge=2)] = 50
    """Least number of terms with clicks to compare, and of items for `max_hit_rate_drop`; with fewer nothing is said."""

    max_hit_rate_drop: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest drop of the share of clicked items whose best term is one that they were clicked for, against the newest
    earlier day: beyond it, surely (95%), nothing is published. A promotion gate of .02 of recall lets no bundle through
    that is worse by more, so a larger drop comes from the labelling: vocabulary, calibration or settings."""


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(AuditConfig, "labeller audit", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), AuditConfig, run, argv)


def run(settings: AuditConfig) -> Mapping[str, Any]:
    """Check, write QUALITY and a hash of the rows that were checked, refuse.

    Raises:
        InputError: nothing is staged for the day.
        GateRefused: hard checks failed; all of them are named.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    spark = start_session("labeller audit", settings)
    run_id = staged_run(spark, warehouse, settings)
    items = read_catalogue(spark, warehouse, settings.ds).select("item_id").persist()
    checks: list[Check] = []
    audited = {}
    limits = Limits(
        volume_days=settings.volume_days,
        max_volume_change=settings.max_volume_change,
        max_terms_change=settings.max_terms_change,
        max_psi=settings.max_psi,
        min_items=settings.min_drift_items,
    )
    tables_ = halves(settings)
    vocabulary = load_vocabulary(spark, warehouse) if ITEM_TERMS in tables_ else None
    taxonomy = load_taxonomy(spark, warehouse) if ITEM_CATEGORIES in tables_ else None
    overrides = read_overrides(spark, warehouse, settings.ds, vocabulary, taxonomy)
    for table in tables_:
        rows = staged(spark, warehouse, table, settings.ds).persist()
        audited[table.name] = tables.content_version(rows)
        checks += common_checks(rows, items, table)
        history = earlier_days(spark, warehouse, table, settings.ds)
        checks += volume_checks(rows, history, table, limits) + drift_checks(rows, history, table, limits)
        checks.append(_calibrated(rows, warehouse, table))
        checks.append(agreement(rows, overrides, table))
        if table is ITEM_TERMS:
            assert vocabulary is not None, "there are terms"
            checks += term_checks(
                rows, vocabulary, max_abstention=settings.max_abstention, max_top_share=settings.max_top_share
            )
            checks += against_clicks(rows, history, vocabulary, warehouse, settings)
        else:
            assert taxonomy is not None, "there are categories"
            checks += category_checks(rows, taxonomy, max_abstention=settings.max_abstention)
        rows.unpersist()
    items.unpersist()
    clicks = ClickLimits(
        max_factor=settings.max_click_factor,
        max_recount_change=settings.max_recount_change,
        min_days=settings.min_click_days,
        min_events=settings.min_click_events,
    )
    checks += click_checks(spark, warehouse, settings.ds, clicks)
    write_quality(spark, warehouse, settings.ds, run_id, checks)
    failed = [check for check in checks if not check.passed]
    counts = {"checks": len(checks), "failed": sum(c.hard for c in failed), "warnings": sum(not c.hard for c in failed)}
    record_stage(
        spark, warehouse, settings.ds, "audit",
        inputs=audited, counts=counts, seconds=time.monotonic() - started, run_id=run_id,
    )  # fmt: skip
    for check in failed:
        log.warning(
            "%s %s: found %s, expected %s", "FAILED" if check.hard else "warning", check.name, check.value, check.expected
        )
    if counts["failed"]:
        named = "".join(f"\n  - {c.name}: found {c.value}, expected {c.expected}" for c in failed if c.hard)
        raise GateRefused(f"run {run_id}: {counts['failed']} of {len(checks)} checks failed, what is live stays:{named}")
    return counts | {"run_id": run_id, "table": warehouse.table(QUALITY)}


# ---------------------------------------------------------------- what is staged


def halves(settings: WarehouseConfig) -> list[Table]:
    """The label tables that this warehouse has inputs for."""
    return [
        table for table, half in ((ITEM_TERMS, "vocabulary"), (ITEM_CATEGORIES, "taxonomy")) if half not in settings.absent
    ]


def staged(spark: SparkSession, warehouse: Warehouse, table: Table, ds: dt.date, version: int | None = None) -> DataFrame:
    return tables.read(spark, warehouse.staged(table), table, version=version, ds=ds)


def staged_run(spark: SparkSession, warehouse: Warehouse, settings: SparkJobConfig) -> str:
    """The one run whose rows are staged for the day, in all label tables.

    Raises:
        InputError: no rows are staged, or those of several runs.
    """
    found = {
        table.name: sorted(r[0] for r in staged(spark, warehouse, table, settings.ds).select("run_id").distinct().collect())
        for table in halves(settings)
    }
    runs = {run_id for ids in found.values() for run_id in ids}
    if len(runs) != 1 or not all(found.values()):
        raise InputError(
            f"staging holds, for ds={settings.ds}, rows of runs {found} (expected one run in all of them): "
            "run `labeller predict` for that day first"
        )
    return runs.pop()


def earlier_days(spark: SparkSession, warehouse: Warehouse, table: Table, ds: dt.date) -> DataFrame | None:
    """Rows of the history before ``ds``; None if there is no such table.

    Days that a rollback took back are left out: what was not good enough to stay live is nothing to compare with.
    """
    if not is_delta(warehouse.table(table)):
        return None
    earlier = tables.read(spark, warehouse.table(table), table).where(F.col("ds") < F.lit(ds))
    state = live_state(warehouse)
    if state.now is not None and state.now.rolled_back:
        earlier = earlier.where((F.col("ds") <= F.lit(state.now.ds)) | (F.col("ds") > F.lit(state.newest)))
    return earlier


def write_quality(spark: SparkSession, warehouse: Warehouse, ds: dt.date, run_id: str, checks: Sequence[Check]) -> None:
    """Replace what an earlier audit of this run found."""
    rows = [(ds, run_id, c.name, c.hard, c.value, c.expected, c.passed) for c in checks]
    frame = spark.createDataFrame(rows, QUALITY.ddl)
    tables.write_slice(frame, warehouse.table(QUALITY), QUALITY, {"ds": ds, "run_id": run_id}, {"run_id": run_id})


# ---------------------------------------------------------------- against clicks


def against_clicks(
    rows: DataFrame, history: DataFrame | None, vocabulary: Vocabulary, warehouse: Warehouse, settings: AuditConfig
) -> list[Check]:
    """ITEM_TERMS -> checks of terms and probabilities against the day's clicks for held-out queries.

    Args:
        rows: Of the staged day.
        history: Those of earlier days; None if there is no such table.
        vocabulary: Whose terms they are.
        warehouse: Where pairs and bundles lie.
        settings: What may be.
    """
    pairs = tables.read(rows.sparkSession, warehouse.table(PAIRS), PAIRS, ds=settings.ds)
    normalise = read_spec(warehouse.bundle(_first(rows)["bundle"])).normalise
    items = clicked_for(rows, pairs, vocabulary, normalise)
    before = None if history is None else newest(history)
    least = settings.min_calibration_cases
    regression = regression_check(rows, before, items, vocabulary, settings.max_hit_rate_drop, least)
    stated, clicked = stated_and_clicked(rows, items, vocabulary)
    # Without a calibration a probability is no frequency, which is warned of by a check of its own, and blocks nothing.
    block = settings.block_calibration_error if _calibration(rows, warehouse).terms_calibrated else 1.0
    return [regression, *reliability_checks(stated, clicked, settings.max_calibration_error, block, least)]


def _calibration(rows: DataFrame, warehouse: Warehouse) -> Calibration:
    stored = read_calibration(warehouse.bundle(_first(rows)["bundle"])) or {}
    return Calibration.of(stored.get("calibration"), stored.get("id", ""))


def _calibrated(rows: DataFrame, warehouse: Warehouse, table: Table) -> Check:
    calibration = _calibration(rows, warehouse)
    measured = calibration.terms_calibrated if table is ITEM_TERMS else calibration.categories_calibrated
    passed = measured and calibration.id == _first(rows)["calibration"]
    what = "term forms" if table is ITEM_TERMS else "category names"
    expected = (
        f"1: a calibration on held-out clicks of queries that are {what}; without enough of those (more days of clicks, "
        "a larger [pairs] valid_share) a probability ranks, but is no frequency"
    )
    return Check(f"{table.name}.calibrated", float(passed), expected, passed, hard=False)


def _first(rows: DataFrame) -> Row:
    row = rows.select("bundle", "calibration").head()
    assert row is not None, "staged_run found rows"
    return row


if __name__ == "__main__":
    sys.exit(main())
