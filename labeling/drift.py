"""Checks of a day's staged labels against earlier days of the history: volume, and how terms and scores are distributed."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.contracts import ITEM_TERMS, Table
from labeling.check import Check

TOP_TERMS = 20
"""Most frequent terms of the earlier day that count on their own; the others count together, and so do items without one."""

SCORE_BINS = 10
"""Parts of equally many items of the earlier day, the usual number for PSI."""

_FLOOR = 1e-4
"""Least share of a bin: the logarithm of an empty one would be infinite."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may change, as the settings of the audit say it."""

    volume_days: int
    max_volume_change: float
    max_terms_change: float
    max_psi: float
    min_items: int


def volume_checks(rows: DataFrame, history: DataFrame | None, table: Table, limits: Limits) -> list[Check]:
    """Rows of a label table -> its numbers of items and of rows an item against the median of the last days.

    A median, since the mean of a few days moves with one that was broken itself.

    Args:
        rows: Of the staged day.
        history: Rows of earlier days; None if there is no such table.
        table: ITEM_TERMS or ITEM_CATEGORIES.
        limits: What may change.
    """
    now = volumes(rows)[0][1:]
    before = [] if history is None else volumes(history.where(F.col("ds").isin(newest_days(history, limits.volume_days))))
    checks = [
        _change(
            f"{table.name}.items_against_median", now[0], [day[1] for day in before], limits.max_volume_change,
            "number of items",
        )
    ]  # fmt: skip
    if table is ITEM_TERMS:
        checks.append(
            _change(
                f"{table.name}.rows_per_item_against_median", now[1] / now[0], [day[2] / day[1] for day in before],
                limits.max_terms_change, "rows per item", hard=False,
            )
        )  # fmt: skip
    return checks


def drift_checks(rows: DataFrame, history: DataFrame | None, table: Table, limits: Limits) -> list[Check]:
    """Rows of a label table -> the population stability index of its labels, and of their scores, against the newest day.

    Warnings: a new bundle or vocabulary may well move both, and somebody should know. With B bins chance alone makes
    (B - 1)(1/n + 1/m) of n and m items, so of fewer than ``min_items`` nothing is said.
    """
    if table is ITEM_TERMS:
        label, score, what = "term_id", "score", "best terms"
    else:
        label, score, what = "level_1", "probability", "root categories"
    now = first_of_each(rows, table)
    before = None if history is None else newest(history)
    compared = None if before is None else first_of_each(before, table)
    names = f"{table.name}.labels_psi", f"{table.name}.scores_psi"
    if compared is None or min(compared.count(), now.count()) < limits.min_items:
        why = f"no earlier day with {limits.min_items} items to compare with"
        return [Check(name, None, f"below {limits.max_psi:g}: {why}", passed=True, hard=False) for name in names]
    found = label_shares(compared, now, label), score_shares(compared, now, score)
    told = f"{what}, their shares", f"{score} of {what}, its distribution"
    return [
        _at_most(name, psi(*shares), limits.max_psi, text) for name, shares, text in zip(names, found, told, strict=True)
    ]


def psi(before: Sequence[float], now: Sequence[float]) -> float:
    """Population stability index of two distributions over the same bins: sum of (q - p) ln(q / p).

    By custom below .1 is no change, above .25 a change to look into (Siddiqi, Credit Risk Scorecards, 2006).
    """
    pairs = [(max(p, _FLOOR), max(q, _FLOOR)) for p, q in zip(before, now, strict=True)]
    return sum((q - p) * math.log(q / p) for p, q in pairs)


def volumes(rows: DataFrame) -> list[tuple[dt.date, int, int]]:
    """(day, items, rows) of each day."""
    by_day = rows.groupBy("ds").agg(F.countDistinct("item_id").alias("items"), F.count(F.lit(1)).alias("rows"))
    return [(row["ds"], row["items"], row["rows"]) for row in by_day.orderBy("ds").collect()]


def newest_days(history: DataFrame, most: int) -> list[dt.date]:
    return [row["ds"] for row in history.select("ds").distinct().orderBy(F.desc("ds")).limit(most).collect()]


def newest(history: DataFrame) -> DataFrame | None:
    days = newest_days(history, 1)
    return history.where(F.col("ds") == F.lit(days[0])) if days else None


def first_of_each(rows: DataFrame, table: Table) -> DataFrame:
    """One row an item: its best term or its category."""
    return rows.where("rank <= 1") if table is ITEM_TERMS else rows


def label_shares(before: DataFrame, now: DataFrame, label: str) -> tuple[list[float], list[float]]:
    """Shares of the most frequent labels of ``before``, of the other labels, and of none."""
    counted = [_counts(before.groupBy(label).count()), _counts(now.groupBy(label).count())]
    ranked = sorted((name for name in counted[0] if name is not None), key=lambda name: (-counted[0][name], name))
    top = ranked[:TOP_TERMS]
    return _shares(counted[0], top), _shares(counted[1], top)


def _shares(counts: Mapping[str | None, int], top: Sequence[str]) -> list[float]:
    total = sum(counts.values())
    named = [counts.get(name, 0) for name in top]
    none = counts.get(None, 0)
    return [count / total for count in (*named, none, total - sum(named) - none)]


def score_shares(before: DataFrame, now: DataFrame, score: str) -> tuple[list[float], list[float]]:
    """Shares of the items by the deciles of ``before``; items without one are left out."""
    edges = sorted(set(before.approxQuantile(score, [n / SCORE_BINS for n in range(1, SCORE_BINS)], 1e-3)))
    bin_ = F.size(F.filter(F.array(*map(F.lit, edges)), lambda edge: edge < F.col(score))) if edges else F.lit(0)
    counted = [_counts(frame.where(F.col(score).isNotNull()).groupBy(bin_.alias("bin")).count()) for frame in (before, now)]
    totals = [max(sum(counts.values()), 1) for counts in counted]
    bins = range(len(edges) + 1)
    found = [[counts.get(n, 0) / total for n in bins] for counts, total in zip(counted, totals, strict=True)]
    return found[0], found[1]


def _counts(frame: DataFrame) -> dict[Any, int]:
    return {row[0]: row["count"] for row in frame.collect()}


def _at_most(name: str, found: float, limit: float, what: str) -> Check:
    expected = f"below {limit:g}: population stability index of {what}, against the newest earlier day"
    return Check(name, round(found, 6), expected, passed=found < limit, hard=False)


def _change(name: str, now: float, before: Sequence[float], limit: float, what: str, *, hard: bool = True) -> Check:
    if not before:
        return Check(name, None, f"within {limit:.0%}: {what}; no earlier day to compare with", passed=True, hard=hard)
    usual = median(before)
    change = round(now / usual - 1, 6)
    expected = f"within {limit:.0%}: {what}, now {now:g}, median of {len(before)} earlier days {usual:g}"
    return Check(name, change, expected, abs(change) <= limit, hard)
