"""Queries that behave like product terms and are not in the vocabulary: PAIRS -> TERM_CANDIDATES, for its curators.

A term names a kind of thing. So clicks on it spread over several items, and these are as alike as those of the terms that
the vocabulary has: less alike, it names a department ("baby gear"); more alike, a brand or a single product. How alike
depends on encoder and shop, so the two bounds are quantiles of the vocabulary's own terms, measured every night.
"""

# Q queries, I clicked items of one of them, D embedding

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.splits import query_key
from etl.text import Normaliser, contains, words
from labeling.encoding import encode_good, task_device, worker_bundle
from labeling.item_index import ItemIndex, worker_index
from labeling.term_search import TermIndex, TermSearch
from labeling.vectors import unit
from model.bundle import Bundle

log = logging.getLogger(__name__)

KNOWN, MISSPELT, NUMBERED, NEW, SYNONYM, NARROWER = "known", "misspelt", "numbered", "new", "synonym", "narrower"
"""What a query is: of the vocabulary; no term; or a proposal."""

MOST_ITEMS = 200
"""Clicked items that a query is judged by, the most clicked ones: a mean over more is the same mean."""

EXAMPLES = 5
_MIN_TERMS = 20  # with fewer typed terms a quantile of them says nothing
_MISSPELT = 0.85  # of difflib's ratio: one slip in seven letters or more, two in fourteen

SCHEMA = """query_group bigint, query string, clicks bigint, users bigint, items bigint, verdict string, cohesion double,
    nearest_term_id string, nearest_term string, cosine double, term_share double, example_items array<string>"""
_ARROW_SCHEMA = pa.schema(
    [("query_group", pa.int64()), ("query", pa.string())]
    + [(name, pa.int64()) for name in ("clicks", "users", "items")]
    + [("verdict", pa.string()), ("cohesion", pa.float64()), ("nearest_term_id", pa.string())]
    + [("nearest_term", pa.string()), ("cosine", pa.float64()), ("term_share", pa.float64())]
    + [("example_items", pa.list_(pa.string()))]
)


@dataclass(frozen=True, slots=True)
class Judge:
    """What a query is held against; picklable for broadcast."""

    terms: TermIndex
    known: frozenset[str]
    """:func:`etl.splits.query_key` of every form of the vocabulary, of terms that are not active too."""
    synonym_cosine: float
    synonym_share: float

    def verdict(self, query: str, term: int, cosine: float, term_share: float) -> str:
        """What a query is whose nearest term, at this position, has this cosine and this share of its clicks."""
        if query_key(query) in self.known:
            return KNOWN
        asked = words(query)
        if any(character.isdigit() for character in query):
            return NUMBERED
        forms = self.terms.forms_of(term)
        if any(contains(asked, form) for form in forms):
            return NARROWER
        if cosine < self.synonym_cosine or term_share < self.synonym_share:
            return NEW
        alike = (difflib.SequenceMatcher(None, " ".join(asked), " ".join(form)).ratio() for form in forms)
        return MISSPELT if max(alike) >= _MISSPELT else SYNONYM


def supported_queries(pairs: DataFrame, live: DataFrame, *, min_clicks: int, min_users: int, min_items: int) -> DataFrame:
    """PAIRS and live labels of one day -> query_group, query, clicks, users, items, clicked.

    ``query`` is the most clicked of the group, ``clicked`` its most clicked items as (clicks, item_id, best live term).
    """
    by_item = pairs.groupBy("query_group", "item_id").agg(F.sum("clicks").alias("clicks"), F.sum("users").alias("users"))
    support = by_item.groupBy("query_group").agg(
        *(F.sum(name).alias(name) for name in ("clicks", "users")), F.count(F.lit(1)).alias("items")
    )
    support = support.where((F.col("clicks") >= min_clicks) & (F.col("users") >= min_users) & (F.col("items") >= min_items))
    spelt = pairs.groupBy("query_group", "query").agg((-F.sum("clicks")).alias("order"))
    spelt = spelt.groupBy("query_group").agg(F.min(F.struct("order", "query"))["query"].alias("query"))
    best = live.select("item_id", F.get("terms", F.lit(0))["term_id"].alias("term_id"))
    # Numbered and cut before they are listed: a query may be clicked on 10^6 items.
    most_clicked = Window.partitionBy("query_group").orderBy(F.desc("clicks"), "item_id")
    kept = (
        by_item.join(support.select("query_group"), on="query_group", how="left_semi")
        .withColumn("place", F.row_number().over(most_clicked))
        .where(F.col("place") <= MOST_ITEMS)
    )
    item = F.struct("place", "item_id", "clicks", "term_id")
    by_query = kept.join(best, on="item_id", how="left").groupBy("query_group")
    clicked = by_query.agg(F.sort_array(F.collect_list(item)).alias("clicked"))
    return support.join(spelt, on="query_group", how="inner").join(clicked, on="query_group", how="inner")


