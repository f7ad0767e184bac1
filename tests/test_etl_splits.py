from __future__ import annotations

import datetime as dt

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.pairs_config import PairsConfig
from etl.splits import as_title_groups, heldout_query, is_heldout_title, query_key, split_of
from tests.rows import DS

CONFIG = PairsConfig(root="", ds=DS, test_share=0.05, valid_share=0.03, test_item_share=0.1)


def parts(spark: SparkSession, n: int, config: PairsConfig = CONFIG) -> DataFrame:
    return spark.range(n).select("id", heldout_query(F.col("id"), config).alias("part"))


def test_held_out_queries_have_the_shares_asked_for(spark):
    counts = {row["part"]: row["count"] / 20_000 for row in parts(spark, 20_000).groupBy("part").count().collect()}
    assert counts["valid"] == pytest.approx(0.03, abs=0.005)
    assert counts["test"] == pytest.approx(0.05, abs=0.006)


def test_a_wider_valid_part_leaves_the_test_part_as_it_was(spark):
    test = parts(spark, 5_000).where("part = 'test'").select("id")
    wider = parts(spark, 5_000, PairsConfig(root="", ds=DS, test_share=0.05, valid_share=0.2))
    found = wider.where("part = 'test'").select("id")
    assert found.exceptAll(test).isEmpty()
    assert test.exceptAll(found).isEmpty()


def test_a_query_key_forgets_word_order_and_plural_only():
    assert query_key("red shoes") == query_key("shoe red")
    assert query_key("红色 跑鞋") == query_key("跑鞋红色")
    assert len({query_key(text) for text in ("red shoe", "red dress", "reds shoe box", "red red shoe")}) == 4


def title_groups(spark: SparkSession, titles: int, near: list[tuple[int, int]]) -> dict[int, tuple[int, bool]]:
    texts = spark.range(titles).withColumnRenamed("id", "title_id")
    groups = spark.createDataFrame(near, "title_id bigint, item_group bigint")
    rows = as_title_groups(texts, groups, CONFIG).collect()
    assert len(rows) == len({row["title_id"] for row in rows})
    return {row["title_id"]: (row["item_group"], row["heldout"]) for row in rows}


def test_every_text_near_a_held_out_one_is_flagged_and_the_held_out_ones_never_move(spark):
    chosen = {row["id"] for row in spark.range(60).where(is_heldout_title(F.col("id"), CONFIG)).collect()}
    one, plain = min(chosen), [n for n in range(60) if n not in chosen]
    alone = title_groups(spark, 60, [])
    assert alone == {title: (title, True) for title in chosen}
    near = [(plain[0], plain[0]), (one, plain[0]), (plain[5], plain[5]), (plain[6], plain[5])]
    found = title_groups(spark, 60, near)
    assert found[one] == found[plain[0]] == (plain[0], True)
    assert found[plain[5]] == found[plain[6]] == (plain[5], False)
    assert {title for title, (_, heldout) in found.items() if heldout} == chosen | {plain[0]}
    assert {title for title in title_groups(spark, 90, near) if title < 60} == found.keys()


def test_a_pair_is_trained_on_only_if_nothing_about_it_is_held_out(spark):
    config = PairsConfig(root="", ds=DS, window_days=7, test_days=2, test_share=0.05, valid_share=0.03, test_item_share=0.1)
    old, new = DS - dt.timedelta(days=2), DS - dt.timedelta(days=1)
    pairs = spark.range(2_000).select(
        F.col("id").alias("query_group"),
        F.pmod(F.col("id") * 7, F.lit(97)).alias("title_id"),
        F.when(F.col("id") % 4 == 0, F.lit(new)).otherwise(F.lit(old)).alias("first_day"),
        (F.col("id") % 5 == 0).alias("heldout"),
    )
    flags = {"q": heldout_query(F.col("query_group"), config), "i": is_heldout_title(F.col("title_id"), config)}
    for row in pairs.withColumns(flags | {"split": split_of(config)}).collect():
        expected = row["q"] or (
            "item" if row["i"] else "unused" if row["heldout"] else "time" if row["first_day"] == new else "train"
        )
        assert row["split"] == expected
