from __future__ import annotations

import pytest

from etl.heldout import as_heldout, count_languages, count_scripts, frequencies
from etl.text import language_of, normalise
from etl.typos import misspelt

PAIRS = "query_id bigint, query string, title_id bigint, clicks bigint, split string, sampled boolean"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("red shoes 39", "latin"),
        ("café crème", "latin"),
        ("红色连衣裙", "chinese"),
        ("iphone 手机壳", "mixed"),
        ("ワンピース 赤", "other"),
        ("красные туфли", "other"),
        ("красные nike", "other"),
        ("운동화", "other"),
        ("3.5", "other"),
        ("", "other"),
    ],
)
def test_the_script_tells_the_language(text, language):
    assert language_of(text) == language


def test_the_head_has_half_of_the_clicks_and_queries_of_equal_clicks_are_of_one_band(spark):
    # 100 clicks in all: the first query has half of them, the next two go to 80, ten of equally many share the rest.
    clicks = {1: 50, 2: 20, 3: 10, **dict.fromkeys(range(4, 14), 2)}
    rows = [(n, f"q{n}", 1, count, "train", True) for n, count in clicks.items()]
    rows += [(1, "q1", 2, 0, "train", True)]
    found = {r["query_id"]: r["frequency"] for r in frequencies(spark.createDataFrame(rows, PAIRS)).collect()}
    assert found == {1: "head", 2: "torso", 3: "torso"} | dict.fromkeys(range(4, 14), "tail")


def test_queries_of_equal_clicks_are_all_head_where_there_are_no_others(spark):
    frame = spark.createDataFrame([(n, f"q{n}", 1, 5, "train", True) for n in range(6)], PAIRS)
    assert {r["frequency"] for r in frequencies(frame).collect()} == {"head"}


def test_a_held_out_query_has_its_titles_language_band_and_typos_in_each_split_and_the_titles_it_was_trained_with(spark):
    rows = [
        (1, "red shoes", 15, 40, "train", True),
        (1, "red shoes", 11, 1, "train", False),
        (1, "red shoes", 12, 1, "item", False),
        (1, "red shoes", 13, 1, "time", False),
        (2, "雨鞋", 21, 3, "test", False),
        (2, "雨鞋", 20, 3, "test", False),
        (3, "kettle", 31, 2, "unused", False),
    ]
    pairs = spark.createDataFrame(rows, PAIRS)
    queries = spark.createDataFrame([(1, "red shoes", b"1"), (2, "雨鞋", b"2"), (3, "kettle", b"3")],
                                    "query_id bigint, text string, query binary")  # fmt: skip
    found = {(r["split"], r["query_id"]): r.asDict() for r in pairs.transform(as_heldout(queries)).collect()}
    assert set(found) == {("item", 1), ("time", 1), ("test", 2)}
    assert found["test", 2] == {
        "split": "test", "query_id": 2, "query": b"2", "language": "chinese", "frequency": "tail",
        "title_ids": [20, 21], "seen_title_ids": [], "text": misspelt("雨鞋"),
    }  # fmt: skip
    assert (found["item", 1]["title_ids"], found["time", 1]["title_ids"]) == ([12], [13])
    assert found["item", 1]["seen_title_ids"] == found["time", 1]["seen_title_ids"] == [11, 15]  # the thinned one too
    assert (found["time", 1]["frequency"], found["time", 1]["language"]) == ("head", "latin")


def test_languages_are_counted_over_distinct_queries_that_training_draws(spark):
    rows = [(1, "red shoes", 1, 1, "train", True), (1, "red shoes", 2, 1, "train", True), (2, "雨鞋", 1, 1, "train", True)]
    rows += [(3, "туфли", 1, 1, "train", False), (4, "nike 鞋", 1, 1, "test", False)]
    assert count_languages(spark.createDataFrame(rows, PAIRS)) == {"chinese": 1, "latin": 1}


def test_scripts_are_counted_over_distinct_titles_that_training_draws(spark):
    titles = [("Red shoes", True), ("Red shoes", True), ("Кроссовки Nike", True), ("Nike 鞋", True), ("39", True)]
    pairs = spark.createDataFrame([*titles, ("雨鞋", False), (None, True)], "title string, sampled boolean")
    assert count_scripts(pairs, normalise) == {"cyrillic": 1, "latin": 2}
