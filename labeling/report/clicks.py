"""The calibration curve: how often the terms of a day were clicked for, by the probability that is stated for them.

On the clicks that the audit takes, which neither training nor calibration has seen, read without Spark.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binomtest

from etl.contracts import PAIRS
from etl.text import Normaliser
from etl.tokenizer_spec import SPEC_FILE, read_spec
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.clicked import TRAIN, Clicked, as_clicked, term_forms
from labeling.probability_checks import FRESH, MOST_ITEMS
from labeling.reliability import bins_of_equal_mass, expected_calibration_error
from labeling.report.charts import reliability_diagram
from labeling.report.page import Part
from labeling.sections import Section

LEAST_CASES = 40
"""Of which there are two bins; one is no curve."""


def calibration_part(
    warehouse: Warehouse, ds: dt.date, bundle: str, vocabulary: Vocabulary | None, terms: pl.LazyFrame
) -> Part:
    """The curve of ``terms``, the day's rows of ITEM_TERMS; why there is none where it cannot be drawn."""

    def only(words: str) -> Part:
        return Part(name="calibration", title="Calibration on fresh clicks", words=(words,))

    if vocabulary is None:
        return only("No terms: the warehouse declares its vocabulary absent.")
    if not (warehouse.bundle(bundle) / SPEC_FILE).is_file():
        return only(f"Bundle {bundle} is gone, and with it how queries are compared with terms.")
    if ds not in local_tables.days(warehouse, PAIRS):
        return only(f"pairs has no clicks of {ds} any more.")
    stated, clicked = stated_and_clicked(warehouse, ds, vocabulary, read_spec(warehouse.bundle(bundle)).normalise, terms)
    if len(stated) < LEAST_CASES:
        return only(
            f"{len(stated)} terms of items that held-out queries led to: too few for a curve (expected >= {LEAST_CASES})."
        )
    return _curve(stated, clicked)


def _curve(stated: np.ndarray, clicked: np.ndarray) -> Part:
    bins = bins_of_equal_mass(stated, clicked)
    tests = [binomtest(round(bin_.frequency * bin_.cases), bin_.cases) for bin_ in bins]
    ends = [test.proportion_ci(method="wilson") for test in tests]
    intervals = [(float(end.low), float(end.high)) for end in ends]
    rows = [
        (f"{bin_.stated:.3f}", f"{bin_.frequency:.3f}", f"{low:.3f} – {high:.3f}", f"{bin_.cases:,}")
        for bin_, (low, high) in zip(bins, intervals, strict=True)
    ]
    table = Section("Stated and clicked", ("stated", "clicked", "95% interval", "terms"), rows)
    error = expected_calibration_error(stated, clicked)
    words = (
        f"{len(stated):,} terms of items that queries held out from training led to; calibration error {error:.3f}. A right "
        "term that nobody clicked counts as wrong, so points may lie below the line.",
    )
    told = ", ".join(f"stated {bin_.stated:.2f} clicked {bin_.frequency:.2f}" for bin_ in bins)
    picture = reliability_diagram(bins, intervals, f"Reliability diagram: {told}.", "Share clicked by stated probability")
    return Part(name="calibration", title="Calibration on fresh clicks", words=words, pictures=(picture,), tables=(table,))


def stated_and_clicked(
    warehouse: Warehouse, ds: dt.date, vocabulary: Vocabulary, normalise: Normaliser, rows: pl.LazyFrame
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`labeling.probability_checks.stated_and_clicked`, without Spark: two arrays [N]."""
    items = _clicked_items(warehouse, ds, rows, term_forms(vocabulary, normalise))
    ids = [term.term_id for term in vocabulary.terms]
    trained = {(item.item_id, ids[term]) for item in items for term in item.trained}
    held_out = {(item.item_id, ids[term]) for item in items for term in item.held_out}
    chosen = pl.col("item_id").is_in([item.item_id for item in items])
    given = rows.filter((pl.col("rank") > 0) & chosen).select("item_id", "term_id", "probability").collect()
    cases = [
        (stated, (item, term) in held_out) for item, term, stated in sorted(given.iter_rows()) if (item, term) not in trained
    ]
    stated, clicked = np.array(cases, dtype=np.float64).reshape(-1, 2).T
    return stated, clicked


def _clicked_items(warehouse: Warehouse, ds: dt.date, labelled: pl.LazyFrame, forms: list[tuple[str, int]]) -> list[Clicked]:
    """As :func:`labeling.clicked.clicked_items`."""
    labels = pl.LazyFrame(sorted(set(forms)), schema={"query": pl.String, "label": pl.Int64}, orient="row")
    pairs = local_tables.written(warehouse, PAIRS).filter((pl.col("ds") == ds) & pl.col("split").is_in([FRESH, TRAIN]))
    names = ("title_id", "item_id", "label", "split", "query_id", "weight")
    clicked = pairs.join(labels, on="query").select(*names).collect()
    chosen = clicked.filter(pl.col("split") == FRESH)["title_id"].unique().sort().head(MOST_ITEMS)
    known = labelled.select("item_id").unique().collect()
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in clicked.filter(pl.col("title_id").is_in(chosen.implode())).join(known, on="item_id").to_dicts():
        found[row["title_id"]].append(row | {"text": ""})
    items = [as_clicked(rows, (FRESH,)) for _, rows in sorted(found.items())]
    return [item for item in items if item is not None]
