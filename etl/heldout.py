"""What evaluation knows of a held-out query (language, frequency, typos), and of the languages that training sees."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.cleaning import Transform
from etl.text import Normaliser, language_of, script_of
from etl.typos import misspelt

COLUMNS = ("split", "query_id", "query", "language", "frequency", "title_ids", "seen_title_ids", "text")

HEAD, TORSO = 0.5, 0.8
"""The most frequent queries, which half of all clicks belong to, are the head, the next up to 80% the torso."""


def as_heldout(queries: DataFrame) -> Transform:
    """PAIRS -> one row per query of each held-out split.

    Columns: split, query_id, query (token ids), language (:func:`etl.text.language_of`), frequency (:func:`frequencies`),
    title_ids that were clicked for it, seen_title_ids that it was clicked with in training (none of title_ids is among them:
    :func:`etl.splits.split_of`), and ``text``: the query with typos (:func:`etl.typos.misspelt`).

    Args:
        queries: query_id, text (normalised), query (token ids).
    """

    def transform(pairs: DataFrame) -> DataFrame:
        titles = F.sort_array(F.collect_set("title_id"))
        heldout = pairs.where(~F.col("split").isin("train", "unused")).groupBy("split", "query_id")
        seen = pairs.where(F.col("split") == "train").groupBy("query_id").agg(titles.alias("seen_title_ids"))
        groups = heldout.agg(titles.alias("title_ids")).join(seen, "query_id", how="left")
        joined = groups.join(queries, "query_id", how="inner").join(frequencies(pairs), "query_id", how="inner")
        language, typos = F.udf(language_of, "string"), F.udf(misspelt, "string")
        described = joined.withColumns(
            {
                "language": language("text"),
                "text": typos("text"),
                "seen_title_ids": F.coalesce("seen_title_ids", F.array().cast("array<bigint>")),
            }
        )
        return described.select(*COLUMNS)

    return transform


def frequencies(pairs: DataFrame) -> DataFrame:
    """PAIRS -> (query_id, frequency): head, torso or tail, by a query's share of the clicks of all queries of the window.

    Queries of equally many clicks are of one band.
    """
    asked = pairs.groupBy("query_id").agg(F.sum("clicks").alias("clicks"))
    levels = asked.groupBy("clicks").agg(F.sum("clicks").alias("level"))  # some thousands: one task sorts them
    above = F.sum("level").over(Window.orderBy(F.desc("clicks")).rowsBetween(Window.unboundedPreceding, -1))
    share = F.coalesce(above, F.lit(0)) / F.sum("level").over(Window.partitionBy())
    band = F.when(share < HEAD, "head").when(share < TORSO, "torso").otherwise("tail")
    return asked.join(levels.select("clicks", band.alias("frequency")), "clicks", how="inner").select(
        "query_id", "frequency"
    )


def count_scripts(pairs: DataFrame, normaliser: Normaliser) -> dict[str, int]:
    """PAIRS -> distinct titles to train on by the script of most of their letters; those without any left out."""
    titles = pairs.where("sampled AND title IS NOT NULL").select("title").distinct()
    script = F.udf(lambda title: script_of(normaliser(title)), "string")("title")
    rows = titles.groupBy(script.alias("script")).count().where("script != ''").collect()
    return {row["script"]: row["count"] for row in sorted(rows)}


def count_languages(pairs: DataFrame) -> dict[str, int]:
    """PAIRS -> distinct queries to train on by language."""
    queries = pairs.where("sampled").select("query").distinct()
    rows = queries.groupBy(F.udf(language_of, "string")("query").alias("language")).count().collect()
    return {row["language"]: row["count"] for row in sorted(rows)}
