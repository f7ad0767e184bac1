"""What the labels of a day were made of, and what of it has changed."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LINEAGE
from etl.warehouse import Warehouse, is_delta


def last_lineage(spark: SparkSession, warehouse: Warehouse, ds: dt.date) -> dict[str, str] | None:
    """Lineage of the rows of ``ds`` that were staged last; None if there are none."""
    for table in (ITEM_TERMS, ITEM_CATEGORIES):
        path = warehouse.staged(table)
        found = lineage_of(tables.read(spark, path, table, ds=ds)) if is_delta(path) else None
        if found is not None:
            return found
    return None


def lineage_of(rows: DataFrame) -> dict[str, Any] | None:
    """Columns LINEAGE of rows of one run; None if there are no rows, and null where the table is of before a column."""
    names = [column.name for column in LINEAGE]
    row = rows.select(*(name for name in names if name in rows.columns)).head()
    return None if row is None else dict.fromkeys(names) | row.asDict()


def constants(ds: dt.date, lineage: Mapping[str, str]) -> dict[str, Column]:
    """The columns ``ds`` and LINEAGE of every row of a run."""
    return {"ds": F.lit(ds)} | {column.name: F.lit(lineage[column.name]) for column in LINEAGE}


def changes(last: Mapping[str, str] | None, lineage: Mapping[str, str]) -> list[str]:
    """Names of what differs from the lineage of the last run: of inputs the tables."""
    if last is None:
        return ["everything (not labelled yet)"]
    parts = ("bundle", "calibration", "vocabulary", "taxonomy", "code", "settings")
    inputs = [json.loads(each["inputs"]) for each in (last, lineage)]
    found = [name for name in parts if last[name] != lineage[name]]
    return found + [name for name in sorted(inputs[0] | inputs[1]) if inputs[0].get(name) != inputs[1].get(name)]
