"""Row builders, one per input contract, and ``lay_down`` to write them as a warehouse."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from etl.contracts import CATALOGUE, CLICK_LOG, TAXONOMY, VOCABULARY, Table

DS = dt.date(2024, 5, 7)


def event(query: str = "sneakers", item_id: str = "i1", **changes: Any) -> dict[str, Any]:
    """A click log row: by default a click of ten seconds at noon of DS."""
    row = {
        "ds": DS,
        "event_time": dt.datetime.combine(DS, dt.time(12)),
        "user_id": "u1",
        "session_id": "s1",
        "query": query,
        "item_id": item_id,
        "event": "click",
        "position": 1,
        "dwell_ms": 10_000,
    }
    return row | changes


def item(item_id: str = "i1", title: str | None = "Air Zoom 39 black", **changes: Any) -> dict[str, Any]:
    """A catalogue row of DS."""
    row = {
        "ds": DS,
        "item_id": item_id,
        "title": title,
        "language": "en",
        "updated_at": dt.datetime(2024, 5, 1),
        "seller_category": None,
    }
    return row | changes


def term(term_id: str = "t1", name: str | None = "sneakers", **changes: Any) -> dict[str, Any]:
    """An active English vocabulary row without synonyms."""
    return {"term_id": term_id, "term": name, "synonyms": [], "language": "en", "status": "active"} | changes


def node(category_id: str, parent_id: str | None, name: str | None) -> dict[str, Any]:
    """A taxonomy row."""
    return {"category_id": category_id, "parent_id": parent_id, "name": name}


def lay_down(
    spark: SparkSession, root: Path, table: Table, rows: list[dict[str, Any]], file_format: str = "parquet"
) -> None:
    """Write rows as an input table under ``root``, by ``ds`` where the contract says so."""
    schema = StructType.fromDDL(", ".join(f"{c.name} {c.type}" for c in table.columns))
    frame = spark.createDataFrame([tuple(row.get(name) for name in table.names) for row in rows], schema)
    frame.coalesce(1).write.format(file_format).mode("overwrite").partitionBy(*table.partition_by).save(
        str(root / table.name)
    )


def small_warehouse(spark: SparkSession, root: Path, **tables: list[dict[str, Any]]) -> None:
    """Four small valid input tables under ``root``; those given by name are replaced."""
    defaults = {
        "click_log": [event(user_id=f"u{n}", session_id=f"s{n}") for n in range(12)],
        "catalogue": [item(), item("i2", "Steel kettle 1.7 l")],
        "vocabulary": [term(), term("t2", "kettle")],
        "taxonomy": [node("c1", None, "Shoes"), node("c2", "c1", "Sneakers"), node("c3", None, "Kitchen")],
    }
    for table in (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY):
        lay_down(spark, root, table, tables.get(table.name, defaults[table.name]))
