from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import cleaning
from etl.catalogue import with_item_group
from etl.contracts import CLICK_LOG, MAX_TITLE_CHARACTERS
from tests.rows import DS, event

FIRST_DAY = DS - dt.timedelta(days=6)


def log_of(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    """A click log; ``session_id`` names the case where a test asks for rules by case."""
    ddl = ", ".join(f"{c.name} {c.type}" for c in CLICK_LOG.columns)
    return spark.createDataFrame([tuple(row[name] for name in CLICK_LOG.names) for row in rows], ddl)


def rules(marked: DataFrame) -> dict[str, Any]:
    """The rule of each case; a list where a case has several events."""
    found: dict[str, Any] = {}
    for row in marked.orderBy("session_id", "event_time").collect():
        found.setdefault(row["session_id"], []).append(row["rule"])
    return {case: values[0] if len(values) == 1 else values for case, values in found.items()}


def test_each_event_rule_marks_its_events_and_no_other(spark):
    start, end = dt.datetime.combine(FIRST_DAY, dt.time()), dt.datetime.combine(DS, dt.time()) + dt.timedelta(days=1)
    tick = dt.timedelta(microseconds=1)
    cases = {
        "good": (event(), None),
        "odd kind": (event(event="hover"), "unknown_event"),
        "no kind": (event(event=None), "unknown_event"),
        "no time": (event(event_time=None), "unknown_event"),
        "no user": (event(user_id=None), "unknown_event"),
        "no item": (event(item_id=None), "unknown_event"),
        "first tick": (event(event_time=start), None),
        "before": (event(event_time=start - tick), "outside_window"),
        "last tick": (event(event_time=end - tick), None),
        "after": (event(event_time=end), "outside_window"),
        "epoch": (event(event_time=dt.datetime(1970, 1, 1)), "outside_window"),
        "shown": (event(event="impression"), "impression"),
        "no query": (event(query=None), "no_query"),
        "longest": (event(query="x" * 200), None),
        "too long": (event(query="x" * 201), "long_query"),
        "megabyte": (event(query="x" * 1_000_000), "long_query"),
        "two at once": (event(query=None, event="hover"), "unknown_event"),
    }
    log = log_of(spark, [row | {"session_id": case} for case, (row, _) in cases.items()])
    marked = log.transform(cleaning.with_event_rules(FIRST_DAY, DS, 200))
    assert rules(marked) == {case: rule for case, (_, rule) in cases.items()}


def test_a_user_is_a_bot_in_the_hours_with_too_many_actions_and_in_no_other(spark):
    noon, evening = dt.datetime.combine(DS, dt.time(12)), dt.datetime.combine(DS, dt.time(20))
    rows = [event(user_id="bot", session_id="bot", event_time=noon + dt.timedelta(minutes=n)) for n in range(6)]
    rows += [event(user_id="bot", session_id="later", event_time=evening)]
    rows += [event(user_id="keen", session_id="keen", event_time=noon + dt.timedelta(minutes=n)) for n in range(5)]
    rows += [event(user_id="looks", session_id="looks", event="impression")] * 9
    marked = log_of(spark, rows).transform(cleaning.with_event_rules(FIRST_DAY, DS, 200))
    found = rules(marked.transform(cleaning.with_bot_rule(marked.transform(cleaning.bot_hours(5)))))
    assert found == {"bot": ["bot"] * 6, "later": None, "keen": [None] * 5, "looks": ["impression"] * 9}


def test_queries_are_normalised_once_and_judged(spark):
    raw = ["Sneakers", " ＳＮＥＡＫＥＲＳ ", "!!!", "joe@example.com", "跑鞋"]
    found = cleaning.normalise_queries(spark.createDataFrame([(text,) for text in raw], "raw string")).collect()
    rows = {row["raw"]: row for row in found}
    assert {text: rows[text]["query"] for text in raw} == dict(
        zip(raw, ["sneakers", "sneakers", "", "", "跑鞋"], strict=True)
    )
    assert rows["!!!"]["query_rule"] == "no_query"
    assert rows["joe@example.com"]["query_rule"] == "personal_data"
    assert rows["Sneakers"]["query_id"] == rows[" ＳＮＥＡＫＥＲＳ "]["query_id"] != rows["跑鞋"]["query_id"]


def in_sessions(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    log = log_of(spark, rows).withColumns({"rule": F.lit(None).cast("string"), "query_id": F.xxhash64("query")})
    return log.transform(cleaning.with_session_rules(2000, {"click": 1, "cart": 2, "order": 3}))


def test_a_short_click_is_a_misclick_unless_a_cart_or_an_order_follows(spark):
    later = dt.datetime.combine(DS, dt.time(12, 1))
    rows = [event(session_id="misclick", dwell_ms=1999)]
    rows += [event(session_id="long enough", dwell_ms=2000), event(session_id="unknown dwell", dwell_ms=None)]
    rows += [event(session_id="bought", dwell_ms=500), event(session_id="bought", event="order", event_time=later)]
    assert rules(in_sessions(spark, rows)) == {
        "misclick": "short_dwell",
        "long enough": None,
        "unknown dwell": None,
        "bought": ["repeat_in_session", None],
    }


def test_title_clicked_twice_in_one_session_counts_once(spark):
    at = [dt.datetime.combine(DS, dt.time(12, n)) for n in range(3)]
    rows = [event(session_id="twice", event_time=at[n]) for n in range(2)]
    rows += [
        event(session_id="short first", event_time=at[0], dwell_ms=10),
        event(session_id="short first", event_time=at[1]),
    ]
    rows += [event(session_id="other item", item_id=f"i{n}", event_time=at[n]) for n in range(2)]
    rows += [event(session_id="other query", query=f"q{n}", event_time=at[n]) for n in range(2)]
    rows += [event(session_id="other user", user_id=f"u{n}", event_time=at[n]) for n in range(2)]
    assert rules(in_sessions(spark, rows)) == {
        "twice": [None, "repeat_in_session"],
        "short first": ["short_dwell", None],
        "other item": [None, None],
        "other query": [None, None],
        "other user": [None, None],
    }


def test_the_strongest_event_of_a_session_gives_the_weight(spark):
    at = [dt.datetime.combine(DS, dt.time(12, n)) for n in range(3)]
    rows = [event(event=kind, event_time=at[n]) for n, kind in enumerate(("click", "order", "cart"))]
    kept = in_sessions(spark, rows).where("rule IS NULL").collect()
    assert [(row["event"], row["weight"]) for row in kept] == [("order", 3)]


@pytest.mark.parametrize(
    ("title", "rule"),
    [
        ("Air Zoom 39", None),
        (None, "unusable_title"),
        ("", "unusable_title"),
        ("★★★", "unusable_title"),
        ("x " * (MAX_TITLE_CHARACTERS // 2), None),
        ("x " * 500_000, "unusable_title"),
    ],
    ids=["good", "null", "empty", "no word", "longest", "megabyte"],
)
def test_a_title_that_nobody_can_read_drops_the_click(spark, title, rule):
    items = spark.createDataFrame([("i1", title)], "item_id string, text string").transform(with_item_group)
    events = log_of(spark, [event("q", "i1", session_id="it"), event("q", "gone", session_id="gone")])
    marked = events.withColumn("rule", F.lit(None).cast("string")).transform(cleaning.with_item_rules(items))
    assert rules(marked) == {"it": rule, "gone": "not_in_catalogue"}


def test_items_with_equal_normalised_titles_are_one_group(spark):
    rows = [("i1", "Air Zoom  39"), ("i2", "AIR ZOOM ３９"), ("i3", "Air Zoom 40")]
    items = spark.createDataFrame(rows, "item_id string, text string").transform(with_item_group).collect()
    groups = {row["item_id"]: row["item_group"] for row in items}
    assert groups["i1"] == groups["i2"] != groups["i3"]


def test_a_query_needs_k_distinct_users_not_k_events(spark):
    rows = [(1, n % 2) for n in range(9)] + [(2, n) for n in range(3)]
    events = spark.createDataFrame(rows, "query_id bigint, user bigint")
    assert [row[0] for row in events.transform(cleaning.popular_queries(3)).collect()] == [2]
