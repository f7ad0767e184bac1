"""A small shop of three days whose click log breaks the cleaning rules: at the defaults most, with STRICT every one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from tests.rows import DS, event, item, small_warehouse

NOUNS = ("sneakers", "kettle", "mug", "跑鞋", "水壶", "lamp")
ADJECTIVES = ("red", "blue", "steel", "红色", "mini", "retro", "soft")
PERSONAL = ("joe.secret@example.com", "call 13912345678 now", "4111 1111 1111 1111", "11010519491231002X")
QUERIES = [f"{adjective} {noun}" for noun in NOUNS for adjective in ADJECTIVES]

SPARK_CONF = {"spark.sql.shuffle.partitions": "2"}


def items() -> list[dict[str, Any]]:
    """An item per query whose title holds its noun, three more of one title, and three with bad titles."""
    good = [item(f"i{n}", f"Acme {query.split()[1]} No {n}") for n, query in enumerate(QUERIES)]
    equal = [item(f"same{n}", "Acme  Zoom" if n else "ACME zoom") for n in range(3)]
    return [*good, *equal, item("null", None), item("empty", "  "), item("page", "x " * 500_000)]


def events() -> list[dict[str, Any]]:
    """Twelve users ask each query; the first ten items are bought at times; and something for every rule."""
    rows = []
    for n, query in enumerate(QUERIES):
        for user in range(12):
            day = DS - dt.timedelta(days=user % 3)
            at = {"ds": day, "event_time": dt.datetime.combine(day, dt.time(user, n))}
            who = {"user_id": f"u{user}", "session_id": f"s{user}-{n}"}
            rows.append(event(query.title() if user % 2 else query, f"i{n}", **who, **at))
            if n < 10:
                rows.append(event(query, f"same{user % 3}", event="order", **who, **at))
    return rows + dropped()


STRICT = {
    "require_impressions": "always",
    "max_impressions_per_hour": 100,
    "max_query_entropy": 4.0,
    "min_pair_users": 2,
    "test_days": 1,
}
"""Settings with which each rule drops something of :func:`strict_events`."""


def strict_events() -> list[dict[str, Any]]:
    """The log with impressions, a query that nobody was shown, a scraper, a diffuse query, and pairs first clicked on DS."""
    noon, night = dt.datetime.combine(DS, dt.time(12)), dt.datetime.combine(DS, dt.time(23))
    shown = sorted({row["query"] for row in events() if row["query"] and row["event"] != "impression"})
    plural = " ".join(reversed(QUERIES[0].split()))
    rows = [event(query, "i2", event="impression", user_id=f"v{n}") for n, query in enumerate([*shown, "gift", plural])]
    rows += [event("mug", "i2", event="impression", user_id="scraper", event_time=noon)] * 101
    rows += [event("mug", "i2", user_id="scraper", event_time=noon), event(QUERIES[0], "i5", user_id="u3", session_id="one")]
    rows += [event("never shown", "i2", user_id=f"u{n}") for n in range(12)]
    rows += [event("gift", f"i{n}", user_id=f"u{n % 12}", session_id=f"gift{n}") for n in range(32)]
    hasty = {"user_id": "hasty", "session_id": "hasty"}
    rows.append(event(QUERIES[0], "i0", dwell_ms=None, event_time=night, **hasty))
    rows.append(event(QUERIES[0], "i1", event_time=night + dt.timedelta(seconds=1), **hasty))
    for n in range(12):
        rows.append(event(plural, "i0", user_id=f"w{n}", session_id=f"plural{n}", event_time=night))
        rows.append(event(QUERIES[0], "i7", user_id=f"w{n}", session_id=f"new{n}", event_time=night))
    return events() + rows


def dropped() -> list[dict[str, Any]]:
    """Events of which none may be kept."""
    noon = dt.datetime.combine(DS, dt.time(12))
    rows = [
        event("mug", "i2", event="hover"),
        event("mug", "i2", event_time=dt.datetime(1970, 1, 1)),
        event("mug", "i2", event_time=noon + dt.timedelta(days=1)),
        event("mug", "i2", event_time=noon - dt.timedelta(days=3), ds=DS - dt.timedelta(days=2)),
        event("mug", "i2", event_time=noon - dt.timedelta(days=2)),
        event("mug", "i2", event="impression", user_id="u1"),
        event("y" * 201, "i2"),
        event(None, "i2"),
        event("?!", "i2"),
        event(QUERIES[0], "i0", dwell_ms=100, user_id="quick"),
        event(QUERIES[0], "i0", user_id="u0", session_id="s0-0", event_time=dt.datetime.combine(DS, dt.time(0, 20))),
        event(QUERIES[0], "gone", user_id="u1"),
        *(event(QUERIES[0], bad, user_id="u1") for bad in ("null", "empty", "page")),
        event("asked by two", "i1", user_id="u1"),
        event("asked by two", "i1", user_id="u2"),
    ]
    rows += [event(query, "i1", user_id=f"p{n}", session_id=f"p{n}") for query in PERSONAL for n in range(12)]
    rows += [event("mug", "i2", user_id="bot", event_time=noon + dt.timedelta(seconds=n)) for n in range(70)]
    rows += [event("mug", "i2", user_id=f"old{n}", ds=DS - dt.timedelta(days=3)) for n in range(12)]
    return rows


def lay_down_shop(spark: SparkSession, root: Path) -> None:
    """Write it as a warehouse."""
    root.mkdir(parents=True, exist_ok=True)
    small_warehouse(spark, root, click_log=events(), catalogue=items())
