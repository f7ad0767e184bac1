from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import cleaning, sessions, support
from etl.catalogue import with_title_id
from etl.contracts import CLICK_LOG, MAX_TITLE_CHARACTERS
from etl.pairs_config import PairsConfig
from tests.rows import DS, event

CONFIG = PairsConfig(root="", ds=DS, window_days=7)
FIRST_DAY = CONFIG.first_day
QUERIES = "raw string, acted boolean, was_shown boolean"


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


@pytest.mark.fault("clocks")
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
        "no session": (event(session_id=None), None),
        "first tick": (event(event_time=start, ds=FIRST_DAY), None),
        "before": (event(event_time=start - tick, ds=FIRST_DAY), "outside_window"),
        "last tick": (event(event_time=end - tick), None),
        "after": (event(event_time=end), "outside_window"),
        "clock ahead": (event(event_time=end + dt.timedelta(hours=1)), "bad_date"),
        "ahead of its day": (
            event(ds=DS - dt.timedelta(days=1), event_time=start + dt.timedelta(days=6, hours=2)),
            "bad_date",
        ),
        "in ten years": (event(event_time=dt.datetime(2034, 5, 7)), "bad_date"),
        "epoch": (event(event_time=dt.datetime(1970, 1, 1)), "bad_date"),
        "late": (event(event_time=start + dt.timedelta(days=3)), None),
        "too late": (event(event_time=start + dt.timedelta(days=3) - tick), "too_late"),
        "shown": (event(event="impression"), "impression"),
        "no query": (event(query=None), "no_query"),
        "longest": (event(query="x" * 200), None),
        "too long": (event(query="x" * 201), "long_query"),
        "megabyte": (event(query="x" * 1_000_000), "long_query"),
        "two at once": (event(query=None, event="hover"), "unknown_event"),
    }
    log = log_of(spark, [row | {"item_id": case} for case, (row, _) in cases.items() if case != "no item"])
    marked = log.transform(cleaning.with_event_rules(CONFIG)).withColumn("session_id", F.col("item_id"))
    assert rules(marked) == {case: rule for case, (_, rule) in cases.items() if case != "no item"}
    nameless = log_of(spark, [cases["no item"][0]]).transform(cleaning.with_event_rules(CONFIG))
    assert nameless.head()["rule"] == "unknown_event"


def test_a_user_is_a_bot_in_the_hours_with_too_many_actions_and_in_no_other(spark):
    noon, evening = dt.datetime.combine(DS, dt.time(12)), dt.datetime.combine(DS, dt.time(20))
    rows = [event(user_id="bot", session_id="bot", event_time=noon + dt.timedelta(minutes=n)) for n in range(6)]
    rows += [event(user_id="bot", session_id="later", event_time=evening)]
    rows += [event(user_id="keen", session_id="keen", event_time=noon + dt.timedelta(minutes=n)) for n in range(5)]
    rows += [event(user_id="looks", session_id="looks", event="impression")] * 9
    rows += [event(user_id="bot", session_id="seen by the bot", event="impression")]
    marked = log_of(spark, rows).transform(cleaning.with_event_rules(CONFIG))
    found = rules(marked.transform(cleaning.with_robot_rule(marked.transform(cleaning.robot_hours(5, 100)))))
    assert found == {
        "bot": ["bot"] * 6,
        "later": None,
        "keen": [None] * 5,
        "looks": ["impression"] * 9,
        "seen by the bot": "bot",
    }


def test_a_user_who_is_shown_more_than_anybody_looks_at_is_a_scraper_in_that_hour(spark):
    noon = dt.datetime.combine(DS, dt.time(12))
    rows = [event(user_id="robot", session_id="pages", event="impression", event_time=noon)] * 7
    rows += [event(user_id="robot", session_id="click"), event(user_id="u2", session_id="pages2", event="impression")]
    rows += [
        event(user_id="u2", session_id="person"),
        event(user_id="robot", session_id="next", event_time=noon + dt.timedelta(hours=1)),
    ]
    marked = log_of(spark, rows).transform(cleaning.with_event_rules(CONFIG))
    found = rules(marked.transform(cleaning.with_robot_rule(marked.transform(cleaning.robot_hours(60, 6)))))
    assert (found["click"], found["person"], found["next"]) == ("scraper", None, None)
    assert (found["pages"], found["pages2"]) == (["scraper"] * 7, "impression")


