"""Thinning of hot queries and items, and the exact log-probabilities that a row of what is left has each side.

Mikolov et al. 2013, "Distributed Representations of Words and Phrases", equation 5: an occurrence of w is kept with
probability sqrt(t / f(w)) where w's share f(w) exceeds t. Here a row (query, text) is kept with the product of both sides'.
The log-probabilities are those of the log-q correction (Yi et al. 2019, "Sampling-bias-corrected neural modeling").
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from etl.cleaning import Transform
from etl.session import settle


def with_sampling(queries: float, items: float) -> Transform:
    """Pairs with query_id, title_id and split -> the same with sampled, query_logp and item_logp.

    What training draws are distinct (query_id, title_id) of the split train: two items with one text are one row there.

    Args:
        queries: Share of the rows above which a query is thinned; 0: none is.
        items: The same for texts.
    """

    def transform(pairs: DataFrame) -> DataFrame:
        rows = pairs.where(F.col("split") == "train").select("query_id", "title_id").distinct()
        if queries or items:
            asked, clicked = _shares(rows, "query_id", "_query"), _shares(rows, "title_id", "_item")
            keep = _keep(F.col("_query"), queries) * _keep(F.col("_item"), items)
            shares = rows.join(asked, "query_id", how="inner").join(clicked, "title_id", how="inner")
            rows = shares.where(draw("query_id", "title_id") < keep).select("query_id", "title_id")
        rows = settle(rows)
        drawn = rows.withColumn("_drawn", F.lit(True))
        joined = pairs.join(drawn, ["query_id", "title_id"], how="left")
        for key, into in (("query_id", "query_logp"), ("title_id", "item_logp")):
            joined = (
                joined.join(_shares(rows, key, "_share"), key, how="left").withColumn(into, F.ln("_share")).drop("_share")
            )
        return joined.withColumn("sampled", F.coalesce("_drawn", F.lit(False))).drop("_drawn")

    return transform


def draw(*keys: str) -> Column:
    """A number in [0, 1) from the hash of the keys: the same on every day and at any partition count."""
    return F.shiftrightunsigned(F.xxhash64(*keys, F.lit("subsample")), 11).cast("double") * F.lit(2.0**-53)


def _shares(rows: DataFrame, key: str, into: str) -> DataFrame:
    """(key, share of the rows that have it)."""
    counts = rows.groupBy(key).agg(F.count(F.lit(1)).alias("_n"))
    total = counts.agg(F.sum("_n").alias("_total"))
    return counts.crossJoin(F.broadcast(total)).select(key, (F.col("_n") / F.col("_total")).alias(into))


def _keep(share: Column, threshold: float) -> Column:
    return F.least(F.lit(1.0), F.sqrt(F.lit(threshold) / share)) if threshold else F.lit(1.0)
