"""What a report shows: where everything is, how good the labels are, some of them, and the next query to type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.figures import ALL, LACKING, CategoryFigures, TermFigures
from labeling.sections import Section
from labeling.tables import Found

ORACLE_SUFFIX = {ALL: "", LACKING: "_lacking"}
"""How ``truth/oracle.json`` names a slice at the end of a measure."""

ORACLE = "oracle (sees the title, knows the generator)"


RISK_AT = (0.5, 0.8, 1.0)
"""Coverages whose risk is shown; `categories_risk.png` has the whole curve."""

DEEP = "items whose true path is that deep"


@dataclass(frozen=True, slots=True)
class Report:
    """All that is printed; what could not be measured is None."""

    root: str
    files: str
    """Directory of all that is no table."""
    ds: str
    lineage: Mapping[str, str]
    tables: Sequence[Found]
    retrieval: Mapping[str, Any]
    trained: str
    """Day that ``retrieval`` was measured on, which is older than ``ds`` on all nights but those that train."""
    coverage: Mapping[str, int]
    reasons: Mapping[str, int]
    """Reason -> items without a term."""
    terms: TermFigures | None
    categories: CategoryFigures | None
    oracle: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]]
    next_query: str


def report_sections(report: Report) -> list[Section]:
    """The report from top to bottom; the figures come last, where a log ends."""
    return [
        places(report),
        _examples(report),
        *_reasons(report),
        *retrieval(report),
        *terms(report),
        *categories(report),
        Section("What an analyst would type next", note=report.next_query),
    ]


def places(report: Report) -> Section:
    rows = [
        (entry.table, f"{entry.rows:,}" if entry.version is not None else "-", _days(entry.first, entry.last),
         "-" if entry.version is None else str(entry.version))
        for entry in report.tables
    ]  # fmt: skip
    beside = [("bundle", f"bundles/{report.lineage['bundle']}"), ("reports", f"reports/ds={report.ds}")]
    note = "".join(f"{name}: {report.files}/{path}\n" for name, path in beside)
    note += f"run {report.lineage['run_id']}: " + ", ".join(f"{number:,} {name}" for name, number in report.coverage.items())
    return Section(f"Tables under {report.root}", ("table", "rows", "days", "version"), rows, note)


def _days(first: str | None, last: str | None) -> str:
    return "" if first is None or last is None else first if first == last else f"{first} … {last}"


def _examples(report: Report) -> Section:
    rows = [
        (
            ("lacks its term: " if example["lacks_term"] else "") + (example["title"] or "(no title)"),
            ", ".join(_term(term, example["true_term_ids"]) for term in example["terms"]) or "(none)",
            _path(example),
        )
        for example in report.examples
    ]
    note = "Probabilities after each term and path"
    if any(example["true_term_ids"] or example["true_category_id"] for example in report.examples):
        note += "; + is true, x is not, by the truth tables"
    columns = ("title", "terms", "category path")
    return Section(f"{len(rows)} labelled items, drawn by hash", columns, rows, note + ".", folded=(0, 1, 2))


def _term(term: Mapping[str, Any], true: Sequence[str] | None) -> str:
    mark = "" if not true else "+ " if term["term_id"] in true else "x "
    return f"{mark}{term['term']} {term['probability']:.2f}"


def _path(example: Mapping[str, Any]) -> str:
    if not example["path"]:
        return "(none)"
    true = example["true_category_id"]
    mark = "" if true is None else "+ " if example["category_id"] == true else "x "
    return f"{mark}{' > '.join(example['path'])} {example['path_probability']:.2f}"


def _reasons(report: Report) -> Iterator[Section]:
    if report.reasons:
        rows = [
            (reason, f"{count:,}", f"{count / report.coverage['items']:.2%}") for reason, count in report.reasons.items()
        ]
        yield Section("Items without a term, by reason", ("reason", "items", "share"), rows)


def retrieval(report: Report) -> Iterator[Section]:
    if report.retrieval:
        measures = list(dict.fromkeys(name for figures in report.retrieval.values() for name in figures))
        rows = [(split, *(_number(figures.get(name)) for name in measures)) for split, figures in report.retrieval.items()]
        heading = (
            f"Held-out queries against all titles, bundle {report.lineage['bundle']}, "
            f"measured when it was trained on {report.trained}"
        )
        yield Section(heading, ("split", *measures), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if value == int(value) and value > 1 else f"{value:.3f}"


def terms(report: Report) -> Iterator[Section]:
    figures = report.terms
    if figures is None:
        yield Section("Terms: hit@1", note="not measured: no truth is known for the items of this day")
        return
    slices = list(figures.sizes)
    rows = [(system, *(f"{hits[name]:.3f}" for name in slices)) for system, hits in figures.hits.items()]
    known = [_oracle(report, "term_hit1", name) for name in slices]
    if any(value is not None for value in known):
        rows.append((ORACLE, *map(_number, known)))
    columns = ("system", *(f"{name} ({size:,})" for name, size in figures.sizes.items()))
    yield Section("Terms: hit@1, share of items whose first term is one of theirs", columns, rows)


def categories(report: Report) -> Iterator[Section]:
    figures = report.categories
    if figures is None:
        yield Section("Categories: accuracy by level", note="not measured: no truth is known for the items of this day")
        return
    depth = max(map(len, figures.accuracy.values()))
    rows = []
    for name, accuracy in figures.accuracy.items():
        known = _oracle(report, "category_accuracy_by_level", name)
        for system, values in ((DEEP, figures.sizes[name]), ("labels", accuracy), (ORACLE, known)):
            if values:
                cells = [f"{value:,}" if system == DEEP else _number(value) for value in values[:depth]]
                rows.append((name, system, *cells, *["-"] * (depth - len(cells))))
    columns = ("titles", "system", *(f"level {level}" for level in range(1, depth + 1)))
    heading = "Categories: accuracy by level, of the items whose true path is that deep; a path that stopped above is wrong"
    yield Section(heading, columns, rows)
    measured = [
        (name, *map(_number, (*found.hierarchical, found.whole, found.risk.area, *map(found.risk.at, RISK_AT))))
        for name, found in figures.paths.items()
    ]
    shares = (f"risk at {coverage:.0%}" for coverage in RISK_AT)
    columns = ("titles", "hP", "hR", "hF1", "whole path", "AURC", *shares)
    note = "Risk: of that share of the items, the most probable ones, how many have a path that says something wrong."
    yield Section("Categories: hierarchical precision, recall, F1; risk by coverage", columns, measured, note)


def _oracle(report: Report, measure: str, slice_name: str) -> Any:
    return report.oracle.get(measure + ORACLE_SUFFIX[slice_name]) if slice_name in ORACLE_SUFFIX else None
