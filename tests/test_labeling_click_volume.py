"""How much click log a day's pairs were made from, against other days and against the night before."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from etl import build_pairs
from etl.pairs_config import PairsConfig
from etl.warehouse import Warehouse
from labeling.check import Check
from labeling.click_volume import ClickLimits, Volume, against_median, click_checks, recount
from tests.rows import DS, event, small_warehouse

pytestmark = pytest.mark.fault("volume")

LIMITS = ClickLimits(max_factor=3.0, max_recount_change=0.1, min_days=3, min_events=30)
WEEK = [100, 110, 90, 50, 105]
YESTERDAY = DS - dt.timedelta(days=1)


def found(now: int, others: Sequence[int] = WEEK) -> tuple[float | None, bool]:
    check = against_median("events", now, others, LIMITS, hard=True)
    return check.value, check.passed


def counted(*events: int) -> dict[dt.date, Volume]:
    """What a night counted of the days before DS, the newest first."""
    return {DS - dt.timedelta(days=n): Volume(number, number) for n, number in enumerate(events, 1)}


def changed(then: Mapping[dt.date, Volume], now: Mapping[dt.date, Volume]) -> tuple[float | None, bool, bool]:
    check = recount(now, then, LIMITS)
    return check.value, check.passed, check.hard


def test_a_weekend_or_a_double_day_passes_and_a_twentieth_or_twenty_times_do_not():
    assert [found(number) for number in (34, 200, 300)] == [(-0.66, True), (1.0, True), (2.0, True)]
    assert [found(number) for number in (0, 5, 33, 301, 2_000)] == [
        (-1.0, False), (-0.95, False), (-0.67, False), (2.01, False), (19.0, False)]  # fmt: skip


@pytest.mark.parametrize("others", [[], [100, 100], [29, 29, 29]], ids=["no day", "two days", "few events"])
def test_of_too_few_days_or_events_nothing_is_said(others):
    assert found(1, others) == (None, True)


def test_a_refusal_has_both_figures_and_the_number_of_days():
    expected = against_median("acts", 5, WEEK, LIMITS, hard=True).expected
    assert expected == (
        "1/3 to 3 times what is usual: acts of the day's click log, now 5, median of 5 other days of the window 100"
    )


def test_days_that_both_nights_counted_alike_pass():
    assert changed(counted(100, 50, 29), counted(100, 52, 1)) == (0.04, True, True)
    assert changed({}, counted(100)) == (None, True, True)
    assert changed(counted(29), {}) == (None, True, True)


def test_a_day_that_lost_a_part_stops_the_run_also_beside_one_that_grew_by_more():
    assert changed(counted(100, 100), counted(75, 200)) == (-0.25, False, True)
    assert changed(counted(100), {}) == (-1.0, False, True)
    assert f"{YESTERDAY} now 75, then 100" in recount(counted(75), counted(100), LIMITS).expected


def test_a_day_that_was_mended_warns_and_one_that_was_replayed_stops_the_run():
    assert changed(counted(100), counted(200)) == (1.0, False, False)
    assert changed(counted(100), counted(2_000)) == (19.0, False, True)


@pytest.fixture(scope="module")
def counts(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Check]]:
    """Checks of a first night, and of the next one, when half of a day before is gone and most of the day itself."""
    root = tmp_path_factory.mktemp("volume") / "warehouse"
    root.mkdir()
    days = {DS - dt.timedelta(days=n): number for n, number in enumerate((4, 40, 40, 40, 40))}
    rows = [
        event(ds=day, event_time=dt.datetime.combine(day, dt.time(12)), user_id=f"u{n}", session_id=f"s{n}", event=kind)
        for day, number in days.items()
        for n in range(number)
        for kind in ("click", "impression")
    ]
    catalogue = [{"ds": day, "item_id": "i1", "title": "Air Zoom", "updated_at": dt.datetime(2024, 5, 1)} for day in days]
    small_warehouse(spark, root, click_log=rows, catalogue=catalogue)

    def night(ds: dt.date) -> list[Check]:
        build_pairs.run(PairsConfig(root=str(root), ds=ds, master="local[2]", window_days=4))
        return click_checks(spark, Warehouse.at(str(root)), ds, LIMITS)

    first = night(YESTERDAY)
    halve(root / "click_log" / f"ds={DS - dt.timedelta(days=2)}")
    return {"first": first, "second": night(DS)}


def halve(day: Path) -> None:
    """The first of two parts of a day is all that is left."""
    (file,) = day.glob("*.parquet")
    rows = pq.read_table(file, partitioning=None)
    file.unlink()
    pq.write_table(rows.slice(0, rows.num_rows // 2), day / "part-00000.parquet")


def test_on_a_first_night_the_days_of_the_log_only_warn(counts):
    checks = {check.name: (check.value, check.passed, check.hard) for check in counts["first"]}
    assert checks == {
        "pairs.events_against_median": (0.0, True, False),
        "pairs.acts_against_median": (0.0, True, False),
        "pairs.earlier_days_changed": (None, True, True),
    }


def test_a_short_day_and_a_part_that_went_missing_are_found_in_what_two_nights_counted(counts):
    checks = {check.name: (check.value, check.passed, check.hard) for check in counts["second"]}
    assert checks == {
        "pairs.events_against_median": (-0.9, False, True),
        "pairs.acts_against_median": (-0.9, False, True),
        "pairs.earlier_days_changed": (-0.5, False, True),
    }
