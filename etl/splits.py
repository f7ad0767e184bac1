"""Which pairs are held out, and why that never moves: a part is drawn by the hash of what it holds out.

A query group is drawn by its own words and an item by its own text, so neither depends on what else is in the log. Texts
that are nearly equal to a held-out one are not held out with it, since a new neighbour could then move a whole group: nobody
uses them.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from etl.pairs_config import PairsConfig
from etl.text import stem, words


def query_key(query: str) -> str:
    """A normalised query up to word order and plural: what its group is the hash of.

    Characters of scripts without spaces are sorted one by one, so that a space in 红色 跑鞋 makes no difference.
    """
    return " ".join(sorted(map(stem, words(query))))


def heldout_query(query_group: Column, config: PairsConfig) -> Column:
    """test, valid or null, by a hash of the query group."""
    place = _place(query_group, "split")
    return F.when(place < config.test_share, "test").when(place < config.test_share + config.valid_share, "valid")


def is_heldout_title(title_id: Column, config: PairsConfig) -> Column:
    """Whether no training may see a text, by a hash of the text."""
    return _place(title_id, "item") < config.test_item_share


def split_of(config: PairsConfig) -> Column:
    """Split of a pair with query_group, title_id, first_day and ``heldout`` (its item group holds a held-out text).

    With ``test_days``, :func:`etl.support.with_later_click_rule` sees to it that all pairs of one query group and item group
    are first clicked on one side of the first held-out day.
    """
    return F.coalesce(
        heldout_query(F.col("query_group"), config),
        F.when(is_heldout_title(F.col("title_id"), config), "item"),
        F.when(F.col("heldout"), "unused"),
        F.when(F.col("first_day") >= F.lit(config.first_test_day), "time"),
        F.lit("train"),
    )


def as_title_groups(texts: DataFrame, near: DataFrame, config: PairsConfig) -> DataFrame:
    """TITLE_GROUPS without ds, of distinct texts by ``title_id``.

    Args:
        texts: Every text of the catalogue.
        near: (title_id, item_group) of those that nearly equal another.
        config: The share held out.
    """
    chosen = texts.where(is_heldout_title(F.col("title_id"), config)).select("title_id")
    listed = near.join(chosen, "title_id", how="full").withColumn("item_group", F.coalesce("item_group", "title_id"))
    heldout = listed.join(chosen, "title_id", how="left_semi").select("item_group", F.lit(True).alias("heldout")).distinct()
    flagged = listed.join(heldout, "item_group", how="left")
    return flagged.select("title_id", "item_group", F.coalesce("heldout", F.lit(False)).alias("heldout"))


def _place(id_: Column, what: str) -> Column:
    return F.pmod(F.xxhash64(id_, F.lit(what)), F.lit(1_000_000)) / F.lit(1_000_000.0)
