"""Pairs and the day's texts as the rows of the dataset's parts: titles, pairs, known pairs, features of tokens."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.errors import InputError


def catalogue_texts(items: DataFrame, groups: DataFrame) -> DataFrame:
    """Items with title_id, TITLE_GROUPS of the day -> distinct texts: title_id, text (raw), item_group, heldout."""
    usable = items.where(F.col("title_id").isNotNull())
    texts = usable.groupBy("title_id").agg(F.min("text").alias("text"))
    grouped = texts.join(groups.select("title_id", "item_group", "heldout"), "title_id", how="left")
    group, heldout = F.coalesce("item_group", "title_id"), F.coalesce("heldout", F.lit(False))
    return grouped.withColumns({"item_group": group, "heldout": heldout})


def as_titles(titles: DataFrame, pairs: DataFrame) -> DataFrame:
    """Texts and PAIRS -> the texts that training may see, with their log-probability among the sampled pairs."""
    logp = pairs.where("sampled").groupBy("title_id").agg(F.max("item_logp").cast("float").alias("item_logp"))
    joined = titles.where(~F.col("heldout")).join(logp, "title_id", how="left")
    nowhere = F.lit(float("-inf")).cast("float")
    return joined.select("title_id", "item_group", F.coalesce("item_logp", nowhere).alias("item_logp"), "title")


def as_examples(pairs: DataFrame, queries: DataFrame, titles: DataFrame) -> DataFrame:
    """PAIRS -> one row per sampled (query_id, title_id), with both texts and their token ids."""
    train = (
        pairs.where("sampled")
        .groupBy("query_id", "query_group", "title_id", "item_group")
        .agg(
            # Rounded: the order in which fractions are added up differs from run to run.
            F.round(F.sum("weight"), 6).cast("float").alias("weight"),
            F.max("query_logp").cast("float").alias("query_logp"),
            F.max("item_logp").cast("float").alias("item_logp"),
        )
    )
    asked = queries.withColumnRenamed("text", "query_text")
    shown = titles.select("title_id", "title", F.col("text").alias("title_text"))
    joined = train.join(asked, "query_id", how="inner").join(shown, "title_id", how="inner")
    return joined.withColumn("pair_id", F.xxhash64("query_id", "title_id")).drop("query_id", "title_id")


def as_known(pairs: DataFrame) -> DataFrame:
    """PAIRS -> the clicked (query_group, item_group) of the training split, also those that are thinned out."""
    return pairs.where(F.col("split") == "train").select("query_group", "item_group").distinct()


def as_token_table(tokens: DataFrame) -> DataFrame:
    """Rows id, features with repeats -> one row per id; ``other`` differs where two tokens share the id."""
    return tokens.groupBy("id").agg(F.min("features").alias("features"), F.max("features").alias("other"))


def refuse_collisions(tokens: DataFrame) -> None:
    """Rows of :func:`as_token_table`.

    Raises:
        InputError: two words share an id.
    """
    clash = tokens.where("features <> other").head()
    if clash is not None:
        raise InputError(
            f"two words of the window share the 64-bit token id {clash['id']} (expected in 3 of a million datasets of 10 "
            "million words): one of them would get the other's vector; leave one out of the click log or the catalogue"
        )
