"""The audit's comparison of a day's best terms with those of the day before, on the same clicks."""

from __future__ import annotations

import pytest
from pyspark.sql import DataFrame, SparkSession

from labeling.clicked import Clicked
from labeling.regression import regression_check
from tests.labeling_data import vocabulary

ITEMS = [Clicked(f"i{n:03}", "", frozenset(), frozenset({0}), n) for n in range(200)]


def day(spark: SparkSession, right: range, of: range = range(200)) -> DataFrame:
    """ITEM_TERMS, in what the check reads: the items of ``right`` have the term that they were clicked for."""
    ids = [term.term_id for term in vocabulary().terms]
    rows = [(f"i{n:03}", rank, ids[0] if (n in right) == (rank == 1) else ids[1]) for n in of for rank in (1, 2)]
    return spark.createDataFrame(rows, "item_id string, rank int, term_id string")


def check(now: DataFrame, before: DataFrame | None, max_drop: float = 0.05):
    return regression_check(now, before, ITEMS, vocabulary(), max_drop, least=50)


@pytest.mark.parametrize(("right", "passed"), [(190, True), (170, True), (150, False)])
def test_best_terms_that_surely_fit_the_clicks_worse_than_those_of_before_stop_the_night(spark, right, passed):
    found = check(day(spark, range(right)), day(spark, range(180)))
    assert found.value == pytest.approx((right - 180) / 200)
    assert (found.passed, found.hard) == (passed, True)
    assert f"0.900 before and {right / 200:.3f} now" in found.expected


def test_items_of_one_day_only_do_not_count(spark):
    found = check(day(spark, range(100, 200), range(100, 200)), day(spark, range(0)))
    assert (found.value, found.passed) == (1.0, True)
    assert "on 100 items" in found.expected


def test_of_too_few_items_and_of_a_first_day_nothing_is_said(spark):
    few = check(day(spark, range(0), range(49)), day(spark, range(200)))
    assert (few.value, few.passed) == (None, True)
    assert (check(day(spark, range(0)), None).value, check(day(spark, range(0)), None).passed) == (None, True)
