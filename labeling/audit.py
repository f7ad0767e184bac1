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
from etl.taxonomy import Taxonomy, load_taxonomy
from etl.tokenizer_spec import read_spec
from etl.vocabulary import Vocabulary, load_vocabulary
from etl.warehouse import Warehouse, is_delta
from labeling.check import Check
from labeling.probability import Calibration
from labeling.probability_checks import reliability_checks, stated_and_clicked
from model.bundle import read_calibration

log = logging.getLogger(__name__)


class AuditConfig(SparkJobConfig):
    """Thresholds of the gate; a change of one is a decision about what may go live."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "audit")

    max_abstention: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest share of items without any term, and without any category: a run that is silent about more than half of
    the catalogue is broken (wrong vocabulary, collapsed encoder), not careful."""

    max_volume_change: Annotated[float, Field(ge=0)] = 0.3
    """Largest relative change of the number of items against the newest earlier day in the history: catalogues move by a
    few percent a night, a third means that a part of the export is missing or doubled."""

    max_terms_change: Annotated[float, Field(ge=0)] = 0.25
    """Largest relative change of the number of terms per item against that day; beyond it a warning: a new vocabulary or
    bundle may well do that, but somebody should know."""

    max_top_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest share of labelled items whose best term is the same one: an encoder that collapsed calls everything alike.
    Checked for vocabularies of 20 terms or more; a small shop may sell mostly one thing."""

    max_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest expected calibration error of the terms' probabilities on held-out clicks of the day; beyond it a warning. Of
    a hundred clicked items chance alone makes .05."""

    block_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.4
    """The same, beyond which nothing is published: such probabilities mislead whoever sorts or cuts by them. 1: never."""

    min_calibration_cases: Annotated[int, Field(ge=2)] = 50
    """Least number of terms with clicks to compare; with fewer nothing is said."""


_MIN_TERMS_FOR_TOP_SHARE = 20


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
    for table in halves(settings):
        rows = staged(spark, warehouse, table, settings.ds).persist()
        audited[table.name] = tables.content_version(rows)
        checks += common_checks(rows, items, table)
        checks += against_history(rows, spark, warehouse, table, settings)
        checks.append(_calibrated(rows, warehouse, table))
        if table is ITEM_TERMS:
            vocabulary = load_vocabulary(spark, warehouse)
            checks += term_checks(rows, vocabulary, settings)
            checks += against_clicks(rows, vocabulary, warehouse, settings)
        else:
            checks += category_checks(rows, load_taxonomy(spark, warehouse), settings)
        rows.unpersist()
    items.unpersist()
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


def write_quality(spark: SparkSession, warehouse: Warehouse, ds: dt.date, run_id: str, checks: Sequence[Check]) -> None:
    """Replace what an earlier audit of this run found."""
    rows = [(ds, run_id, c.name, c.hard, c.value, c.expected, c.passed) for c in checks]
    frame = spark.createDataFrame(rows, QUALITY.ddl)
    tables.write_slice(frame, warehouse.table(QUALITY), QUALITY, {"ds": ds, "run_id": run_id}, {"run_id": run_id})


# ---------------------------------------------------------------- checks


def common_checks(rows: DataFrame, items: DataFrame, table: Table) -> list[Check]:
    """What holds for either table: each item of the catalogue has its outcome, and keys are unique."""
    by_item = rows.groupBy("item_id").agg(
        F.count(F.lit(1)).alias("rows"), F.countDistinct(*(F.col(key) for key in table.keys)).alias("keys")
    )
    both = items.withColumn("listed", F.lit(True)).join(by_item, on="item_id", how="full")
    lacking, unknown, doubled = _counts(both, "rows IS NULL", "listed IS NULL", "rows > keys")
    name = table.name
    return [
        _none(f"{name}.items_without_outcome", lacking, "items of the catalogue without a row"),
        _none(f"{name}.items_not_in_catalogue", unknown, "items with a row that are not in the catalogue of the day"),
        _none(f"{name}.keys_not_unique", doubled, f"items with rows that share {', '.join(table.keys)}"),
    ]


def term_checks(rows: DataFrame, vocabulary: Vocabulary, settings: AuditConfig) -> list[Check]:
    """ITEM_TERMS -> checks of ranks, terms, abstention and collapse."""
    terms = [(term.term_id, True) for term in vocabulary.terms]
    known = rows.sparkSession.createDataFrame(terms, "term_id string, known boolean")
    matched = rows.join(F.broadcast(known), on="term_id", how="left")
    unknown, silent, given = _counts(matched, "rank > 0 AND known IS NULL", "rank = 0", "rank = 1")
    by_item = rows.groupBy("item_id").agg(
        F.sort_array(F.collect_list("rank")).alias("ranks"), F.size(F.collect_set("term_id")).alias("terms")
    )
    straight = "(ranks = array(0)) OR (ranks = sequence(1, size(ranks)) AND terms = size(ranks))"
    (crooked,) = _counts(by_item, f"NOT ({straight})")
    top = rows.where("rank = 1").groupBy("term_id").count().agg(F.max("count")).collect()[0][0] or 0
    limit = settings.max_abstention
    checks = [
        _none("item_terms.unknown_terms", unknown, "rows whose term_id is not in the vocabulary"),
        _none("item_terms.ranks", crooked, "items whose ranks are not 1..n of distinct terms, or a single 0"),
        _at_most("item_terms.abstention", _share(silent, silent + given), limit, "share of items without a term"),
    ]
    if len(vocabulary.terms) >= _MIN_TERMS_FOR_TOP_SHARE:
        share = _share(top, given)
        checks.append(
            _at_most("item_terms.top_share", share, settings.max_top_share, "share of the most frequent best term")
        )
    return checks


