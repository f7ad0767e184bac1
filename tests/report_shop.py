"""Two published nights of a small shop as the report finds them: tables laid down by delta-rs, a real bundle, no JVM."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from etl.contracts import (
    CATALOGUE,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    LABEL_CHANGES,
    LABELS_CURRENT,
    PAIRS,
    QUALITY,
    RUNS,
    TAXONOMY,
    VOCABULARY,
)
from tests.delta_data import category_row, lay, lineage, live_row, run_row, term_row
from tests.labeling_data import METRICS, pair, write_small_bundle
from tests.rows import DS, item, node, term

NEXT = DS + dt.timedelta(days=1)
ITEMS = [f"i{n:02}" for n in range(80)]
SECRET = "a query that nobody may read"
"""Asked by many and the evidence of labels, and all the same not the report's to tell."""
HOSTILE = ("<script>document.title = 'canary'</script>", '"><img src=x onerror="document.title = \'canary\'">')
"""Titles of the items."""
HOSTILE_TERM = "lamp</td><script src=https://canary.invalid/x.js></script>"
CURVE = [[20, 6.0], [40, 3.5], [60, 2.25]]
HELDOUT = {"test": {"queries": 283, "recall@10": 0.5121}}


def lay_down_shop(root: Path, *, last: dt.date = NEXT) -> str:
    """Nights up to ``last``: on the second i02 has another term, i03 none, i79 is gone; returns the bundle's id."""
    metrics = METRICS | {"curve": CURVE, "heldout": HELDOUT, "untrained": {"test": {"queries": 283, "recall@10": 0.1}}}
    bundle = write_small_bundle(root, metrics=metrics).id
    lay(root / "vocabulary", VOCABULARY, [term("t1", "sneakers"), term("t2", "kettle"), term("t3", HOSTILE_TERM)])
    lay(root / "taxonomy", TAXONOMY, [node("h", None, "Home"), node("h1", "h", "Kettle"), node("s", None, "Shoes")])
    for ds in (DS, NEXT):
        if ds <= last:
            _night(root, ds, bundle)
    return bundle


def _night(root: Path, ds: dt.date, bundle: str) -> None:
    second = ds == NEXT
    items = ITEMS[:-1] if second else ITEMS
    lay(root / "catalogue", CATALOGUE, [item(i, HOSTILE[n // 2 % 2], ds=ds) for n, i in enumerate(items)])
    made = lineage(bundle, ds)
    lay(root / "item_terms", ITEM_TERMS, [_term(i, ds, second) | made for i in items])
    lay(root / "item_categories", ITEM_CATEGORIES, [_category(n, i, ds) | made for n, i in enumerate(items)])
    lay(root / "labels_current", LABELS_CURRENT, [live_row("i00", ds)] if not second else [])
    asked = [pair("kettle" if n % 4 else "sneakers", i, f"Title of {i}", "test", ds=ds) for n, i in enumerate(items)]
    lay(root / "pairs", PAIRS, [*asked, pair(SECRET, "i00", "Title of i00", ds=ds)])
    stages: dict[str, Any] = {"predict": {"items": len(items)}, "audit": {"checks": 3}, "publish": {"live": 1}}
    lay(root / "runs", RUNS, [run_row(s, ds, counts=json.dumps(c), bundle=bundle, seconds=60.0) for s, c in stages.items()])
    checks = {"item_terms.abstention": 1 / 79 if second else 0.0, "item_terms.labels_psi": 0.3 if second else None}
    checks |= {"item_categories.abstention": 0.0, "item_terms.calibration_error": 0.05 if second else 0.04}
    rows = [
        {"ds": ds, "run_id": f"{ds}-r1", "check": name, "hard": "abstention" in name, "value": value}
        | {"expected": "at most 0.25: run `labeller train`", "passed": name != "item_terms.labels_psi" or not second}
        for name, value in checks.items()
    ]
    lay(root / "quality", QUALITY, rows)
    if second:
        changed = [("i02", "term", "clicks"), ("i03", "term", "title"), ("i79", "gone", "gone_item")]
        changed += [(i, "term_confidence", "clicks") for i in ("i04", "i05")]
        common = {"ds": ds, "live_version": 1, "differs": []} | made
        rows = [common | dict(zip(("item_id", "what", "cause"), each, strict=True)) for each in changed]
        lay(root / "label_changes", LABEL_CHANGES, rows)


def _term(item_id: str, ds: dt.date, second: bool) -> dict[str, Any]:
    if second and item_id == "i03":
        return term_row(item_id, None, ds, reason="low_probability")
    rare = item_id == "i02" and second
    name = {"term_id": "t3", "term": HOSTILE_TERM} if rare else {"term_id": "t2", "term": "kettle"}
    return term_row(item_id, ds=ds, probability=0.75 if int(item_id[1:]) % 2 else 0.95, evidence=[SECRET]) | name


def _category(n: int, item_id: str, ds: dt.date) -> dict[str, Any]:
    shoes = {"category_id": "s", "path_ids": ["s"], "path": ["Shoes"], "level_1": "Shoes", "level_2": None}
    return category_row(item_id, ds, **(shoes | {"probabilities": [0.7]} if n % 2 else {}))