def test_what_only_a_robot_was_shown_counts_as_shown_to_nobody(spark):
    rows = [event("mug", user_id="robot", event="impression", session_id="pages")] * 7
    rows += [event("mug", session_id="click")]
    marked = log_of(spark, rows).transform(cleaning.with_event_rules(CONFIG))
    marked = marked.transform(cleaning.with_robot_rule(marked.transform(cleaning.robot_hours(60, 6))))
    assert cleaning.distinct_queries(marked).collect() == [("mug", True, False)]


def test_queries_are_normalised_once_and_judged(spark):
    raw = ["Sneakers", " ＳＮＥＡＫＥＲＳ ", "!!!", "joe@example.com", "跑鞋"]
    frame = spark.createDataFrame([(text, True, True) for text in raw], QUERIES)
    found = cleaning.normalise_queries(frame).collect()
    rows = {row["raw"]: row for row in found}
    assert {text: rows[text]["query"] for text in raw} == dict(
        zip(raw, ["sneakers", "sneakers", "", "", "跑鞋"], strict=True)
    )
    assert rows["!!!"]["query_rule"] == "no_query"
    assert rows["joe@example.com"]["query_rule"] == "personal_data"
    assert rows["Sneakers"]["query_id"] == rows[" ＳＮＥＡＫＥＲＳ "]["query_id"] != rows["跑鞋"]["query_id"]


def test_queries_that_differ_in_word_order_or_plural_share_their_group_and_no_others(spark):
    raw = ["red shoes", "Shoe, red", "red shoe laces", "红色跑鞋", "跑鞋 红色", "红色跑步鞋"]
    frame = spark.createDataFrame([(text, True, True) for text in raw], QUERIES)
    groups = {row["raw"]: row["query_group"] for row in cleaning.normalise_queries(frame).collect()}
    assert groups["red shoes"] == groups["Shoe, red"] != groups["red shoe laces"]
    assert groups["红色跑鞋"] == groups["跑鞋 红色"] != groups["红色跑步鞋"]


def test_an_impression_without_query_or_with_a_pasted_one_shows_none(spark):
    rows = [event(event="impression", query=query) for query in (None, "", "x" * 201)] + [event(query="sneaker")]
    marked = log_of(spark, rows).transform(cleaning.with_event_rules(CONFIG))
    queries = marked.transform(cleaning.distinct_queries).transform(cleaning.normalise_queries).orderBy("raw").collect()
    assert [(row["raw"], row["query_rule"]) for row in queries] == [("", "no_query"), ("sneaker", None)]


@pytest.mark.parametrize(("required", "rule"), [(True, "not_shown"), (False, None)])
def test_an_act_on_a_query_that_nobody_was_shown_is_dropped_where_impressions_are_logged(spark, required, rule):
    rows = [event("mug", event="impression", session_id="page"), event("mug", session_id="shown")]
    rows += [event("Mug ", session_id="in another spelling"), event("made up", session_id="invented")]
    rows += [event("!!!", event="impression", session_id="page"), event("joe@example.com", session_id="no text")]
    marked = log_of(spark, rows).transform(cleaning.with_event_rules(CONFIG))
    queries = cleaning.normalise_queries(cleaning.distinct_queries(marked))
    acts = marked.where("rule IS NULL").transform(cleaning.with_query_rules(queries, required))
    expected = {"shown": None, "in another spelling": None, "invented": rule, "no text": "personal_data"}
    assert rules(acts) == expected


