"""A random, stratified sample of a day's labels for people to judge: labels of the day -> ANNOTATION_SAMPLE.

Strata are bands of the term's probability by the category's first level, so that rare categories and doubtful terms are
judged too; every row knows with which probability it was drawn, so that what is found holds for the whole catalogue
(stratified sampling without replacement, Cochran 1977, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from etl.contracts import ANNOTATION_SAMPLE, ITEM_CATEGORIES, ITEM_TERMS, LINEAGE, Table

NO_TERM, NO_CATEGORY = "no term", "no category"
BANDS = (0.5, 0.7, 0.9)
"""Bounds between bands of probability."""

_DRAWN = tuple(name for name in ANNOTATION_SAMPLE.names if name not in {"ds", *(column.name for column in LINEAGE)})


def annotation_sample(catalogue: DataFrame, labels: Mapping[Table, DataFrame], size: int, least: int) -> DataFrame:
    """CATALOGUE and labels of one day -> ANNOTATION_SAMPLE without its lineage: some ``size`` items.

    An item is drawn by the hash of its day and id: the same in every rerun, and another sample every day.

    Args:
        catalogue: Of the day.
        labels: ITEM_TERMS and ITEM_CATEGORIES of the day, or one of them.
        size: Items in all, shared out by the sizes of the strata.
        least: At least so many of each stratum, or all it has.
    """
    items = catalogue.select("ds", "item_id", "title").transform(with_labels(labels)).withColumn("stratum", stratum())
    found = {row["stratum"]: row["count"] for row in items.groupBy("stratum").count().collect()}
    draws = allocation(found, size, least)
    # Of 10^8 items a window over all would sort them; ten standard deviations more than are wanted always hold the first.
    rows = [
        (name, n, draws[name], min(1.0, (draws[name] + 10 * math.sqrt(draws[name]) + 20) / n)) for name, n in found.items()
    ]
    kinds = "stratum string, stratum_items bigint, drawn bigint, reach double"
    strata = items.sparkSession.createDataFrame(rows, kinds)
    place = F.xxhash64("ds", "item_id") / F.lit(2.0**64) + F.lit(0.5)
    near = items.join(F.broadcast(strata), on="stratum", how="inner").withColumn("place", place)
    order = Window.partitionBy("stratum").orderBy("place", "item_id")
    ranked = near.where(F.col("place") <= F.col("reach")).withColumn("rank", F.row_number().over(order))
    drawn = ranked.where(F.col("rank") <= F.col("drawn"))
    return drawn.withColumn("inclusion", F.col("drawn") / F.col("stratum_items")).select("ds", *_DRAWN)


def allocation(strata: Mapping[str, int], size: int, least: int) -> dict[str, int]:
    """Items to draw from each stratum, of ``size`` in all by its share, at least ``least`` and at most all it has."""
    whole = sum(strata.values())
    return {name: min(n, max(least, round(size * n / whole))) if size else 0 for name, n in strata.items()}


def with_labels(labels: Mapping[Table, DataFrame]) -> Callable[[DataFrame], DataFrame]:
    """Adds the best term and the category of each item, null where there is none."""

    def transform(items: DataFrame) -> DataFrame:
        terms = {"term_id": "string", "term": "string", "term_probability": "double"}
        categories = {
            "category_id": "string",
            "category_path": "string",
            "category_probability": "double",
            "level_1": "string",
        }
        if ITEM_TERMS in labels:
            best = labels[ITEM_TERMS].where("rank <= 1").withColumnRenamed("probability", "term_probability")
            items = items.join(best.select("item_id", *terms), on="item_id", how="left")
        if ITEM_CATEGORIES in labels:
            path = F.when(F.size("path") > 0, F.concat_ws(" > ", "path")).alias("category_path")
            probability = F.col("probability").alias("category_probability")
            found = labels[ITEM_CATEGORIES].select("item_id", "category_id", path, probability, "level_1")
            items = items.join(found, on="item_id", how="left")
        absent = {name: kind for name, kind in (terms | categories).items() if name not in items.columns}
        return items.withColumns({name: F.lit(None).cast(kind) for name, kind in absent.items()})

    return transform


def stratum() -> Column:
    """Name of an item's stratum, such as '0.7 to 0.9 | Home'."""
    bounds = (0.0, *BANDS, 1.0)
    band = F.lit(f"{BANDS[-1]:g} to 1")
    for low, high in reversed(list(zip(bounds[:-2], BANDS, strict=True))):
        band = F.when(F.col("term_probability") < high, f"{low:g} to {high:g}").otherwise(band)
    band = F.when(F.col("term_id").isNull(), NO_TERM).otherwise(band)
    return F.concat_ws(" | ", band, F.coalesce("level_1", F.lit(NO_CATEGORY)))