def judged(queries: DataFrame, judge: Judge, index: ItemIndex, bundle: Bundle, partitions: int = 0) -> DataFrame:
    """What :func:`supported_queries` returns -> rows of SCHEMA; a query that the encoder fails on has none."""
    context = queries.sparkSession.sparkContext
    shared, path = context.broadcast(judge), str(index.path)
    encoder, encoder_id = str(bundle.path), bundle.id

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        loaded = worker_bundle(encoder, encoder_id, task_device())
        search, items = TermSearch(shared.value.terms), worker_index(path)
        for batch in found:
            rows = _judged(batch.to_pylist(), shared.value, search, items, loaded)
            yield pa.RecordBatch.from_pylist(rows, _ARROW_SCHEMA)

    tasks = partitions or 2 * context.defaultParallelism
    return queries.repartition(tasks, "query_group").mapInArrow(batches, SCHEMA)


def like_terms(rows: DataFrame, low: float, high: float) -> DataFrame:
    """Rows of SCHEMA -> those of TERM_CANDIDATES: proposals whose items are as alike as those of the vocabulary's terms.

    The bounds are quantiles of the cohesion of the queries that are terms.
    """
    known = [row[0] for row in rows.where(F.col("verdict") == KNOWN).select("cohesion").collect()]
    proposals = rows.where(F.col("verdict").isin(NEW, SYNONYM, NARROWER)).withColumnRenamed("verdict", "proposal")
    if len(known) < _MIN_TERMS:
        log.warning(
            "term_candidates: %d terms of the vocabulary are asked for that often (expected >= %d, to learn how alike the "
            "items of a term are): queries for departments and brands stay in", len(known), _MIN_TERMS,
        )  # fmt: skip
        return proposals
    least, most = np.quantile(known, [low, high])
    log.info("term_candidates: items of a term have a mean cosine of %.3f to %.3f (of %d terms)", least, most, len(known))
    return proposals.where(F.col("cohesion").between(float(least), float(most)))


def known_keys(vocabulary: Iterable[Mapping[str, Any]], normaliser: Normaliser) -> frozenset[str]:
    """Keys of all forms of VOCABULARY rows, whatever their status: what a curator has retired is not proposed again."""
    texts = (text for row in vocabulary for text in (row["term"], *(row["synonyms"] or ())) if text is not None)
    return frozenset(query_key(normaliser(text)) for text in texts)


def synonym_cosine(terms: TermIndex, quantile: float) -> float:
    """Quantile of the cosines of a vocabulary's forms to the nearest other form of their term; 1 if no term has two."""
    cosines = []
    for start, end in _runs(terms.form_terms):
        if end - start > 1:
            own = terms.vectors[start:end].astype(np.float64)
            near = own @ own.T
            np.fill_diagonal(near, -1.0)
            cosines += near.max(axis=1).tolist()
    return float(np.quantile(cosines, quantile)) if cosines else 1.0


def cohesion(vectors_ID: np.ndarray, clicks_I: np.ndarray) -> float:
    """Mean cosine of two different items that are drawn by their clicks; 1 for a single item.

    From the length R of the mean vector (the mean resultant length, Mardia and Jupp 2000): R squared counts each item
    with itself too, which made queries of few items look alike, so those terms are taken out.
    """
    share_I = clicks_I / clicks_I.sum()
    itself = float((share_I**2).sum())
    if itself > 1 - 1e-9:
        return 1.0
    mean_D = share_I @ vectors_ID.astype(np.float64)
    return float((mean_D @ mean_D - itself) / (1 - itself))


def _judged(
    rows: Sequence[Mapping[str, Any]], judge: Judge, search: TermSearch, index: ItemIndex, bundle: Bundle
) -> list[dict[str, Any]]:
    good, vectors = encode_good(bundle, [row["query"] for row in rows], "query")
    (nearest,) = search.candidates(unit(vectors.astype(np.float64)), [rows[i]["query"] for i in good])
    return [_row(rows[i], found[0].term, found[0].cosine, judge, index) for i, found in zip(good, nearest, strict=True)]


def _row(row: Mapping[str, Any], term: int, cosine: float, judge: Judge, index: ItemIndex) -> dict[str, Any]:
    ids = [item["item_id"] for item in row["clicked"]]
    clicks = np.array([item["clicks"] for item in row["clicked"]], dtype=np.float64)
    places = index.places_of(pa.array(ids, pa.string()))
    term_id = judge.terms.term_ids[term]
    of_term = np.array([item["term_id"] == term_id for item in row["clicked"]])
    share = float(clicks[of_term].sum() / clicks.sum())
    listed = places >= 0  # items that have left the catalogue since they were clicked have no vector
    alike = cohesion(index.vectors[places[listed]], clicks[listed]) if listed.any() else 1.0
    return {
        **{name: row[name] for name in ("query_group", "query", "clicks", "users", "items")},
        "verdict": judge.verdict(row["query"], term, cosine, share),
        "cohesion": round(alike, 6),
        "nearest_term_id": term_id,
        "nearest_term": judge.terms.terms[term],
        "cosine": cosine,
        "term_share": round(share, 6),
        "example_items": [item for item, place in zip(ids, places, strict=True) if place >= 0][:EXAMPLES],
    }


def _runs(form_terms: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and end of the forms of each term; forms stand in the order of their terms."""
    starts = np.flatnonzero(np.diff(form_terms, prepend=-1)).tolist()
    return zip(starts, [*starts[1:], len(form_terms)], strict=True)
