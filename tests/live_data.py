"""Rows of LABELS_CURRENT by hand, and days that go live with them as the publishing does it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from etl.contracts import LABEL_CHANGES, LABELS_CURRENT, LINEAGE
from etl.tables import read
from etl.warehouse import Warehouse
from labeling.label_changes import record_changes
from labeling.live_log import live_state
from labeling.publish import Lineage, make_live
from tests.rows import DS

SETTINGS = {"min_probability": 0.3, "min_step_probability": 0.4, "evidence_queries": 3}


def lineage(run_id: str = "r1", *, settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    """Columns LINEAGE of a run; ``inputs`` as a dict."""
    inputs = changes.pop("inputs", {"pairs": "p1", "catalogue": "c1"})
    parts = {"bundle": "b1", "calibration": "k1", "vocabulary": "v1", "taxonomy": "x1", "code": "1"} | changes
    dumped = json.dumps(SETTINGS | (settings or {}))
    return {"run_id": run_id, **parts, "settings": dumped, "inputs": json.dumps(inputs)}


def live_row(
    item_id: str = "i1", terms: Sequence[str] = ("kettle",), path: str | None = "Home > Kettle", **changes: Any
) -> dict:
    """A live row: each term is its own id, of probability .8; the path too."""
    labels = [{"term_id": f"id {name}", "term": name, "score": 0.5, "probability": 0.8} for name in terms]
    row = {
        "item_id": item_id,
        "ds": DS,
        "title": f"Title of {item_id}",
        "text_hash": f"hash of {item_id}",
        "term": terms[0] if terms else None,
        "term_probability": 0.8 if terms else None,
        "terms": labels,
        "term_source": "model",
        "term_reason": None if terms else "low_probability",
        "category_id": None if path is None else f"id {path}",
        "category_path": path,
        "category_probability": None if path is None else 0.7,
        "category_source": "model",
        "category_reason": "low_probability" if path is None else None,
    }
    return row | changes


def live_frame(spark: SparkSession, rows: Sequence[dict[str, Any]], stamps: dict[str, str]) -> DataFrame:
    """LABELS_CURRENT."""
    return spark.createDataFrame(
        [tuple((row | stamps)[name] for name in LABELS_CURRENT.names) for row in rows], LABELS_CURRENT.ddl
    )


def commit(
    spark: SparkSession, root: Path, ds: dt.date, rows: Sequence[dict[str, Any]], stamps: dict[str, str],
    history: dict[str, int] | None = None,
) -> dict[str, int]:  # fmt: skip
    """The one commit of a publishing, without what it writes before and after."""
    where = Warehouse.at(str(root))
    frame = live_frame(spark, [row | {"ds": ds} for row in rows], stamps)
    source = Lineage(stamps, json.loads(stamps["inputs"]), None, None)
    state = live_state(where)
    return make_live(frame, spark, where, ds, source, state, history or {}, state.overrides_as_of(ds))


def go_live(spark: SparkSession, root: Path, ds: dt.date, rows: Sequence[dict[str, Any]], stamps: dict[str, str]) -> None:
    """A day goes live, and what it changed is recorded."""
    commit(spark, root, ds, rows, stamps)
    record_changes(spark, Warehouse.at(str(root)))


def changes(spark: SparkSession, root: Path, **where: Any) -> dict[tuple[str, str], tuple]:
    """LABEL_CHANGES by item and what: (old, new, cause)."""
    rows = read(spark, Warehouse.at(str(root)).table(LABEL_CHANGES), LABEL_CHANGES, **where).collect()
    return {(row["item_id"], row["what"]): (row["old"], row["new"], row["cause"]) for row in rows}


assert {column.name for column in LINEAGE} == set(lineage())
