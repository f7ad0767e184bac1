"""Delta tables of a few rows, laid down by delta-rs as the contracts say: no JVM, and dozens of days in a second."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl

from etl.contracts import LINEAGE, Table
from tests.rows import DS

_TYPES: dict[str, Any] = {
    "string": pl.String,
    "date": pl.Date,
    "timestamp": pl.Datetime("us", "UTC"),
    "boolean": pl.Boolean,
    "int": pl.Int32,
    "bigint": pl.Int64,
    "double": pl.Float64,
    "binary": pl.Binary,
    "array<string>": pl.List(pl.String),
    "array<double>": pl.List(pl.Float64),
    "array<struct<term_id: string, term: string, score: double, probability: double>>": pl.List(
        pl.Struct({"term_id": pl.String, "term": pl.String, "score": pl.Float64, "probability": pl.Float64})
    ),
    "array<struct<query: string, clicks: bigint, users: bigint, weight: double>>": pl.List(
        pl.Struct({"query": pl.String, "clicks": pl.Int64, "users": pl.Int64, "weight": pl.Float64})
    ),
}
NOON = dt.datetime(2024, 5, 8, 12, tzinfo=dt.UTC)


def lineage(bundle: str = "b1", ds: dt.date = DS, **changes: Any) -> dict[str, Any]:
    """Columns LINEAGE of a run."""
    row = dict.fromkeys((column.name for column in LINEAGE), "")
    given = {"run_id": f"{ds}-r1", "bundle": bundle, "code": "0.1+abc", "vocabulary": "v1", "taxonomy": "x1"}
    return row | given | {"calibration": "c1", "inputs": '{"catalogue": "rows:1"}'} | changes


def lay(path: Path, table: Table, rows: list[dict[str, Any]], **commit: str) -> None:
    """Append rows, columns that they lack as nulls; ``commit`` is what the commit says of itself."""
    frame = pl.DataFrame(
        [{name: row.get(name) for name in table.names} for row in rows],
        schema={column.name: _TYPES[column.type] for column in table.columns},
    )
    options: dict[str, Any] = {"partition_by": list(table.partition_by) or None}
    if commit:
        from deltalake import CommitProperties

        options["commit_properties"] = CommitProperties(custom_metadata=commit)
    frame.write_delta(str(path), mode="append", delta_write_options=options)


def term_row(item_id: str, term_id: str | None = "t2", ds: dt.date = DS, rank: int = 1, **changes: Any) -> dict[str, Any]:
    """A row of ITEM_TERMS: a term, or with None the reason why there is none."""
    row = {"ds": ds, "item_id": item_id, "rank": rank if term_id else 0, "term_id": term_id, "evidence": []}
    if term_id:
        row |= {"term": "kettle", "score": 0.9, "probability": 0.8, "margin": 0.2, "cosine": 0.9, "lexical_hit": True}
    return row | ({} if term_id else {"reason": "no_text"}) | lineage(ds=ds) | changes


def category_row(item_id: str, ds: dt.date = DS, **changes: Any) -> dict[str, Any]:
    """A row of ITEM_CATEGORIES: Home > Kettle."""
    path = {"category_id": "h1", "path_ids": ["h", "h1"], "path": ["Home", "Kettle"], "level_1": "Home", "level_2": "Kettle"}
    figures = {"probabilities": [0.9, 0.7], "probability": 0.7, "stopped": "leaf"}
    return {"ds": ds, "item_id": item_id} | path | figures | lineage(ds=ds) | changes


def live_row(item_id: str, ds: dt.date = DS, **changes: Any) -> dict[str, Any]:
    """A row of LABELS_CURRENT that agrees with the two."""
    term = {"term_id": "t2", "term": "kettle", "score": 0.9, "probability": 0.8}
    row = {"item_id": item_id, "ds": ds, "title": "Steel kettle", "term": "kettle", "term_probability": 0.8, "terms": [term]}
    category = {"category_id": "h1", "category_path": "Home > Kettle", "category_probability": 0.7}
    return row | category | {"term_source": "model", "category_source": "model"} | lineage(ds=ds) | changes


def run_row(stage: str, ds: dt.date = DS, **changes: Any) -> dict[str, Any]:
    """A row of RUNS, finished at noon of the day after."""
    at = dt.datetime.combine(ds + dt.timedelta(days=1), NOON.time(), dt.UTC)
    row = {"ds": ds, "stage": stage, "run_id": f"{ds}-r1", "bundle": "b1", "code": "0.1+abc", "inputs": "{}", "counts": "{}"}
    return row | {"seconds": 1.5, "finished_at": at} | changes
