"""Which bundles and datasets something still refers to, and so may not go. Read without Spark."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from etl import storage
from etl.config import from_args
from etl.contracts import ITEM_TERMS, LABELS_CURRENT, RUNS
from etl.dataset_config import DatasetConfig
from etl.durable import read_json
from etl.polars_scan import distinct
from etl.warehouse import Warehouse, is_delta
from labeling import local_tables
from labeling.live_log import live_commits
from model.bundle import CANDIDATE, CHAMPION, MANIFEST_FILE, alias
from model.train_config import TrainConfig


def referred_bundles(warehouse: Warehouse, since: Mapping[str, dt.date], newest: int) -> dict[str, str]:
    """Ids of the bundles to keep, each with the reason.

    Args:
        warehouse: Whose.
        since: First day that is kept of each table with days, see :func:`labeling.maintain.first_days`.
        newest: This many of the newest are kept in any case.
    """
    present = _by_age(warehouse)
    found = dict.fromkeys(present[:newest], "one of the newest")
    found |= _in_rows(warehouse, since)
    found |= _in_settings(warehouse)
    found |= {
        commit.bundle: "a rollback may make it live"
        for commit in live_commits(warehouse)
        if commit.ds >= since[ITEM_TERMS.name]
    }
    return found | _in_aliases(warehouse)


def referred_datasets(warehouse: Warehouse, newest: int) -> dict[str, str]:
    """Names of the datasets to keep (``ds=…``), each with the reason: one that a candidate is compared on, or a new one."""
    present = sorted((path.name for path in warehouse.dataset(dt.date.min).parent.glob("ds=*")), reverse=True)
    found = dict.fromkeys(present[:newest], "one of the newest")
    for bundle, reason in _in_aliases(warehouse).items():
        file = warehouse.bundle(bundle) / MANIFEST_FILE
        trained_on = read_json(file)["lineage"].get("dataset") if file.is_file() else None
        if trained_on:
            found[f"ds={trained_on}"] = f"{reason} was trained on it"
    return found


def _by_age(warehouse: Warehouse) -> list[str]:
    """Ids of the bundles that are there, newest first."""
    files = warehouse.bundles.glob(f"*/{MANIFEST_FILE}")
    made = [(read_json(file)["ds"], file.stat().st_mtime_ns, file.parent.name) for file in files]
    return [name for _, _, name in sorted(made, reverse=True)]


def _in_aliases(warehouse: Warehouse) -> dict[str, str]:
    champion, candidate = alias(warehouse, CHAMPION) or {}, alias(warehouse, CANDIDATE) or {}
    named = {"the best champion": champion.get("best", {}), "the candidate": candidate, "the champion": champion}
    return {entry["bundle"]: what for what, entry in named.items() if entry}


def _in_rows(warehouse: Warehouse, since: Mapping[str, dt.date]) -> dict[str, str]:
    """Bundles of rows that stay: what is live, the history from its first kept day on, what is staged."""
    found: dict[str, str] = {}
    for name, (table, path) in warehouse.outputs().items():
        first = since.get(name.partition("/")[0])
        labelled = "bundle" in table.names and table is not RUNS and (first or table is LABELS_CURRENT)
        if labelled and is_delta(path):
            found |= dict.fromkeys(_bundles_of(path, first), f"rows of {name}")
    return found


def _bundles_of(path: str, first: dt.date | None) -> set[str]:
    """Bundles of the rows of a table from a day on: by the log alone where a file has one, as those of a run have."""
    listed = local_tables.files(path)
    if listed.is_empty():
        return set()
    kept = listed.filter(pl.col("partition.ds") >= first) if first else listed
    one = kept.filter(pl.col("min.bundle") == pl.col("max.bundle"))
    mixed = [storage.join(path, name) for name in kept.join(one, on="path", how="anti")["path"]]
    return {*one["min.bundle"], *distinct(mixed, "bundle")}


def _in_settings(warehouse: Warehouse) -> dict[str, str]:
    """Bundles that ``ROOT/warehouse.toml`` names as what a training starts from or learns from."""
    given: dict[str, Any] = {"config": None, "root": str(warehouse.root), "ds": dt.date.max}
    train = from_args(TrainConfig, argparse.Namespace(**given))
    dataset = from_args(DatasetConfig, argparse.Namespace(**given))
    named = {"init_from": train.init_from, "distil_from": train.distil_from, "tokenizer_from": dataset.tokenizer_from}
    paths = {what: Path(value).expanduser().resolve() for what, value in named.items() if value}
    return {path.name: f"{what} names it" for what, path in paths.items() if path.parent == warehouse.bundles}
