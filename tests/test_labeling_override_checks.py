"""The model's labels beside what people said."""

from __future__ import annotations

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS
from labeling.override_checks import agreement
from labeling.overrides import OVERRIDES_SCHEMA


def test_the_share_of_overridden_items_of_which_the_model_says_the_same(spark):
    said = [("i1", 1, "t1"), ("i1", 2, "t9"), ("i2", 1, "t2"), ("i3", 0, None), ("i4", 1, "t4")]
    rows = spark.createDataFrame(said, "item_id string, rank int, term_id string")
    theirs = [(f"i{n}", [("t1", "kettle", None, None), ("t5", "pot", None, None)], None) for n in (1, 2, 3)]
    theirs.append(("i4", None, ("c1", "Home", None, None)))
    overrides = spark.createDataFrame(theirs, OVERRIDES_SCHEMA)
    found = agreement(rows, overrides, ITEM_TERMS)
    assert (found.value, found.passed, found.hard) == (round(1 / 3, 6), True, False)
    assert "of 3 overridden items" in found.expected
    categories = spark.createDataFrame([("i4", "c1"), ("i1", "c2")], "item_id string, category_id string")
    assert agreement(categories, overrides, ITEM_CATEGORIES).value == 1.0


def test_without_overrides_nothing_is_said(spark):
    rows = spark.createDataFrame([("i1", 1, "t1")], "item_id string, rank int, term_id string")
    assert agreement(rows, None, ITEM_TERMS).value is None
    none = spark.createDataFrame([], OVERRIDES_SCHEMA)
    assert agreement(rows, none, ITEM_TERMS).value is None
