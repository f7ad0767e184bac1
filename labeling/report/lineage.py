"""What the report says of where the labels come from, and where everything lies."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence

import polars as pl

from etl.contracts import RUNS
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.report.page import Part
from labeling.sections import Section


def lineage_part(warehouse: Warehouse, ds: dt.date, lineage: Mapping[str, str | None], sections: Sequence[Section]) -> Part:
    """Columns LINEAGE of the labels, the stages of the day, and ``sections`` on the tables."""
    plain = [(name, str(value or "not on record")) for name, value in lineage.items() if name not in ("inputs", "settings")]
    nested = [
        (f"{what}: {name}", str(value))
        for what, column in (("read", "inputs"), ("setting", "settings"))
        for name, value in json.loads(lineage.get(column) or "{}").items()
    ]
    made = Section("What made these labels", ("what", "which"), [*plain, *nested], folded=(1,))
    stages = local_tables.written(warehouse, RUNS).filter(pl.col("ds") == ds).sort("finished_at").collect().to_dicts()
    rows = [
        (
            row["stage"],
            f"{row['finished_at']:%Y-%m-%d %H:%M}",
            f"{row['seconds'] / 60:,.1f}",
            row["code"],
            _read(row),
        )
        for row in stages
    ]
    columns = ("stage", "finished (UTC)", "minutes", "code", "read")
    note = "" if rows else "runs has no stage of this day."
    ran = Section(f"Stages of {ds}, as they ran last", columns if rows else (), rows, note, folded=(4,))
    return Part(name="lineage", title="Lineage", tables=(made, ran, *sections))


def _read(row: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in json.loads(row["inputs"]).items())
