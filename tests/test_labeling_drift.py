"""Volume and distribution of a day's labels against earlier days: what passes and what does not."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS
from labeling.check import Check
from labeling.drift import Limits, drift_checks, psi, volume_checks
from tests.rows import DS

LIMITS = Limits(volume_days=3, max_volume_change=0.3, max_terms_change=0.25, max_psi=0.25, min_items=100)


def labels(
    spark: SparkSession, items: int = 200, *, day: int = 0, terms: Sequence[str] = ("a", "b"), shift: float = 0
) -> DataFrame:
    """ITEM_TERMS of so many items, of which each has the next of ``terms`` and a score between 0 and 1, plus ``shift``."""
    rows = spark.range(items).select(
        F.lit(DS + dt.timedelta(days=day)).alias("ds"),
        F.col("id").cast("string").alias("item_id"),
        F.lit(1).alias("rank"),
        F.array(*map(F.lit, terms))[(F.col("id") % len(terms)).cast("int")].alias("term_id"),
        (F.col("id") / items + shift).alias("score"),
    )
    return rows.withColumns({"level_1": F.col("term_id"), "probability": F.col("score")})


def by_name(checks: Sequence[Check]) -> dict[str, Check]:
    return {check.name.split(".")[1]: check for check in checks}


def test_psi_is_that_of_the_textbook():
    assert psi([0.5, 0.5], [0.5, 0.5]) == 0
    assert psi([0.5, 0.5], [0.9, 0.1]) == pytest.approx(0.4 * math.log(9))
    assert 0 < psi([1.0, 0.0], [0.9, 0.1]) < math.inf


@pytest.mark.fault("volume")
def test_volume_is_held_against_the_median_so_one_broken_day_moves_nothing(spark):
    history = labels(spark, 1, day=-1).union(labels(spark, 200, day=-2)).union(labels(spark, 210, day=-3))
    history = history.union(labels(spark, 9_000, day=-4))  # before the last three days
    found = by_name(volume_checks(labels(spark, 150), history, ITEM_TERMS, LIMITS))
    assert (found["items_against_median"].value, found["items_against_median"].passed) == (-0.25, True)
    assert "median of 3 earlier days 200" in found["items_against_median"].expected
    assert found["rows_per_item_against_median"].value == 0


@pytest.mark.fault("volume")
def test_too_few_items_stop_the_run_and_too_many_rows_an_item_only_warn(spark):
    doubled = labels(spark, 100).union(labels(spark, 100).withColumn("rank", F.lit(2)))
    found = by_name(volume_checks(doubled, labels(spark, day=-1), ITEM_TERMS, LIMITS))
    assert {(name, check.value, check.hard, check.passed) for name, check in found.items()} == {
        ("items_against_median", -0.5, True, False),
        ("rows_per_item_against_median", 1.0, False, False),
    }


def test_the_same_distribution_passes_and_others_warn_without_stopping(spark):
    before = labels(spark, 200, day=-1)
    same = by_name(drift_checks(labels(spark, 400), before, ITEM_TERMS, LIMITS))
    assert all(check.passed and check.value < 0.01 for check in same.values())
    terms = by_name(drift_checks(labels(spark, terms=("a", "a", "a", "c")), before, ITEM_TERMS, LIMITS))
    assert not terms["labels_psi"].passed
    scores = by_name(drift_checks(labels(spark, shift=0.3), before, ITEM_TERMS, LIMITS))
    assert (scores["labels_psi"].passed, scores["scores_psi"].passed) == (True, False)
    assert not any(check.hard for check in (*terms.values(), *scores.values()))


def test_items_that_have_no_category_any_more_are_drift(spark):
    silent = labels(spark).withColumn("level_1", F.when(F.col("item_id") % 2 == 0, F.col("level_1")))
    found = by_name(drift_checks(silent, labels(spark, day=-1), ITEM_CATEGORIES, LIMITS))
    assert (found["labels_psi"].passed, found["scores_psi"].passed) == (False, True)


@pytest.mark.parametrize("items", [None, 99])
def test_without_enough_items_to_compare_with_nothing_is_said_of_drift(spark, items):
    history = None if items is None else labels(spark, items, day=-1)
    found = drift_checks(labels(spark), history, ITEM_TERMS, LIMITS)
    assert [(check.value, check.passed) for check in found] == [(None, True)] * 2
