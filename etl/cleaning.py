"""The cleaning rules: CLICK_LOG events with the first rule that each violates, counted per day.

Every step adds to the column ``rule``, which is null for an event that is kept. So each event is counted once and the
counts reconcile by construction. Impressions, which outnumber clicks ten to one, leave before anything is joined.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from etl.privacy import personal_data
from etl.text import Normaliser, normalise

Transform = Callable[[DataFrame], DataFrame]

RULES = {
    "unknown_event": "no event of a known kind with time, user, session and item",
    "outside_window": "its time is before the window or after its end",
    "impression": "shown, not clicked",
    "bot": "its user acted too often in that hour",
    "long_query": "the query is too long",
    "no_query": "the query has no word",
    "personal_data": "the query holds an e-mail address, phone, card or identity number",
    "short_dwell": "back at once, and neither cart nor order followed: a misclick",
    "repeat_in_session": "the same user, session, query and item; the strongest event is kept",
    "not_in_catalogue": "the item is not in the catalogue of ds",
    "unusable_title": "the item's title is null, has no word or is too long",
    "few_users": "too few distinct users asked the query in the window",
}
"""Names in the order in which they apply, and why an event is dropped."""

ACTIONS = ("click", "cart", "order")
_COLUMNS = ("ds", "event_time", "user_id", "session_id", "query", "item_id", "event", "dwell_ms")


def with_event_rules(first_day: dt.date, ds: dt.date, max_query_characters: int) -> Transform:
    """CLICK_LOG events -> the same with ``rule``, for rules that look at one event only."""

    def transform(events: DataFrame) -> DataFrame:
        incomplete = ~F.col("event").isin("impression", *ACTIONS)
        for name in ("event", "event_time", "user_id", "session_id", "item_id"):
            incomplete = F.col(name).isNull() | incomplete
        end = ds + dt.timedelta(days=1)
        outside = (F.col("event_time") < _midnight(first_day)) | (F.col("event_time") >= _midnight(end))
        query = F.make_valid_utf8("query")
        return events.select(*_COLUMNS).withColumns(
            {
                "query": query,
                "rule": _first(
                    ("unknown_event", incomplete),
                    ("outside_window", outside),
                    ("impression", F.col("event") == "impression"),
                    ("long_query", F.length(query) > max_query_characters),
                    ("no_query", query.isNull()),
                ),
            }
        )

    return transform


def bot_hours(max_actions: int) -> Transform:
    """Marked events -> (user_id, hour) with more than ``max_actions`` clicks, carts and orders; a short list."""

    def transform(marked: DataFrame) -> DataFrame:
        # A window over the user would pull a bot's million events to one task; this sums on the map side.
        acted = marked.where(_acted()).groupBy("user_id", F.date_trunc("hour", "event_time").alias("hour"))
        return acted.count().where(F.col("count") > max_actions).select("user_id", "hour")

    return transform


def with_bot_rule(bots: DataFrame) -> Transform:
    """Marked events -> the same, those of a user's bot hour marked."""

    def transform(marked: DataFrame) -> DataFrame:
        hour = F.date_trunc("hour", "event_time")
        flags = F.broadcast(bots.select("user_id", "hour", F.lit(True).alias("_bot")))
        joined = marked.withColumn("hour", hour).join(flags, ["user_id", "hour"], how="left")
        rule = F.when(_acted() & F.col("_bot"), F.lit("bot")).otherwise(F.col("rule"))
        return joined.withColumn("rule", rule).drop("hour", "_bot")

    return transform


def normalise_queries(queries: DataFrame, normaliser: Normaliser = normalise) -> DataFrame:
    """Distinct raw queries (raw) -> (raw, query, query_id, query_rule); query is empty where a rule is violated.

    Plain Python sees each distinct query once, so the rules for personal data need no second form in Spark.
    """

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in found:
            judged = [_judge(raw, normaliser) for raw in batch.column(0).to_pylist()]
            texts, rules = (pa.array(column, pa.string()) for column in ([j[0] for j in judged], [j[1] for j in judged]))
            yield pa.RecordBatch.from_arrays([batch.column(0), texts, rules], names=["raw", "query", "query_rule"])

    mapped = queries.mapInArrow(batches, "raw string, query string, query_rule string")
    return mapped.withColumn("query_id", F.xxhash64("query"))


