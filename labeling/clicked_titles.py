"""The titles that queries of training led to, summed by the form of a term that the query is: PAIRS -> prototypes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.session import hold
from labeling.clicked import TRAIN
from labeling.embed_catalogue import encode
from labeling.product_text import with_texts
from labeling.vectors import unit
from model.bundle import Bundle


def clicked_titles(pairs: DataFrame, texts: DataFrame, forms: Iterable[str], most: int) -> DataFrame:
    """Rows query, text_hash: the distinct texts that queries of training, which are a form, led to; ``most`` of each.

    Args:
        pairs: PAIRS of one day.
        texts: Rows item_id, text_hash.
        forms: Normalised.
        most: Drawn by their hashes, so that the draw repeats.
    """
    asked = pairs.sparkSession.createDataFrame([(form,) for form in sorted(set(forms))], "query string")
    trained = pairs.where(F.col("split") == TRAIN).join(F.broadcast(asked), on="query", how="inner")
    told = trained.join(texts, on="item_id", how="inner").select("query", "text_hash").distinct()
    by_hash = Window.partitionBy("query").orderBy("text_hash")
    return told.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= most).drop("place")


def title_sums(
    pairs: DataFrame, catalogue: DataFrame, forms: Iterable[str], bundle: Bundle, most: int
) -> dict[str, np.ndarray]:
    """Form -> sum of the unit vectors of the titles that were clicked for it, float64 [D]; forms without any have none.

    Args:
        pairs: PAIRS of one day.
        catalogue: Rows item_id, title, text of that day.
        forms: Normalised.
        bundle: Encodes the titles, each once, on the executors.
        most: Titles of a form at most.
    """
    with ExitStack() as held:
        texts = hold(catalogue.transform(with_texts(bundle.tokenizer.normalise)).where("reason IS NULL"), held)
        told = hold(clicked_titles(pairs, texts.select("item_id", "text_hash"), forms, most), held)
        wanted = texts.select("text_hash", "text", "reason").dropDuplicates(["text_hash"])
        vectors = encode(wanted.join(told, on="text_hash", how="left_semi"), bundle).where("vector IS NOT NULL")
        summed = told.join(vectors.select("text_hash", "vector"), on="text_hash", how="inner").groupBy("query")
        rows = summed.applyInArrow(_summed, "query string, total binary").toLocalIterator()
        return {row["query"]: np.frombuffer(row["total"], dtype="<f8") for row in rows}


def _summed(titles: pa.Table) -> pa.Table:
    """One form's titles, added in the order of their hashes, so that the last digit does not depend on Spark's."""
    stacked = np.stack([np.frombuffer(vector, "<f2") for vector in titles.sort_by("text_hash")["vector"].to_pylist()])
    total = unit(stacked.astype(np.float64)).sum(axis=0)
    return pa.table({"query": titles["query"][:1], "total": pa.array([total.astype("<f8").tobytes()], pa.binary())})
