"""What shoppers call an item and its title does not say: live labels and PAIRS -> COPY_KEYWORDS, for copywriters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.text import Normaliser, contains, is_cjk, stem, words

MOST_PHRASES = 500
"""Queries of an item that are looked at: of more Spark would keep all of an item in one task, for a few that are shown."""

Forms = Mapping[str, Sequence[Sequence[str]]]
"""term_id -> words of each form of the term, normalised."""

_PHRASE = "struct<query: string, clicks: bigint, users: bigint, weight: double>"
SCHEMA = f"item_id string, title string, terms array<string>, missing_terms array<string>, phrases array<{_PHRASE}>"
_PHRASES = pa.list_(
    pa.struct([("query", pa.string()), ("clicks", pa.int64()), ("users", pa.int64()), ("weight", pa.float64())])
)
_TEXTS = pa.list_(pa.string())


def copy_keywords(
    live: DataFrame, pairs: DataFrame, forms: Forms, normaliser: Normaliser, *, phrases: int, min_users: int
) -> DataFrame:
    """LABELS_CURRENT and PAIRS of one day -> rows of SCHEMA: items of whose terms and phrases the title lacks some.

    Args:
        live: Rows item_id, title, terms of every item.
        pairs: The clicked queries.
        forms: Of every active term; a term that has none here is searched by its name.
        normaliser: The bundle's.
        phrases: Most phrases of an item.
        min_users: Distinct users that must have clicked the item for a phrase.
    """
    shared = live.sparkSession.sparkContext.broadcast(dict(forms))

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in found:
            rows = [lacking(row, shared.value, normaliser, phrases) for row in batch.to_pylist()]
            missing, kept = [row[0] for row in rows], [row[1] for row in rows]
            terms = [[term["term"] for term in row] for row in batch.column("terms").to_pylist()]
            arrays = [pa.array(terms, _TEXTS), pa.array(missing, _TEXTS), pa.array(kept, _PHRASES)]
            yield pa.RecordBatch.from_arrays(
                [*(batch.column(name) for name in ("item_id", "title")), *arrays],
                ["item_id", "title", "terms", "missing_terms", "phrases"],
            )

    rows = live.select("item_id", "title", F.transform("terms", lambda t: F.struct(t["term_id"], t["term"])).alias("terms"))
    rows = rows.join(clicked_phrases(pairs, min_users), on="item_id", how="left")
    return rows.mapInArrow(batches, SCHEMA).where("size(missing_terms) > 0 OR size(phrases) > 0")


def clicked_phrases(pairs: DataFrame, min_users: int) -> DataFrame:
    """PAIRS -> item_id, phrases: its queries, strongest first, ties by the query; of a query group the strongest only.

    At most MOST_PHRASES of an item.
    """
    strongest = Window.partitionBy("item_id", "query_group").orderBy(F.desc("weight"), "query")
    kept = pairs.where(F.col("users") >= min_users).withColumn("place", F.row_number().over(strongest)).where("place = 1")
    of_item = Window.partitionBy("item_id").orderBy(F.desc("weight"), "query")
    kept = kept.withColumn("place", F.row_number().over(of_item)).where(F.col("place") <= MOST_PHRASES)
    phrase = F.struct("place", "query", "clicks", "users", "weight")
    return kept.groupBy("item_id").agg(F.sort_array(F.collect_list(phrase)).alias("phrases"))


def lacking(
    row: Mapping[str, Any], forms: Forms, normaliser: Normaliser, most: int
) -> tuple[list[str], list[dict[str, Any]]]:
    """The terms and the phrases of one item that its title does not contain; of these at most ``most``."""
    title = words(normaliser(str(row["title"] or "")))
    terms: Iterable[Mapping[str, str]] = row["terms"] or ()
    phrases: Iterable[dict[str, Any]] = row["phrases"] or ()
    missing = [
        term["term"]
        for term in terms
        if not any(says(title, form) for form in forms.get(term["term_id"]) or [words(normaliser(term["term"]))])
    ]
    new = [phrase for phrase in phrases if not says(title, words(str(phrase["query"])))]
    kept = [{name: phrase[name] for name in ("query", "clicks", "users", "weight")} for phrase in new[:most]]
    return missing, kept


def says(title_words: Sequence[str], phrase_words: Sequence[str]) -> bool:
    """Whether a title contains a phrase: its words one after the other, or all of them anywhere, up to a plural s.

    Single characters of a script without spaces say too little anywhere: a phrase with one must stand as it is.
    """
    if contains(list(title_words), list(phrase_words)):
        return True
    anywhere = not any(map(is_cjk, phrase_words))
    return anywhere and bool(phrase_words) and {stem(w) for w in phrase_words} <= {stem(w) for w in title_words}
