"""Clocks: ticks at both ends of the day, an hour that comes twice, a leap second, and events of other times, in one run."""

from __future__ import annotations

import calendar
import datetime as dt
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl import build_pairs
from etl.pairs_config import PairsConfig
from tests.labeling_data import pair, write_pairs
from tests.rows import event, item, small_warehouse

pytestmark = pytest.mark.fault("clocks")

DS = dt.date(2024, 10, 27)
"""The day on which, in Berlin, 02:30 comes at 00:30 and again at 01:30 UTC."""

FIRST = DS - dt.timedelta(days=13)
TICK, DAY = dt.timedelta(microseconds=1), dt.timedelta(days=1)


def at(day: dt.date, hour: int = 0, minute: int = 0) -> dt.datetime:
    """A time UTC."""
    return dt.datetime.combine(day, dt.time(hour, minute), dt.UTC)


def leap_second(day: dt.date) -> dt.datetime:
    """23:59:60, as who counts seconds since 1970 lays it down."""
    seconds = calendar.timegm((day.year, day.month, day.day, 23, 59, 60, 0, 0, 0))
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


KEPT = {
    "first tick": (FIRST, at(FIRST)),
    "last tick": (DS, at(DS + DAY) - TICK),
    "after midnight in berlin": (DS - DAY, at(DS - DAY, 22, 30)),
    "leap second before": (DS - DAY, leap_second(DS - DAY)),
    "clock ahead": (DS - DAY, at(DS, 0, 59)),
    "two days late": (DS, at(DS - 2 * DAY, 12)),
}
DROPPED = {
    "tick before": (FIRST, at(FIRST) - TICK, "outside_window"),
    "tick after": (DS, at(DS + DAY), "outside_window"),
    "leap second": (DS, leap_second(DS), "outside_window"),
    "clock too far ahead": (DS - DAY, at(DS, 1), "bad_date"),
    "in ten years": (DS, at(dt.date(2034, 10, 27)), "bad_date"),
    "in 1970": (DS, at(dt.date(1970, 1, 1)), "bad_date"),
    "a week late": (DS, at(DS - 7 * DAY, 12), "too_late"),
}


class Night(NamedTuple):
    """What one run gave."""

    figures: Mapping[str, Any]
    pairs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def in_berlin() -> Iterator[None]:
    """The driver's clock is that of Berlin."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.fixture(scope="module")
def night(spark: SparkSession, in_berlin: None, tmp_path_factory: pytest.TempPathFactory) -> Night:
    root: Path = tmp_path_factory.mktemp("clocks") / "warehouse"
    root.mkdir()
    cases = {query: (day, when) for query, (day, when, *_) in (KEPT | DROPPED).items()}
    rows = [event(query, ds=day, event_time=when, user_id=query) for query, (day, when) in cases.items()]
    twice = {"ds": DS, "user_id": "twice", "session_id": None}
    rows += [event("hour twice", event_time=at(DS, hour, 30), **twice) for hour in (0, 1)]
    small_warehouse(spark, root, click_log=rows, catalogue=[item(ds=DS)])
    for day in (DS - 7 * DAY, DS - 2 * DAY):
        write_pairs(spark, root, [pair("earlier", "i1", "Air Zoom", ds=day)])
    figures = build_pairs.run(PairsConfig(root=str(root), ds=DS, master="local[2]", min_users=1))
    pairs = pl.read_delta(str(root / "pairs")).filter(pl.col("ds") == DS).to_dicts()
    return Night(figures, {row["query"]: row for row in pairs})


def test_what_lies_in_the_half_open_window_is_kept_as_of_its_own_day_utc(night):
    assert {query: row["first_day"] for query, row in night.pairs.items() if query in KEPT} == {
        "first tick": FIRST,
        "last tick": DS,
        "after midnight in berlin": DS - DAY,
        "leap second before": DS,
        "clock ahead": DS,
        "two days late": DS - 2 * DAY,
    }
    assert night.pairs.keys() == KEPT.keys() | {"hour twice"}


def test_every_other_event_is_counted_under_the_rule_that_says_why(night):
    expected = {rule: 0 for *_, rule in DROPPED.values()}
    for *_, rule in DROPPED.values():
        expected[rule] += 1
    assert {rule: night.figures[rule] for rule in expected} == expected
    assert night.figures["events"] == night.figures["kept"] + len(DROPPED)


def test_an_hour_that_comes_twice_is_two_hours_and_ends_a_visit(night):
    assert night.pairs["hour twice"]["clicks"] == 2


def test_days_that_lack_a_late_event_are_listed_and_those_of_one_that_came_too_late_are_not(night):
    assert (night.figures["late"], night.figures["affected_days"]) == (1, str(DS - 2 * DAY))
    assert night.figures["too_late"] == 1
