"""One small warehouse and its nights: real Spark, Delta, faiss and an untrained bundle."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
from pyspark.sql import SparkSession

from etl import tables
from etl.contracts import (
    CATALOGUE,
    LABELS_CURRENT,
    TAXONOMY,
    VOCABULARY,
)
from etl.errors import EXIT_OK
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict, publish
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down

NEXT = DS + dt.timedelta(days=1)

TITLES = {
    "i1": "Steel kettle 1.7 l",
    "i2": "steel KETTLE  1.7 l",
    "i3": "Red dress, cotton",
    "i4": "Running shoes 39",
    "i5": "Brass table lamp",
    "i6": "Kettle and dress",
    "i7": None,
    "i8": "👟🔥",
    "i9": "shoe " * 200_000,
}


TOMORROW = {k: v for k, v in TITLES.items() if k != "i5"} | {"i3": "Table lamp, cotton shade", "i10": "Floor lamp"}


def argv(root: Path, ds: dt.date = DS, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(ds), *more]


def catalogue(titles: dict[str, str | None], ds: dt.date = DS) -> list[dict[str, Any]]:
    return [item(item_id, title, ds=ds) for item_id, title in titles.items()]


def warehouse(spark: SparkSession, root: Path, *more: dict[str, Any]) -> None:
    lay_down(spark, root, CATALOGUE, catalogue(TITLES) + list(more))
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    for ds in {DS, *(row["ds"] for row in more)}:
        clicks = [("boil water", 5.0), ("kettle", 2.0), ("tea", 2.0), ("gift", 1.0)]
        write_pairs(spark, root, [pair(query, "i1", TITLES["i1"], weight=w, ds=ds) for query, w in clicks])


def night(root: Path, ds: dt.date = DS) -> list[int]:
    """Exit codes of the four stages, up to the first that fails."""
    codes: list[int] = []
    for job in (embed_catalogue, predict, audit, publish):
        codes.append(job.main(argv(root, ds)))
        if codes[-1] != EXIT_OK:
            break
    return codes


def rows(spark: SparkSession, root: Path, table, *names: str, staged: bool = False) -> list[tuple]:
    where = Warehouse.at(str(root))
    frame = tables.read(spark, where.staged(table) if staged else where.table(table), table)
    return sorted(map(tuple, frame.select(*(names or table.names)).collect()), key=repr)


def live_version(spark: SparkSession, root: Path) -> int:
    return tables.latest_version(spark, str(root / LABELS_CURRENT.name))


def live(root: Path) -> dict[str, dict[str, Any]]:
    frame = pl.read_delta(str(root / LABELS_CURRENT.name))
    return {row["item_id"]: row for row in frame.to_dicts()}


def first_night(spark: SparkSession, base: Path) -> None:
    """A warehouse of two days, the first of which is live."""
    base.mkdir()
    warehouse(spark, base, *catalogue(TOMORROW, NEXT))
    write_small_bundle(base)
    assert night(base) == [EXIT_OK] * 4
