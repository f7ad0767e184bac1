"""Checks of how much click log a day's pairs were made from: against the window's other days, and the night before's count.

Both stand in ETL_COUNTS, since `labeller pairs` counts every day of its window each night.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import ETL_COUNTS, RUNS
from etl.warehouse import Warehouse, is_delta
from labeling.check import Check

_SHOWN = 3
"""Most days that a finding names."""


@dataclass(frozen=True, slots=True)
class ClickLimits:
    """What may change, as the settings of the audit say it."""

    max_factor: float
    max_recount_change: float
    min_days: int
    min_events: int


@dataclass(frozen=True, slots=True)
class Volume:
    """What one partition of the click log held."""

    events: int
    acts: int
    """Clicks, carts and orders that count for that window and are no robot's."""


Night = Mapping[dt.date, Volume]
"""What the pairs of one night found, by the days of their window."""


def click_checks(spark: SparkSession, warehouse: Warehouse, ds: dt.date, limits: ClickLimits) -> list[Check]:
    """Events and acts of ``ds`` against the median of the window's other days, and earlier days against the last count.

    Without an earlier night the first two only warn: nobody knows yet what is usual.
    """
    nights = counted(spark, warehouse, ds)
    now = nights.get(ds, {})
    last = max((night for night in nights if night < ds), default=None)
    before = {} if last is None else nights[last]
    today, others = now.get(ds, Volume(0, 0)), [volume for day, volume in now.items() if day != ds]
    usual = {
        "events": (today.events, [day.events for day in others]),
        "acts": (today.acts, [day.acts for day in others]),
    }
    checks = [against_median(name, *found, limits, hard=last is not None) for name, found in usual.items()]
    return [*checks, recount(now, before, limits)]


def counted(spark: SparkSession, warehouse: Warehouse, ds: dt.date) -> dict[dt.date, Night]:
    """What the nights up to ``ds`` counted of the days of its window, by night; those that have none are left out.

    A night also counts what belongs to its window in partitions around it: these are no whole days, and not here.
    """
    counts, runs = warehouse.table(ETL_COUNTS), warehouse.table(RUNS)
    if not is_delta(counts) or not is_delta(runs):
        return {}
    made = tables.read(spark, runs, RUNS, stage="pairs").where((F.col("ds") <= F.lit(ds)) & F.col("settings").isNotNull())
    windows = {row["ds"]: json.loads(row["settings"])["window_days"] for row in made.select("ds", "settings").collect()}
    if ds not in windows:
        return {}
    first = ds - dt.timedelta(days=windows[ds] - 1)
    rows = tables.read(spark, counts, ETL_COUNTS).where(
        F.col("ds").between(F.lit(first), F.lit(ds))
        & (F.col("event_day") >= F.lit(first))
        & (F.col("event_day") <= F.col("ds"))
        & ((F.col("step") == 1) | (F.col("rule") == "impression"))
    )
    by_day = rows.groupBy("ds", "event_day").agg(F.max("rows_in").alias("events"), F.min("rows_kept").alias("acts"))
    nights: dict[dt.date, dict[dt.date, Volume]] = {}
    for row in by_day.collect():
        night, day = row["ds"], row["event_day"]
        if night in windows and (night - day).days < windows[night]:
            nights.setdefault(night, {})[day] = Volume(row["events"], row["acts"])
    return dict(nights)


def against_median(name: str, now: int, others: Sequence[int], limits: ClickLimits, *, hard: bool) -> Check:
    """The relative change of today's number against the median of other days, where there are enough of them."""
    check, factor = f"pairs.{name}_against_median", limits.max_factor
    within = f"1/{factor:g} to {factor:g} times what is usual: {name} of the day's click log"
    usual = median(others) if others else 0
    if len(others) < limits.min_days or usual < limits.min_events:
        why = f"no {limits.min_days} other days of {limits.min_events} or more in the window to compare with"
        return Check(check, None, f"{within}; {why}", passed=True, hard=hard)
    expected = f"{within}, now {now}, median of {len(others)} other days of the window {usual:g}"
    return Check(check, round(now / usual - 1, 6), expected, usual / factor <= now <= usual * factor, hard)


def recount(now: Night, before: Night, limits: ClickLimits) -> Check:
    """The largest relative change of an earlier day's events since the night before counted them; a loss goes first.

    A log that is over does not shrink: a part went missing. It may grow, where events come late or a day was mended, so
    that only warns, unless it is by more than the factor.
    """
    name, limit = "pairs.earlier_days_changed", limits.max_recount_change
    within = f"within {limit:.0%}: events of each earlier day of the click log, against the night before's count"
    days = {day: (then.events, now[day].events if day in now else 0) for day, then in before.items()}
    changes = {day: new / old - 1 for day, (old, new) in days.items() if old >= limits.min_events}
    if not changes:
        return Check(name, None, f"{within}; no day of {limits.min_events} or more that both counted", passed=True)
    lost = min(changes.values())
    worst = lost if lost < -limit else max(changes.values(), key=abs)
    beyond = sorted((day for day in changes if abs(changes[day]) > limit), key=lambda day: -abs(changes[day]))
    told = "".join(f"; {day} now {days[day][1]}, then {days[day][0]}" for day in beyond[:_SHOWN])
    hard = worst <= limit or 1 + worst > limits.max_factor
    return Check(name, round(worst, 6), within + told, passed=not beyond, hard=hard)