def with_query_rules(queries: DataFrame) -> Transform:
    """Kept events -> the same with the normalised query and its id; ``queries`` as of :func:`normalise_queries`."""

    def transform(events: DataFrame) -> DataFrame:
        joined = events.withColumnRenamed("query", "raw").join(queries, "raw", how="inner")
        return joined.withColumn("rule", F.coalesce("rule", "query_rule")).drop("raw", "query_rule")

    return transform


def with_session_rules(min_dwell_ms: int, weights: Mapping[str, int]) -> Transform:
    """Adds ``weight`` and marks misclicks and repeats within (user, session, query, item)."""

    def transform(events: DataFrame) -> DataFrame:
        strength = F.array_position(F.array(*map(F.lit, ACTIONS)), F.col("event"))
        quick = (F.col("event") == "click") & (F.coalesce("dwell_ms", F.lit(min_dwell_ms)) < min_dwell_ms)
        columns = events.withColumns({"_strength": strength, "_quick": quick, "weight": _weight(weights)})
        # Strongest first: where it is a click, nothing followed, and one sort serves both rules.
        visit = Window.partitionBy("user_id", "session_id", "query_id", "item_id", F.col("rule").isNull())
        visit = visit.orderBy(F.desc("_strength"), "_quick", "event_time", "ds")
        strongest, rank = F.first("_strength").over(visit), F.row_number().over(visit)
        rule = _first(("short_dwell", F.col("_quick") & (strongest == 1)), ("repeat_in_session", rank > 1))
        return columns.withColumn("rule", F.coalesce("rule", rule)).drop("_strength", "_quick")

    return transform


def with_item_rules(items: DataFrame) -> Transform:
    """Adds ``item_group``; ``items`` holds (item_id, item_group) of every item in the catalogue, null if unusable."""

    def transform(events: DataFrame) -> DataFrame:
        known = items.select("item_id", "item_group", F.lit(True).alias("_known"))
        joined = events.join(known, "item_id", how="left")
        rule = _first(("not_in_catalogue", F.col("_known").isNull()), ("unusable_title", F.col("item_group").isNull()))
        return joined.withColumn("rule", F.coalesce("rule", rule)).drop("_known")

    return transform


def popular_queries(min_users: int) -> Transform:
    """Kept events -> query_id of the queries that at least ``min_users`` distinct users asked."""

    def transform(events: DataFrame) -> DataFrame:
        users = events.groupBy("query_id").agg(F.count_distinct("user").alias("_users"))
        return users.where(F.col("_users") >= min_users).select("query_id")

    return transform


def count_by_rule(marked: DataFrame) -> dict[tuple[dt.date, str | None], int]:
    """Events by (partition day, rule); the rule None holds those that are kept."""
    return {(row["ds"], row["rule"]): row["count"] for row in marked.groupBy("ds", "rule").count().collect()}


def _judge(raw: str, normaliser: Normaliser) -> tuple[str, str | None]:
    query = normaliser.normal_form(raw)
    if not query:
        return "", "no_query"
    return ("", "personal_data") if personal_data(query) else (query, None)


def _acted() -> Column:
    return F.col("event").isin(*ACTIONS) & (
        F.col("rule").isNull() | ~F.col("rule").isin("unknown_event", "outside_window", "impression")
    )


def _weight(weights: Mapping[str, int]) -> Column:
    pairs = [F.lit(value) for action in ACTIONS for value in (action, weights[action])]
    return F.element_at(F.create_map(*pairs), F.col("event"))


def _first(*rules: tuple[str, Column]) -> Column:
    assert all(name in RULES for name, _ in rules)
    return F.coalesce(*(F.when(condition, F.lit(name)) for name, condition in rules))


def _midnight(day: dt.date) -> Column:
    return F.lit(dt.datetime.combine(day, dt.time(), dt.UTC))
