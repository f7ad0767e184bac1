"""Says where everything of a day lies, shows ten labelled items, and measures the labels beside simple baselines.

Terms are measured by hit@1 and categories by accuracy at each level, hierarchical F1 and risk by coverage, on every item
whose truth is known (`truth/`, in generated and adapted warehouses only) and on those whose title lacks its term. Starts no
Spark. Also written to `reports/ds=…/report.json` and `report.md`; the curve is `categories_risk.png`. `report.html` is for
people: the same, and trend, gates, drift, what changed and why, calibration, samples, training, lineage. Of a day that the
audit refused, or that was not published, it shows what is staged.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar

import polars as pl
from pydantic import Field

from etl import config as settings
from etl.config import JobConfig
from etl.contracts import PAIRS
from etl.durable import read_json, write, write_json
from etl.job import run_job
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.day_labels import Labels, examples, read_labels
from labeling.figures import CategoryFigures, TermFigures, category_figures, term_figures
from labeling.report.nights import last_nights
from labeling.report.page import write_page
from labeling.report.parts import nightly_page
from labeling.report.summary import Report, report_sections
from labeling.sections import markdown, show
from labeling.selective import draw
from labeling.tables import survey
from labeling.terminal import console
from labeling.truth import Truth, load_truth
from model.bundle import MANIFEST_FILE, METRICS_FILE

PAGE_FILE = "report.html"


class ReportConfig(JobConfig):
    """What to report on."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "report")

    items: Annotated[int, Field(ge=0, le=1_000)] = 10
    """Labelled items to show; half of them have titles that lack their term."""


def run(config: ReportConfig) -> dict[str, Any]:
    """Gather, print and write the report of a day."""
    warehouse = Warehouse.of(config)
    nights = last_nights(warehouse, config.ds)
    refused = any(night.ds == config.ds and night.refused for night in nights)
    labels = read_labels(warehouse, config, refused=refused)
    truth = load_truth(warehouse)
    terms, categories = measure(warehouse, config, labels, truth)
    report = Report(
        root=str(warehouse.root),
        files=str(warehouse.files),
        ds=config.ds.isoformat(),
        lineage=labels.lineage,
        tables=list(survey(warehouse)),
        retrieval=bundle_metrics(warehouse, labels.lineage["bundle"]),
        trained=trained_on(warehouse, labels.lineage["bundle"]),
        coverage={"items": len(labels.titles), "with a term": len(labels.terms), "with a category": labels.with_category},
        reasons=labels.reasons,
        terms=terms,
        categories=categories,
        oracle=truth.oracle if truth else {},
        examples=examples(labels, truth, config.items),
        next_query=next_query(warehouse, labels),
    )
    sections = report_sections(report)
    directory = warehouse.report(config.ds)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "report.json", asdict(report))
    heading = f"# Labels of {report.ds}{', staged only' if labels.staged else ''}\n\n"
    write(directory / "report.md", (heading + "\n".join(map(markdown, sections))).encode())
    risk = None
    if categories is not None:
        risk = risk_picture(categories, report.ds)
        write(directory / "categories_risk.png", risk)
    write_page(nightly_page(warehouse, config, labels, report, nights, risk), directory / PAGE_FILE)
    out = console()
    for section in sections:
        show(section, out)
    return {"items": len(labels.titles), "run_id": labels.lineage["run_id"], "path": directory / PAGE_FILE}


def measure(
    warehouse: Warehouse, config: JobConfig, labels: Labels, truth: Truth | None
) -> tuple[TermFigures | None, CategoryFigures | None]:
    """The figures on the items of the day whose truth is known; None for a half without truth."""
    terms = categories = None
    if truth is None:
        return None, None
    if "vocabulary" not in config.absent and not labels.titles.keys().isdisjoint(truth.terms):
        pairs = None
        if warehouse.has(PAIRS):
            pairs = local_tables.read(warehouse, PAIRS, config.ds, ("item_id", "query", "weight"))
        first = {item: rows[0]["term_id"] for item, rows in labels.terms.items()}
        terms = term_figures(truth, labels.titles, first, local_tables.vocabulary(warehouse), pairs)
    if "taxonomy" not in config.absent and not labels.titles.keys().isdisjoint(truth.categories):
        paths = {item: (row["path_ids"], row["probability"]) for item, row in labels.categories.items()}
        categories = category_figures(truth, labels.titles, paths, local_tables.taxonomy(warehouse))
    return terms, categories


def risk_picture(categories: CategoryFigures, ds: str) -> bytes:
    """The risk curves of all paths, as PNG."""
    curves = {name: figures.risk for name, figures in categories.paths.items()}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "risk.png"
        draw(curves, file, f"Categories of {ds}: what abstaining buys")
        return file.read_bytes()


def bundle_metrics(warehouse: Warehouse, bundle: str) -> dict[str, Any]:
    """What training measured on held-out queries; empty if the bundle is gone by now."""
    path = warehouse.bundle(bundle) / METRICS_FILE
    return read_json(path).get("heldout", {}) if path.is_file() else {}


def trained_on(warehouse: Warehouse, bundle: str) -> str:
    """Day of the dataset that a bundle was trained and measured on, ISO; empty if the bundle is gone by now."""
    path = warehouse.bundle(bundle) / MANIFEST_FILE
    return str(read_json(path)["ds"]) if path.is_file() else ""


def next_query(warehouse: Warehouse, labels: Labels) -> str:
    """A one-liner over the live labels of the most frequent term (or top category); of what is staged, over its checks."""
    if labels.staged:
        of_run = f'pl.col("run_id") == "{labels.lineage["run_id"]}"'
        return _one_liner(f'pl.read_delta("{warehouse.root}/quality").filter({of_run}, ~pl.col("passed"))')
    counted = [rows[0]["term"] for rows in labels.terms.values()]
    column = "term"
    if not counted:
        counted, column = [row["level_1"] for row in labels.categories.values() if row["level_1"]], "category_path"
    value = pl.Series(counted or [""]).mode().sort()[0]
    # JSON's double quotes are Python's too, and leave the single ones to the shell.
    literal = json.dumps(value, ensure_ascii=False)
    where = f'pl.col("term") == {literal}' if column == "term" else f'pl.col("category_path").str.starts_with({literal})'
    shown = 'select("item_id", "title", "term", "term_probability", "category_path").head(10)'
    return _one_liner(f'pl.read_delta("{warehouse.root}/labels_current").filter({where}).{shown}')


def _one_liner(expression: str) -> str:
    return f"{sys.executable} -c {shlex.quote(f'import polars as pl; print({expression})')}"


def arg_parser() -> argparse.ArgumentParser:
    return settings.arg_parser(ReportConfig, "labeller report", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), ReportConfig, run, argv)


if __name__ == "__main__":
    sys.exit(main())