def in_sessions(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    """Marked acts; ``session_id`` stays beside its hash, as the name of the case."""
    log = log_of(spark, rows).withColumns({"rule": F.lit(None).cast("string"), "query_id": F.xxhash64("query")})
    marked = log.withColumn("case", F.col("session_id")).transform(sessions.with_visits(CONFIG.session_gap_minutes))
    return marked.transform(sessions.with_session_rules(CONFIG)).withColumnRenamed("case", "session_id")


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


def test_where_dwell_is_not_logged_a_click_with_another_item_at_once_is_a_misclick(spark):
    noon = dt.datetime.combine(DS, dt.time(12))

    def click(case: str, second: float, item_id: str, **changes: Any) -> dict[str, Any]:
        at = noon + dt.timedelta(seconds=second)
        return event(item_id=item_id, session_id=case, event_time=at, **{"dwell_ms": None} | changes)

    rows = [click("elsewhere", 0, "i1"), click("elsewhere", 1.9, "i2")]
    rows += [click("slowly", 0, "i1"), click("slowly", 2, "i2")]
    rows += [click("same item", 0, "i1"), click("same item", 1, "i1")]
    rows += [click("dwell known", 0, "i1", dwell_ms=5_000), click("dwell known", 1, "i2")]
    rows += [click("bought", 0, "i1"), click("bought", 1, "i2"), click("bought", 9, "i1", event="order")]
    assert rules(in_sessions(spark, rows)) == {
        "elsewhere": ["fast_return", None],
        "slowly": [None, None],
        "same item": [None, "repeat_in_session"],
        "dwell known": [None, None],
        "bought": ["repeat_in_session", None, None],
    }


@pytest.mark.parametrize("session", ["one long session", None])
def test_half_an_hour_without_an_act_ends_a_session_also_where_the_log_knows_none(spark, session):
    minutes = [0, 20, 50, 81]  # the last comes 31 minutes after the third
    rows = [
        event(session_id=session, event_time=dt.datetime.combine(DS, dt.time(12)) + dt.timedelta(minutes=m)) for m in minutes
    ]
    found = in_sessions(spark, rows).orderBy("event_time").collect()
    assert [row["rule"] for row in found] == [None, "repeat_in_session", "repeat_in_session", None]


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
    items = spark.createDataFrame([("i1", title)], "item_id string, text string").transform(with_title_id)
    events = log_of(spark, [event("q", "i1", session_id="it"), event("q", "gone", session_id="gone")])
    marked = events.withColumn("rule", F.lit(None).cast("string")).transform(support.with_item_rules(items))
    assert rules(marked) == {"it": rule, "gone": "not_in_catalogue"}


def test_items_with_equal_normalised_titles_share_their_id(spark):
    rows = [("i1", "Air Zoom  39"), ("i2", "AIR ZOOM ３９"), ("i3", "Air Zoom 40")]
    items = spark.createDataFrame(rows, "item_id string, text string").transform(with_title_id).collect()
    groups = {row["item_id"]: row["title_id"] for row in items}
    assert groups["i1"] == groups["i2"] != groups["i3"]


def supported(spark: SparkSession, rows: list[tuple[str, int, int]], **limits: Any) -> dict[str, str | None]:
    """Rows (query, item, user) -> the rule of each query's acts, which all share it."""
    frame = spark.createDataFrame(rows, "query string, title_id bigint, user bigint")
    kept = frame.withColumns({"query_id": F.xxhash64("query"), "rule": F.lit(None).cast("string")})
    limits = {"min_users": 1, "max_entropy": 0.0} | limits
    found = kept.transform(support.with_query_support(support.query_support(kept), **limits)).collect()
    assert len(found) == len(rows)
    return {row["query"]: row["rule"] for row in found}


def test_a_query_needs_k_distinct_users_not_k_events(spark):
    rows = [("often", 1, n % 2) for n in range(9)] + [("asked", 1, n) for n in range(3)]
    assert supported(spark, rows, min_users=3) == {"often": "few_users", "asked": None}


def test_a_query_whose_clicks_are_spread_over_too_many_items_is_dropped(spark):
    rows = [("gift", item, item) for item in range(9)] + [("mug", item % 2, item) for item in range(9)]
    rows += [("lamp", item, item) for item in range(8)]
    assert supported(spark, rows, max_entropy=3.0) == {"gift": "diffuse_query", "mug": None, "lamp": None}
    assert supported(spark, rows) == {"gift": None, "mug": None, "lamp": None}


def test_a_pair_needs_its_own_distinct_users(spark):
    rows = [(1, "few", 1), (1, "few", 1), (1, "two", 1), (1, "two", 2), (2, "two", 1)]
    frame = spark.createDataFrame(rows, "query_id bigint, item_id string, user bigint")
    found = frame.withColumn("rule", F.lit(None).cast("string")).transform(support.with_pair_support(2)).collect()
    dropped = sorted((row["query_id"], row["item_id"]) for row in found if row["rule"] == "few_pair_users")
    assert (dropped, len(found)) == ([(1, "few"), (1, "few"), (2, "two")], 5)


def test_a_click_in_the_held_out_days_is_dropped_only_if_its_pair_was_clicked_before(spark):
    early, late = DS - dt.timedelta(days=2), DS
    rows = [(1, 10, early), (1, 10, late), (1, 11, late), (1, 12, late), (1, 13, late), (2, 10, late)]
    frame = spark.createDataFrame(rows, "query_group bigint, title_id bigint, day date")
    groups = spark.createDataFrame([(10, 10), (11, 10), (13, 12), (12, 12)], "title_id bigint, item_group bigint")
    kept = frame.withColumn("rule", F.lit(None).cast("string"))
    found = kept.transform(support.with_later_click_rule(DS, groups)).collect()
    assert len(found) == len(rows)
    marked = {(row["query_group"], row["title_id"], row["day"]) for row in found if row["rule"] == "later_click"}
    assert marked == {(1, 10, late), (1, 11, late)}