def category_checks(rows: DataFrame, taxonomy: Taxonomy, settings: AuditConfig) -> list[Check]:
    """ITEM_CATEGORIES -> checks against the tree: each path is one of its paths, by ids and names, from a root down."""
    paths = [(id_, [n.id for n in taxonomy.path(id_)], [n.name for n in taxonomy.path(id_)], True) for id_ in taxonomy.nodes]
    columns = ["category_id", "path_ids", "path"]
    tree = rows.sparkSession.createDataFrame(
        paths, "category_id string, path_ids array<string>, path array<string>, known boolean"
    )
    matched = rows.join(F.broadcast(tree), on=columns, how="left")
    torn, rising, silent, items = _counts(
        matched,
        "IF(category_id IS NULL, size(path_ids) > 0 OR probability IS NOT NULL, known IS NULL)",
        "NOT (probabilities <=> reverse(array_sort(probabilities))) "
        "OR NOT (probability <=> get(probabilities, size(probabilities) - 1))",
        "category_id IS NULL",
        "true",
    )
    share, limit = _share(silent, items), settings.max_abstention
    return [
        _none("item_categories.paths_not_in_tree", torn, "rows whose path is not the tree's path to their category_id"),
        _none("item_categories.rising_probability", rising, "rows whose path gets more probable further down"),
        _at_most("item_categories.abstention", share, limit, "share of items without a category"),
    ]


def against_history(
    rows: DataFrame, spark: SparkSession, warehouse: Warehouse, table: Table, settings: AuditConfig
) -> list[Check]:
    """Volume against the newest earlier day in the history; passes with no value if there is none."""
    items, per_item = _volume(rows)
    before: tuple[int, float] | None = None
    if is_delta(warehouse.table(table)):
        history = tables.read(spark, warehouse.table(table), table).where(F.col("ds") < F.lit(settings.ds))
        newest = history.agg(F.max("ds")).collect()[0][0]
        before = _volume(history.where(F.col("ds") == F.lit(newest))) if newest else None
    name = table.name
    checks = [
        _change(
            f"{name}.items_against_yesterday", items, before and before[0], settings.max_volume_change, "number of items"
        )
    ]
    if table is ITEM_TERMS:
        limit = settings.max_terms_change
        checks.append(
            _change(
                f"{name}.rows_per_item_against_yesterday", per_item, before and before[1], limit, "rows per item", hard=False
            )
        )
    return checks


def against_clicks(rows: DataFrame, vocabulary: Vocabulary, warehouse: Warehouse, settings: AuditConfig) -> list[Check]:
    """ITEM_TERMS -> checks of their probabilities against the day's clicks for held-out queries."""
    pairs = tables.read(rows.sparkSession, warehouse.table(PAIRS), PAIRS, ds=settings.ds)
    normalise = read_spec(warehouse.bundles / _first(rows)["bundle"]).normalise
    stated, clicked = stated_and_clicked(rows, pairs, vocabulary, normalise)
    # Without a calibration a probability is no frequency, which is warned of by a check of its own, and blocks nothing.
    block = settings.block_calibration_error if _calibration(rows, warehouse).terms_calibrated else 1.0
    return reliability_checks(stated, clicked, settings.max_calibration_error, block, settings.min_calibration_cases)


def _volume(rows: DataFrame) -> tuple[int, float]:
    found = rows.agg(F.countDistinct("item_id"), F.count(F.lit(1))).collect()[0]
    return found[0], _share(found[1], found[0])


def _calibration(rows: DataFrame, warehouse: Warehouse) -> Calibration:
    stored = read_calibration(warehouse.bundles / _first(rows)["bundle"]) or {}
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


def _counts(rows: DataFrame, *conditions: str) -> list[int]:
    """Rows that meet each condition, by one pass."""
    return list(rows.select(*(F.count_if(F.expr(condition)) for condition in conditions)).collect()[0])


def _none(name: str, found: int, what: str) -> Check:
    return Check(name, float(found), f"0 {what}", passed=found == 0)


def _at_most(name: str, found: float, limit: float, what: str) -> Check:
    return Check(name, round(found, 6), f"at most {limit:g}: {what}", passed=found <= limit)


def _change(name: str, now: float, before: float | None, limit: float, what: str, *, hard: bool = True) -> Check:
    if not before:
        return Check(name, None, f"within {limit:.0%}: {what}; no earlier day to compare with", passed=True, hard=hard)
    change = round(now / before - 1, 6)
    return Check(name, change, f"within {limit:.0%}: {what}, now {now:g}, then {before:g}", abs(change) <= limit, hard)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


if __name__ == "__main__":
    sys.exit(main())
