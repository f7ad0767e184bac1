"""Gathers the parts of the nightly report's page from the tables, in the order in which a person asks for them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import polars as pl

from etl.config import JobConfig
from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, Table
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.day_labels import Labels
from labeling.report.changes import churn_part, day_labels, movers_part
from labeling.report.charts import Picture
from labeling.report.checks import drift_part, gates_part, judged_checks, promotion_words
from labeling.report.clicks import calibration_part
from labeling.report.labels import coverage_part, samples_part
from labeling.report.lineage import lineage_part
from labeling.report.nights import Night, headlines, nights_part
from labeling.report.page import Page, Part
from labeling.report.summary import Report, categories, places, retrieval, terms
from labeling.report.training import training_part


def nightly_page(
    warehouse: Warehouse, config: JobConfig, labels: Labels, report: Report, nights: Sequence[Night], risk: bytes | None
) -> Page:
    """The page of a day that was published, or is staged only.

    Args:
        warehouse: Where the tables are.
        config: The day, and what the warehouse declares absent.
        labels: Of the day.
        report: What `labeller report` measured of it.
        nights: Of :func:`labeling.report.nights.last_nights`.
        risk: The drawn risk curve of the categories, PNG; None where there is no truth.
    """
    ds, bundle = config.ds, labels.lineage["bundle"]
    halves = {ITEM_TERMS: "vocabulary", ITEM_CATEGORIES: "taxonomy"}
    present = [table for table, half in halves.items() if half not in config.absent]
    now = {table: day_labels(warehouse, table, ds, staged=labels.staged) for table in present}
    terms_now = local_tables.written(warehouse, ITEM_TERMS, staged=labels.staged).filter(pl.col("ds") == ds)
    vocabulary = local_tables.vocabulary(warehouse) if ITEM_TERMS in now else None
    tonight = next((night for night in nights if night.ds == ds), None)
    return Page(
        ds=ds.isoformat(),
        verdict=tonight.verdict if tonight else "not audited",
        summary=_summary(tonight, labels),
        headlines=headlines(nights, ds, _coverage(now)),
        parts=[
            gates_part(tonight, judged_checks(warehouse, tonight), promotion_words(warehouse, bundle)),
            coverage_part(now, labels.reasons),
            drift_part(nights, tonight),
            churn_part(warehouse, ds, now),
            movers_part(warehouse, ds, now),
            calibration_part(warehouse, ds, bundle, vocabulary, terms_now),
            samples_part(now, labels.titles),
            _truth_part(report, risk),
            training_part(warehouse, bundle, list(retrieval(report))),
            nights_part(nights),
            lineage_part(warehouse, ds, labels.lineage, [places(report)]),
        ],
    )


def _summary(tonight: Night | None, labels: Labels) -> str:
    if labels.staged:
        live = "it is staged only, and what was live before stays live"
    elif tonight is None:
        live = "runs does not say whether it went live"
    else:
        live = "it went live" if tonight.live else "it is in the history only"
    return f"Run {labels.lineage['run_id']} with bundle {labels.lineage['bundle']}; {live}."


def _coverage(now: Mapping[Table, pl.DataFrame]) -> dict[str, float | None]:
    def share(table: Table) -> float | None:
        labels = now.get(table)
        return None if labels is None or labels.is_empty() else 1 - labels["label"].null_count() / labels.height

    return {"items": max(map(len, now.values())), "terms": share(ITEM_TERMS), "categories": share(ITEM_CATEGORIES)}


def _truth_part(report: Report, risk: bytes | None) -> Part:
    """Figures on items whose truth is known, and the curve of what abstaining buys."""
    pictures = []
    if risk is not None:
        src = f"data:image/png;base64,{base64.b64encode(risk).decode()}"
        caption = "Share of wrong category paths by the share of items that are answered, most probable first"
        pictures.append(Picture(src, f"{caption}; the table below has its values at 50, 80 and 100%.", caption))
    return Part(name="quality", title="Against the truth", pictures=pictures, tables=[*terms(report), *categories(report)])
