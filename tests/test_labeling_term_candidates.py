from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from etl.contracts import PAIRS
from etl.splits import query_key
from etl.text import normalise
from labeling.term_candidates import (
    KNOWN,
    MISSPELT,
    NARROWER,
    NEW,
    NUMBERED,
    SCHEMA,
    SYNONYM,
    Judge,
    cohesion,
    judged,
    known_keys,
    like_terms,
    supported_queries,
    synonym_cosine,
)
from labeling.term_search import TermIndex
from tests.labeling_data import index_titles, pair, query_encoder, vocabulary, write_small_bundle
from tests.rows import term

VOCABULARY = [
    term("t1", "sneakers", synonyms=["running shoes"]),
    term("t2", "electric kettle"),
    term("t3", "toaster", status="rejected"),
]
SNEAKERS, KETTLE = 0, 1  # positions of the active terms


def judge_of(root, rows: list[dict[str, Any]] = VOCABULARY, **limits: float) -> Judge:
    bundle = write_small_bundle(root)
    terms = TermIndex.build(vocabulary(rows), query_encoder(bundle), normalise)
    return Judge(terms, known_keys(rows, normalise), **{"synonym_cosine": 0.7, "synonym_share": 0.6} | limits)


@pytest.mark.parametrize(
    ("query", "position", "cosine", "share", "expected"),
    [
        ("shoe running", SNEAKERS, 0.9, 0.9, KNOWN),  # up to word order and plural
        ("toasters", KETTLE, 0.2, 0.0, KNOWN),  # a curator has retired it
        ("trainers", SNEAKERS, 0.8, 0.8, SYNONYM),
        ("trainers", SNEAKERS, 0.6, 0.8, NEW),  # the clicks agree, the vectors do not
        ("trainers", SNEAKERS, 0.8, 0.5, NEW),  # and the other way round
        ("red running shoes", SNEAKERS, 0.9, 0.9, NARROWER),
        ("electrc kettle", KETTLE, 0.9, 0.9, MISSPELT),
        ("kettle 2 l", KETTLE, 0.9, 0.9, NUMBERED),
    ],
)
def test_a_query_is_held_against_its_nearest_term(root, query, position, cosine, share, expected):
    assert judge_of(root).verdict(query, position, cosine, share) == expected


def test_cohesion_is_the_mean_cosine_of_two_different_items_drawn_by_their_clicks():
    vectors = np.random.default_rng(0).normal(size=(6, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clicks = np.array([1.0, 5, 2, 2, 9, 1])
    weights = np.outer(clicks, clicks) * (1 - np.eye(6))
    assert cohesion(vectors, clicks) == pytest.approx((weights * (vectors @ vectors.T)).sum() / weights.sum())
    assert cohesion(vectors[:1], clicks[:1]) == 1.0


def test_synonyms_are_as_near_as_the_vocabularys_own_forms_and_none_are_without_any(root):
    terms = judge_of(root).terms
    own = terms.vectors[:2].astype(np.float64)
    assert synonym_cosine(terms, 0.5) == pytest.approx(own[0] @ own[1])
    assert synonym_cosine(judge_of(root, [term("t1", "sneakers")]).terms, 0.5) == 1.0


def click(query: str, item: str, clicks: int, users: int = 1) -> dict[str, Any]:
    group = int(np.frombuffer(query_key(query).encode().ljust(8)[:8], "<i8")[0])
    return pair(query, item, item) | {"clicks": clicks, "users": users, "query_group": group}


def log_of(spark, *rows: dict[str, Any]):
    return spark.createDataFrame([tuple(row[name] for name in PAIRS.names) for row in rows], PAIRS.ddl)


def live_of(spark, **terms: str):
    schema = "item_id string, terms array<struct<term_id: string>>"
    return spark.createDataFrame([(item, [(term_id,)]) for item, term_id in terms.items()], schema)


def test_spellings_of_a_group_support_each_other_and_what_has_too_little_is_left_out(spark):
    rows = [
        click("tea pot", "i1", 6, 3),
        click("pot tea", "i2", 3, 3),
        click("tea pot", "i2", 2, 2),
        click("few clicks", "i1", 5, 9),
        click("few clicks", "i2", 5, 9),
        click("few users", "i1", 50, 2),
        click("few users", "i2", 50, 2),
        click("one item", "i1", 50, 50),
    ]
    found = supported_queries(
        log_of(spark, *rows), live_of(spark, i1="t1"), min_clicks=11, min_users=8, min_items=2
    ).collect()
    assert [(row["query"], row["clicks"], row["users"], row["items"]) for row in found] == [("tea pot", 11, 8, 2)]
    assert [(item["item_id"], item["clicks"], item["term_id"]) for item in found[0]["clicked"]] == [
        ("i1", 6, "t1"),
        ("i2", 5, None),
    ]


def test_each_query_is_judged_by_the_items_clicked_for_it_the_same_at_any_partitioning(spark, root):
    bundle = write_small_bundle(root)
    titles = {"i1": "steel pot", "i2": "iron pot", "i3": "wool rug", "i4": "running shoes"}
    index = index_titles(spark, root, bundle, titles)
    rows = [
        click("pot", "i1", 3),
        click("pot", "i2", 2),
        click("pot", "gone", 1),
        click("gift", "i3", 4),
        click("gift", "i4", 4),
    ]
    live = live_of(spark, i1="t2", i2="t2", i4="t1")
    queries = supported_queries(log_of(spark, *rows), live, min_clicks=1, min_users=1, min_items=1)
    found = [sorted(judged(queries, judge_of(root), index, bundle, n).collect()) for n in (1, 7)]
    assert found[0] == found[1]
    by_query = {row["query"]: row for row in found[0]}
    assert by_query["pot"]["cohesion"] > by_query["gift"]["cohesion"]
    assert by_query["pot"]["example_items"] == ["i1", "i2"]
    assert by_query["gift"]["term_share"] in (0.0, 0.5)


def test_proposals_are_as_cohesive_as_the_terms_that_the_vocabulary_has(spark, caplog):
    def row(number: int, verdict: str, held_together: float) -> tuple:
        return (number, f"q{number}", 9, 9, 9, verdict, held_together, "t1", "sneakers", 0.5, 0.5, [])

    known = [row(n, KNOWN, 0.30 + n / 100) for n in range(21)]
    others = [row(30, NEW, 0.29), row(31, NEW, 0.4), row(32, SYNONYM, 0.5), row(33, NARROWER, 0.6), row(34, MISSPELT, 0.4)]
    found = like_terms(spark.createDataFrame([*known, *others], SCHEMA), 0.0, 1.0).collect()
    assert {row["query"]: row["proposal"] for row in found} == {"q31": NEW, "q32": SYNONYM}

    few = spark.createDataFrame([*known[:19], *others], SCHEMA)
    assert {row["query"] for row in like_terms(few, 0.0, 1.0).collect()} == {"q30", "q31", "q32", "q33"}
    assert "19 terms of the vocabulary are asked for that often" in caplog.text
