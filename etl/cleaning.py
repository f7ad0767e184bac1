"""The cleaning rules that look at an event, its user's hour and its query: CLICK_LOG events with the first rule violated.

Every step adds to the column ``rule``, which is null for an event that is kept. So each event is counted once and the
counts reconcile by construction. Impressions, which outnumber clicks ten to one, leave before anything is joined.
Sessions and support follow in :mod:`etl.sessions` and :mod:`etl.support`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from etl.contracts import EARLIEST
from etl.pairs_config import PairsConfig
from etl.privacy import COUNTRIES, personal_data
from etl.splits import query_key
from etl.text import Normaliser, normalise

Transform = Callable[[DataFrame], DataFrame]

RULES = {
    "unknown_event": "no event of a known kind with time, user and item",
    "bad_date": "its time is before 2000, or after the day of its partition",
    "outside_window": "its time is before the window or after its end",
    "too_late": "it arrived more days after its own than the watermark allows",
    "bot": "its user acted too often in that hour",
    "scraper": "its user was shown more in that hour than anybody looks at",
    "impression": "shown, not clicked",
    "long_query": "the query is too long",
    "no_query": "the query has no word",
    "personal_data": "the query holds an e-mail address, phone, card or identity number",
    "not_shown": "the query was never shown to anybody, though impressions are logged",
    "short_dwell": "back at once, and neither cart nor order followed: a misclick",
    "fast_return": "on another item at once, dwell being unknown, and neither cart nor order followed: a misclick",
    "repeat_in_session": "the same user, session, query and item; the strongest event is kept",
    "not_in_catalogue": "the item is not in the catalogue of ds",
    "unusable_title": "the item's text is null, has no word or is too long",
    "few_users": "too few distinct users asked the query in the window",
    "diffuse_query": "the query's clicks are spread over too many items to say what any of them is",
    "few_pair_users": "too few distinct users clicked the item for the query",
    "later_click": "it is in the held-out days, and its pair was clicked before them",
}
"""Names in the order in which they apply, and why an event is dropped."""

ACTIONS = ("click", "cart", "order")
EVENT_KINDS = ("impression", *ACTIONS)
_COLUMNS = ("ds", "event_time", "user_id", "session_id", "query", "item_id", "event", "position", "dwell_ms")


def with_event_rules(config: PairsConfig) -> Transform:
    """CLICK_LOG events -> the same with ``rule``, for rules that look at one event only."""

    def transform(events: DataFrame) -> DataFrame:
        incomplete = ~F.col("event").isin(*EVENT_KINDS)
        for name in ("event", "event_time", "user_id", "item_id"):
            incomplete = F.col(name).isNull() | incomplete
        time, query = F.col("event_time"), F.make_valid_utf8("query")
        ahead = time >= F.date_add("ds", 1).cast("timestamp") + F.expr(f"INTERVAL {config.clock_skew_minutes} MINUTES")
        outside = (time < midnight(config.first_day)) | (time >= midnight(config.ds + dt.timedelta(days=1)))
        rule = first_of(
            ("unknown_event", incomplete),
            ("bad_date", (time < F.lit(EARLIEST)) | ahead),
            ("outside_window", outside),
            ("too_late", F.date_diff("ds", time.cast("date")) > config.watermark_days),
            ("impression", F.col("event") == "impression"),
            ("long_query", F.length(query) > config.max_query_characters),
            ("no_query", query.isNull()),
        )
        # Of an impression too, a longer one is not looked at: what is to be found in it takes time by its square.
        readable = F.when(F.length(query) <= config.max_query_characters, query)
        return events.select(*_COLUMNS).withColumns({"query": readable, "rule": rule})

    return transform


def robot_hours(max_actions: int, max_impressions: int) -> Transform:
    """Marked events -> (user, hour, robot): the hours in which a user, by hash, is a bot or a scraper; a short list."""

    def transform(marked: DataFrame) -> DataFrame:
        # A window over the user would pull a bot's million events to one task; this sums on the map side.
        hour = F.date_trunc("hour", "event_time").alias("hour")
        seen = marked.where(acted() | shown()).groupBy(F.xxhash64("user_id").alias("user"), hour)
        counts = seen.agg(F.count_if(acted()).alias("_acts"), F.count_if(shown()).alias("_shown"))
        robot = first_of(("bot", F.col("_acts") > max_actions), ("scraper", F.col("_shown") > max_impressions))
        return counts.select("user", "hour", robot.alias("robot")).where(F.col("robot").isNotNull())

    return transform


def with_robot_rule(robots: DataFrame) -> Transform:
    """Marked events -> the same, all of a user's robot hour marked; ``robots`` as of :func:`robot_hours`.

    What a robot was shown goes too: it would teach the click model, and count as a query that people were shown.
    """

    def transform(marked: DataFrame) -> DataFrame:
        keys = {"user": F.xxhash64("user_id"), "hour": F.date_trunc("hour", "event_time")}
        joined = marked.withColumns(keys).join(F.broadcast(robots), list(keys), how="left")
        by_robot = (acted() | shown()) & F.col("robot").isNotNull()
        rule = F.when(by_robot, F.col("robot")).otherwise(F.col("rule"))
        return joined.withColumn("rule", rule).drop("user", "hour", "robot")

    return transform


def distinct_queries(marked: DataFrame) -> DataFrame:
    """Marked events -> distinct raw queries (raw), whether anybody acted on them (acted) or was shown them (was_shown)."""
    # Says again what the rule says, in a form that reaches the files: where impressions are not wanted, they are not read.
    asked = F.col("query").isNotNull() & (F.col("rule").isNull() | shown())  # an impression's may be null or too long
    seen = marked.where(asked).groupBy(F.col("query").alias("raw"))
    return seen.agg(F.max(F.col("rule").isNull()).alias("acted"), F.max(shown()).alias("was_shown"))


def normalise_queries(
    queries: DataFrame, normaliser: Normaliser = normalise, countries: Sequence[str] = COUNTRIES
) -> DataFrame:
    """Distinct raw queries (raw, acted, was_shown) -> the same with query, query_id, query_group and query_rule.

    ``query`` is empty where a rule is violated. Plain Python sees each distinct query once, so the rules for personal
    data need no second form in Spark; ``countries`` as of :func:`etl.privacy.personal_data`.
    """

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in found:
            columns = zip(*(judge(raw, normaliser, countries) for raw in batch.column(0).to_pylist()), strict=True)
            arrays = [*batch.columns, *(pa.array(values, pa.string()) for values in columns)]
            yield pa.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, "query", "_key", "query_rule"])

    kinds = "raw string, acted boolean, was_shown boolean, query string, _key string, query_rule string"
    mapped = queries.mapInArrow(batches, kinds)
    return mapped.withColumns({"query_id": F.xxhash64("query"), "query_group": F.xxhash64("_key")}).drop("_key")


def with_shown_spellings(queries: DataFrame) -> DataFrame:
    """Queries of :func:`normalise_queries` -> the same, ``was_shown`` if the query was, in whatever spelling."""
    # Those that violate a rule have no text in common.
    same = F.when(F.col("query_rule").isNull(), F.col("query_id")).otherwise(F.xxhash64("raw"))
    return queries.withColumn("was_shown", F.max("was_shown").over(Window.partitionBy(same)))


def with_query_rules(queries: DataFrame, require_shown: bool) -> Transform:
    """Acts -> the same with query, query_id and query_group; ``queries`` as of :func:`normalise_queries`."""
    judged = (queries.transform(with_shown_spellings) if require_shown else queries).where("acted").drop("acted")

    def transform(acts: DataFrame) -> DataFrame:
        joined = acts.withColumnRenamed("query", "raw").join(judged, "raw", how="inner")
        rule = F.coalesce("rule", "query_rule", first_of(("not_shown", F.lit(require_shown) & ~F.col("was_shown"))))
        return joined.withColumn("rule", rule).drop("raw", "query_rule", "was_shown")

    return transform


def count_by_rule(marked: DataFrame) -> dict[tuple[dt.date, str | None], int]:
    """Events by (partition day, rule); the rule None holds those that are kept."""
    return {(row["ds"], row["rule"]): row["count"] for row in marked.groupBy("ds", "rule").count().collect()}


def acted() -> Column:
    """Whether an event is a click, cart or order inside the window, whatever its query."""
    return F.col("event").isin(*ACTIONS) & (F.col("rule").isNull() | F.col("rule").isin("long_query", "no_query"))


def shown() -> Column:
    """Whether an event is an impression inside the window; never null."""
    return F.coalesce(F.col("rule") == "impression", F.lit(False))


def first_of(*rules: tuple[str, Column]) -> Column:
    """The name of the first rule whose condition holds, or null."""
    assert all(name in RULES for name, _ in rules)
    return F.coalesce(*(F.when(condition, F.lit(name)) for name, condition in rules))


def midnight(day: dt.date) -> Column:
    """The beginning of a day, UTC."""
    return F.lit(dt.datetime.combine(day, dt.time(), dt.UTC))


def judge(raw: str, normaliser: Normaliser, countries: Sequence[str]) -> tuple[str, str, str | None]:
    """Normalised query, key of its group, and the rule that it violates; the first two empty if there is one."""
    query = normaliser.normal_form(raw)
    if not query:
        return "", "", "no_query"
    return ("", "", "personal_data") if personal_data(query, countries) else (query, query_key(query), None)
