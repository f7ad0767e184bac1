"""The last nights by what each left on record in QUALITY, RUNS and LABEL_CHANGES: the headline numbers and their trend."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LABEL_CHANGES, QUALITY, RUNS
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.report.charts import sparkline
from labeling.report.page import Headline, Part
from labeling.sections import Section

NIGHTS = 14
"""That the trend shows: two weeks, so that each day of the week is there twice."""

LABELLING = ("predict", "audit", "publish")
"""Stages that a run of labels goes through."""

CONFIDENCE = ("term_confidence", "category_confidence")
"""Changes of LABEL_CHANGES in which the label itself is the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One day as it was labelled last; None where nothing is on record."""

    ds: dt.date
    run_id: str
    """Empty if no stage of the day says one."""
    bundle: str
    live: bool
    """Whether its publishing made it live."""
    refused: bool
    """Whether the audit refused what is staged; of a day that was published before, what it published stays."""
    items: int | None
    seconds: float
    """Of all its stages."""
    checks: Sequence[Mapping[str, Any]]
    """Rows of QUALITY of that run."""
    changed: int | None
    """Labels that the last commit under this day changed, confidences not counted."""

    @property
    def verdict(self) -> str:
        """The worst that the audit found."""
        if not self.checks:
            return "not audited"
        open_checks = [check for check in self.checks if not check["passed"]]
        return "failed" if any(check["hard"] for check in open_checks) else "warning" if open_checks else "passed"

    def check(self, name: str) -> float | None:
        """Value of a check; None if it was not made, or had nothing to compare with."""
        return next((check["value"] for check in self.checks if check["check"] == name), None)

    def given(self, table: str) -> float | None:
        """Share of the items that have a label of a table."""
        abstention = self.check(f"{table}.abstention")
        return None if abstention is None else 1 - abstention


def last_nights(warehouse: Warehouse, ds: dt.date) -> list[Night]:
    """Of the days up to ``ds`` that some stage worked for the newest NIGHTS, oldest first."""
    runs = local_tables.written(warehouse, RUNS).filter(pl.col("ds") <= ds).sort("finished_at").collect()
    days = sorted(runs.filter(pl.col("stage").is_in(LABELLING))["ds"].unique())[-NIGHTS:]
    recent = pl.col("ds").is_in(days)
    checks = local_tables.written(warehouse, QUALITY).filter(recent).sort("check").collect()
    changes = _changes(local_tables.written(warehouse, LABEL_CHANGES).filter(recent))
    return [_night(day, runs.filter(pl.col("ds") == day), checks, changes.get(day)) for day in days]


def _night(ds: dt.date, runs: pl.DataFrame, checks: pl.DataFrame, changed: int | None) -> Night:
    stages = {row["stage"]: row for row in runs.to_dicts()}
    counts = {stage: json.loads(row["counts"]) for stage, row in stages.items()}
    newest = [stage for stage in stages if stage in LABELLING][-1]
    refused = newest == "audit" and bool(counts["audit"].get("failed"))
    made = stages["audit"] if refused else stages.get("publish") or stages.get("audit") or stages["predict"]
    return Night(
        ds=ds,
        run_id=made["run_id"] or "",
        bundle=stages.get("predict", made)["bundle"] or "",
        live=not refused and bool(counts.get("publish", {}).get("live")),
        refused=refused,
        items=counts.get("predict", {}).get("items"),
        seconds=float(runs["seconds"].sum()),
        checks=checks.filter((pl.col("ds") == ds) & (pl.col("run_id") == made["run_id"])).to_dicts(),
        changed=changed,
    )


def _changes(rows: pl.LazyFrame) -> dict[dt.date, int]:
    """Labels that the last commit of each day changed."""
    last = pl.col("live_version") == pl.col("live_version").max().over("ds")
    counted = rows.filter(last).group_by("ds").agg((~pl.col("what").is_in(CONFIDENCE)).sum()).collect()
    return dict(counted.iter_rows())


# ---------------------------------------------------------------- what the page shows of them


def headlines(nights: Sequence[Night], ds: dt.date, coverage: Mapping[str, float | None]) -> list[Headline]:
    """The numbers that the page starts with.

    Args:
        nights: Of :func:`last_nights`.
        ds: The day of the page.
        coverage: ``items``, ``terms``, ``categories`` of the day as its label tables have them: a number, and two shares.
    """
    earlier = [night for night in nights if night.ds < ds]
    tonight = next((night for night in nights if night.ds == ds), None)

    def number(
        name: str, label: str, read: Callable[[Night], float | None], shown: Callable[[float], str], **known: float | None
    ) -> Headline:
        value = known["value"] if known else None if tonight is None else read(tonight)
        return _headline(name, label, value, [read(night) for night in earlier], shown)

    return [
        number("items", "items labelled", lambda n: n.items, _count, value=coverage["items"]),
        number("with-term", "with a term", lambda n: n.given(ITEM_TERMS.name), _share, value=coverage["terms"]),
        number(
            "with-category", "with a category", lambda n: n.given(ITEM_CATEGORIES.name), _share, value=coverage["categories"]
        ),
        number("changed", "labels changed", lambda n: n.changed, _count),
        number(
            "calibration-error", "calibration error", lambda n: n.check("item_terms.calibration_error"), lambda v: f"{v:.3f}"
        ),
        number("psi", "greatest drift (PSI)", _greatest_psi, lambda v: f"{v:.3f}"),
        number("warnings", "open checks", _open_checks, _count),
        number("minutes", "minutes of work", lambda n: n.seconds / 60, lambda v: f"{v:,.0f}"),
    ]


def _headline(
    name: str, label: str, value: float | None, earlier: Sequence[float | None], shown: Callable[[float], str]
) -> Headline:
    known = [each for each in earlier if each is not None]
    trend = None
    if value is not None and known:
        points = [*known, value]
        trend = sparkline(points, f"{label}, last {len(points)} nights: {', '.join(map(shown, points))}")
    return Headline(
        name=name,
        label=label,
        value=value,
        shown="not known" if value is None else shown(value),
        before=f"before: {shown(known[-1])}" if known else "before: not on record",
        trend=trend,
    )


def nights_part(nights: Sequence[Night]) -> Part:
    """The same numbers as a table, newest first, refused nights among them."""
    if not nights:
        return Part(name="nights", title="Last nights", words=("runs says nothing of this day or of any before it.",))
    rows = [
        (
            str(night.ds), night.verdict, "yes" if night.live else "no", _text(night.items, _count),
            _text(night.given(ITEM_TERMS.name), _share), _text(night.given(ITEM_CATEGORIES.name), _share),
            _text(night.changed, _count), _text(night.check("item_terms.calibration_error"), lambda v: f"{v:.3f}"),
            _text(_greatest_psi(night), lambda v: f"{v:.3f}"), f"{night.seconds / 60:,.0f}", night.bundle,
        )
        for night in reversed(nights)
    ]  # fmt: skip
    columns = (
        "day", "audit", "went live", "items", "with a term", "with a category", "labels changed", "calibration error",
        "PSI", "minutes", "bundle",
    )  # fmt: skip
    words = (f"Up to {NIGHTS} nights as runs and quality have them; - is not on record. Minutes are those of all stages.",)
    return Part(name="nights", title="Last nights", words=words, tables=(Section("Nights, newest first", columns, rows),))


def _greatest_psi(night: Night) -> float | None:
    found = [check["value"] for check in night.checks if check["check"].endswith("_psi")]
    return max((value for value in found if value is not None), default=None)


def _open_checks(night: Night) -> float | None:
    return sum(not check["passed"] for check in night.checks) if night.checks else None


def _text(value: float | None, shown: Callable[[float], str]) -> str:
    return "-" if value is None else shown(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.2%}"
