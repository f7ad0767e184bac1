"""What the report says of the gates: the audit's checks, drift, what people judged, and the promotion of the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from etl.contracts import QUALITY
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.report.charts import lines
from labeling.report.nights import Night
from labeling.report.page import Part
from labeling.sections import Section
from model.bundle import CANDIDATE, CHAMPION, alias

DRIFT = ("_psi", "_against_median", "_against_yesterday")
"""How checks that compare with earlier nights end; the last is that of earlier versions."""

COLUMNS = ("check", "result", "gate", "found", "expected")

REVIEWED = ".review"
"""Behind a run's id in QUALITY: what people found who judged its sample."""


def gates_part(night: Night | None, judged: Sequence[Mapping[str, Any]], promotion: Sequence[str]) -> Part:
    """Each check of the audit with its result, those that did not pass first; then people's judgement and the promotion."""
    words = list(promotion)
    tables = []
    if night is None or not night.checks:
        words.insert(0, "quality has no audit of this run.")
    else:
        ranked = sorted(night.checks, key=lambda check: (check["passed"], not check["hard"], check["check"]))
        tables.append(Section(f"{len(ranked)} checks of run {night.run_id}", COLUMNS, list(map(_row, ranked))))
    if judged:
        tables.append(Section("Judged by people", COLUMNS, list(map(_row, judged))))
    else:
        words.append("Nobody has judged the sample of this run yet (`labeller review`).")
    return Part(name="gates", title="Gates", words=words, tables=tables)


def drift_part(nights: Sequence[Night], night: Night | None) -> Part:
    """Checks against earlier nights, and the stability indices of the last nights."""
    found = [check for check in (night.checks if night else ()) if check["check"].endswith(DRIFT)]
    title = "Drift"
    if not found:
        return Part(name="drift", title=title, words=("The audit of this day compared nothing with earlier nights.",))
    words = []
    if all(check["value"] is None for check in found):
        words.append("Nothing to compare with yet: this is the first night, or the earlier one is too small.")
    words.append(
        "The population stability index compares the shares of terms, categories and scores with the newest earlier day: "
        "below 0.1 nothing has changed, from 0.25 on somebody should look."
    )
    names = sorted({check["check"] for each in nights for check in each.checks if check["check"].endswith("_psi")})
    curves = {name.removesuffix("_psi"): _over_nights(nights, name) for name in names}
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    pictures = []
    if curves:
        alt = "; ".join(f"{name}: {', '.join(f'{value:.3f}' for _, value in points)}" for name, points in curves.items())
        caption = "Stability index of the last nights, 0 is this one"
        pictures.append(lines(curves, ("night", "PSI"), f"{caption}. {alt}", caption))
    tables = [Section("Against earlier nights", COLUMNS, list(map(_row, found)))]
    return Part(name="drift", title=title, words=words, pictures=pictures, tables=tables)


def judged_checks(warehouse: Warehouse, night: Night | None) -> list[dict[str, Any]]:
    """Rows of QUALITY that `labeller review` wrote of the night's run."""
    if night is None:
        return []
    of_run = (pl.col("ds") == night.ds) & (pl.col("run_id") == f"{night.run_id}{REVIEWED}")
    return local_tables.written(warehouse, QUALITY).filter(of_run).sort("check").collect().to_dicts()


def promotion_words(warehouse: Warehouse, bundle: str) -> list[str]:
    """How the bundle that labelled became champion, and whether a younger one was refused."""
    live, newest = alias(warehouse, CHAMPION) or {}, alias(warehouse, CANDIDATE) or {}
    words = []
    if live.get("bundle") == bundle and "compared" in live:
        words.append(f"Promotion gate: passed. Bundle {bundle} beside its predecessor: {_compared(live['compared'])}.")
    elif live.get("bundle") == bundle:
        words.append(f"Promotion gate: passed. Bundle {bundle} is the champion, and had none to be compared with.")
    else:
        words.append(f"Bundle {bundle} labelled this day; the champion is {live.get('bundle', 'none')} now.")
    if newest.get("refused"):
        words.append(f"Promotion gate: failed for candidate {newest['bundle']}: {'; '.join(newest['refused'])}.")
    return words


def _compared(found: Mapping[str, Any]) -> str:
    sure = "" if found["low"] is None else f" (95% interval {found['low']:+.4f} to {found['high']:+.4f})"
    return (
        f"recall@10 differs by {found['mean']:+.4f}{sure} on the same {found['queries']} held-out queries from the "
        f"{found['champion']:.4f} of {found['bundle']}"
    )


def _over_nights(nights: Sequence[Night], check: str) -> list[tuple[float, float]]:
    found = [(n - len(nights) + 1, night.check(check)) for n, night in enumerate(nights)]
    return [(float(n), value) for n, value in found if value is not None]


def _row(check: Mapping[str, Any]) -> tuple[str, ...]:
    result = "passed" if check["passed"] else "failed" if check["hard"] else "warning"
    value = "-" if check["value"] is None else f"{check['value']:.6g}"
    return check["check"], result, "stops the run" if check["hard"] else "warns", value, check["expected"]
