"""What a pair must have behind it: an item in the catalogue, users who asked, a query that says something."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.cleaning import Transform, first_of


def with_item_rules(items: DataFrame) -> Transform:
    """Adds ``title_id``; ``items`` holds (item_id, title_id) of every item in the catalogue, null if unusable."""

    def transform(acts: DataFrame) -> DataFrame:
        known = items.select("item_id", "title_id", F.lit(True).alias("_known"))
        joined = acts.join(known, "item_id", how="left")
        rule = first_of(("not_in_catalogue", F.col("_known").isNull()), ("unusable_title", F.col("title_id").isNull()))
        return joined.withColumn("rule", F.coalesce("rule", rule)).drop("_known")

    return transform


def query_support(kept: DataFrame) -> DataFrame:
    """Kept acts -> one row a query: query_id, its distinct users, and the entropy of its acts over texts, in bits.

    H = log2(n) - sum_i n_i log2(n_i) / n over its n acts, of which n_i are on the text i.
    """
    users = kept.groupBy("query_id").agg(F.count_distinct("user").alias("query_users"))
    by_text = kept.groupBy("query_id", "title_id").agg(F.count(F.lit(1)).alias("n"))
    total = F.sum("n")
    # Rounded: the order in which the parts are added up differs from run to run.
    entropy = F.round(F.log2(total) - F.sum(F.col("n") * F.log2("n")) / total, 6)
    return users.join(by_text.groupBy("query_id").agg(entropy.alias("entropy")), "query_id", how="inner")


def with_query_support(support: DataFrame, min_users: int, max_entropy: float) -> Transform:
    """Kept acts -> the same, those of queries that few asked or that are spread wide marked; ``support`` as above."""

    def transform(kept: DataFrame) -> DataFrame:
        few = F.col("query_users") < min_users
        diffuse = F.lit(max_entropy > 0) & (F.col("entropy") > max_entropy)
        rules = support.select("query_id", first_of(("few_users", few), ("diffuse_query", diffuse)).alias("_rule"))
        wrong = rules.where(F.col("_rule").isNotNull())
        return kept.join(wrong, "query_id", how="left").withColumn("rule", F.coalesce("rule", "_rule")).drop("_rule")

    return transform


def with_pair_support(min_users: int) -> Transform:
    """Kept acts -> the same, those on pairs with fewer than ``min_users`` distinct users marked."""

    def transform(kept: DataFrame) -> DataFrame:
        alive = kept.where(F.col("rule").isNull()).groupBy("query_id", "item_id")
        few = alive.agg(F.count_distinct("user").alias("_users")).where(F.col("_users") < min_users)
        flags = few.select("query_id", "item_id", F.lit("few_pair_users").alias("_rule"))
        joined = kept.join(flags, ["query_id", "item_id"], how="left")
        return joined.withColumn("rule", F.coalesce("rule", "_rule")).drop("_rule")

    return transform


def with_later_click_rule(first_test_day: dt.date, groups: DataFrame) -> Transform:
    """Kept acts -> the same, those from ``first_test_day`` on marked where their pair was clicked before it.

    A pair is one of query group and item group here: another item of the same text, or the query in the plural, clicked
    before, would tell training just as much. ``groups`` holds (title_id, item_group) of texts that nearly equal another.
    """

    def transform(kept: DataFrame) -> DataFrame:
        grouped = kept.join(groups.select("title_id", "item_group"), "title_id", how="left")
        group = F.coalesce("item_group", "title_id")
        pair = Window.partitionBy("query_group", group, F.col("rule").isNull())
        known = F.min("day").over(pair) < F.lit(first_test_day)
        rule = first_of(("later_click", known & (F.col("day") >= F.lit(first_test_day))))
        return grouped.withColumn("rule", F.coalesce("rule", rule)).drop("item_group")

    return transform
