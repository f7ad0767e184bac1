"""How much of what shoppers ask today the last training did not know: the share of clicks on queries with a new word.

Read from PAIRS without Spark, as all of `labeller train-due` is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from etl.contracts import PAIRS
from etl.text import Normaliser, words
from etl.warehouse import Warehouse, is_delta


@dataclass(frozen=True, slots=True)
class NewWords:
    """What is asked on a day and a training did not know."""

    share: float
    """Clicks on queries with at least one new word, of all clicks of the day's pairs; 0 to 1."""
    queries: int
    """How many such queries there are."""


def new_words(warehouse: Warehouse, trained: dt.date, ds: dt.date, normaliser: Normaliser) -> NewWords | None:
    """Compare the pairs of ``ds`` with those that the training of ``trained`` drew from; None if either day has none.

    A word is known if it is in a query or a title of a pair that training drew; of another one the encoder has seen no more
    than its letters. Words of Chinese are single characters, few of which are ever new: there the share is a low estimate.
    """
    path = warehouse.table(PAIRS)
    if not is_delta(path):
        return None
    pairs = pl.scan_delta(path).select("ds", "query", "title", "clicks", "sampled")
    asked = pairs.filter(pl.col("ds") == ds).group_by("query").agg(pl.col("clicks").sum()).collect()
    drawn = pairs.filter((pl.col("ds") == trained) & pl.col("sampled")).select("query", "title")
    queries = drawn.select("query").unique().collect()["query"]
    if asked.is_empty() or queries.is_empty():
        return None
    known = vocabulary(queries)
    titles = drawn.select("title").drop_nulls().unique().collect()["title"]
    known |= vocabulary(normaliser(title) for title in titles)
    new = asked.filter(pl.Series([not known.issuperset(words(query)) for query in asked["query"]], dtype=pl.Boolean))
    return NewWords(int(new["clicks"].sum()) / int(asked["clicks"].sum()), new.height)


def vocabulary(texts: Iterable[str]) -> set[str]:
    """Words of normalised texts."""
    return {word for text in texts for word in words(text)}
