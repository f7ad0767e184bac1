from __future__ import annotations

from typing import Any

import pytest

from etl.contracts import PAIRS
from etl.text import normalise, words
from labeling.copy_keywords import copy_keywords, lacking, says
from tests.labeling_data import pair

FORMS = {"t1": [["sneakers"], ["running", "shoes"]], "t2": [["kettle"]]}


@pytest.mark.parametrize(
    ("title", "phrase", "expected"),
    [
        ("red running shoes", "running shoe", True),  # up to a plural s
        ("shoes for running, red", "running shoes", True),  # all its words, anywhere
        ("red shoes", "running shoes", False),
        ("红色跑步鞋", "跑步鞋", True),
        ("跑鞋 步行", "跑步鞋", False),  # the same characters apart say something else
        ("", "shoes", False),
    ],
)
def test_a_title_says_a_phrase_whose_words_it_has(title, phrase, expected):
    assert says(words(normalise(title)), words(normalise(phrase))) is expected


def item(title: str | None, terms: list[tuple[str, str]], *queries: str) -> dict[str, Any]:
    phrases = [{"order": -1.0, "query": query, "clicks": 3, "users": 2, "weight": 1.0} for query in queries]
    return {"item_id": "i1", "title": title, "terms": [{"term_id": t, "term": n} for t, n in terms], "phrases": phrases}


def test_a_term_of_which_the_title_has_a_synonym_is_not_missing():
    row = item("Running shoes 39", [("t1", "sneakers"), ("t2", "kettle")])
    assert lacking(row, FORMS, normalise, 5) == (["kettle"], [])


def test_a_term_that_the_vocabulary_no_longer_has_is_looked_for_by_its_name():
    assert lacking(item("Steel pot", [("t9", "pot"), ("t8", "pan")]), FORMS, normalise, 5)[0] == ["pan"]


def test_phrases_are_those_that_the_title_lacks_in_their_order_and_no_more_than_asked():
    row = item("Air Zoom black", [], "gym shoes", "black", "sneakers", "trainers")
    assert [phrase["query"] for phrase in lacking(row, FORMS, normalise, 2)[1]] == ["gym shoes", "sneakers"]


def test_an_item_without_a_title_lacks_all_of_it():
    assert lacking(item(None, [("t2", "kettle")], "tea"), FORMS, normalise, 5)[0] == ["kettle"]


def test_phrases_of_one_user_and_further_spellings_of_a_group_are_left_out_and_items_that_lack_nothing_too(spark):
    live = spark.createDataFrame(
        [("i1", "Air Zoom", [("t1", "sneakers")]), ("i2", "Kettle", [("t2", "kettle")]), ("i3", "Mat", [])],
        "item_id string, title string, terms array<struct<term_id: string, term: string>>",
    )
    clicks = [
        pair("gym shoes", "i1", "Air Zoom", weight=2.0) | {"query_group": 1, "users": 2, "clicks": 5},
        pair("shoes gym", "i1", "Air Zoom", weight=9.0) | {"query_group": 1, "users": 3, "clicks": 7},
        pair("gift", "i1", "Air Zoom", weight=50.0),  # of one user
        pair("kettle", "i2", "Kettle") | {"users": 9},
        pair("rug", "i3", "Mat") | {"users": 9},
    ]
    pairs = spark.createDataFrame([tuple(row[name] for name in PAIRS.names) for row in clicks], PAIRS.ddl)
    found = copy_keywords(live, pairs, FORMS, normalise, phrases=5, min_users=2).orderBy("item_id").collect()
    assert [(row["item_id"], row["terms"], row["missing_terms"]) for row in found] == [
        ("i1", ["sneakers"], ["sneakers"]),
        ("i3", [], []),
    ]
    assert [tuple(phrase) for phrase in found[0]["phrases"]] == [("shoes gym", 7, 3, 9.0)]
    assert [phrase["query"] for phrase in found[1]["phrases"]] == ["rug"]
