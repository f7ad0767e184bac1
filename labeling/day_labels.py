"""The labels of one day by item, and a fair handful of them to look at."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from etl.config import JobConfig
from etl.contracts import CATALOGUE, ITEM_CATEGORIES, ITEM_TERMS, LINEAGE, Table
from etl.errors import InputError
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.truth import Truth


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a day by item, as the history or staging holds them; a half that the warehouse lacks is empty."""

    titles: Mapping[str, str | None]
    terms: Mapping[str, Sequence[Mapping[str, Any]]]
    """Item -> its rows of ITEM_TERMS with a term, best first."""
    categories: Mapping[str, Mapping[str, Any]]
    lineage: Mapping[str, str]
    reasons: Mapping[str, int]
    """Reason -> items that have no term for it, the most frequent first."""
    staged: bool = False
    """Whether they lie in staging alone: the audit refused them, or nothing of the day was published."""

    @property
    def with_category(self) -> int:
        return sum(row["category_id"] is not None for row in self.categories.values())


def read_labels(warehouse: Warehouse, config: JobConfig, *, refused: bool = False) -> Labels:
    """The published labels of a day; where there are none, or a later run was ``refused``, those in staging if it has them.

    Raises:
        InputError: there are none either.
    """
    if not refused:
        published = _labels(warehouse, config, staged=False)
        if published is not None:
            return published
    found = _labels(warehouse, config, staged=True)
    if found is None and refused:  # upkeep has emptied staging since
        found = _labels(warehouse, config, staged=False)
    if found is None:
        raise InputError(
            f"{warehouse.root} holds no labels for {config.ds}: "
            "run `labeller predict`, `labeller audit` and `labeller publish` for that day first"
        )
    return found


def _labels(warehouse: Warehouse, config: JobConfig, *, staged: bool) -> Labels | None:
    catalogue = local_tables.read(warehouse, CATALOGUE, config.ds, ("item_id", "title"))
    terms: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    if "vocabulary" not in config.absent:
        terms = _rows(warehouse, ITEM_TERMS, config.ds, staged).sort("item_id", "rank").to_dicts()
    if "taxonomy" not in config.absent:
        categories = _rows(warehouse, ITEM_CATEGORIES, config.ds, staged).to_dicts()
    first = next(iter(terms or categories), None)
    if first is None:
        return None
    by_item: dict[str, list[Mapping[str, Any]]] = {}
    reasons = Counter(row["reason"] for row in terms if row["term_id"] is None)
    for row in terms:
        if row["term_id"] is not None:
            by_item.setdefault(row["item_id"], []).append(row)
    return Labels(
        titles=dict(catalogue.iter_rows()),
        terms=by_item,
        categories={row["item_id"]: row for row in categories},
        lineage={name: first.get(name, "") for name in (column.name for column in LINEAGE)},
        reasons=dict(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))),
        staged=staged,
    )


def _rows(warehouse: Warehouse, table: Table, ds: dt.date, staged: bool) -> pl.DataFrame:
    if staged or not warehouse.has(table):
        return local_tables.written(warehouse, table, staged=staged).filter(pl.col("ds") == ds).collect()
    return local_tables.read(warehouse, table, ds)


def examples(labels: Labels, truth: Truth | None, count: int) -> list[dict[str, Any]]:
    """Labelled items, drawn by the hash of their id: half with titles that lack their term, as far as there are any.

    Without truth a title counts as lacking if none of its predicted terms stands in it.
    """

    def lacks(item: str) -> bool:
        if truth and item in truth.terms:
            return item in truth.lacking
        return not any(row["lexical_hit"] for row in labels.terms.get(item, ()))

    known = [item for item in labels.titles if truth is None or item in truth.terms or item in truth.categories]
    drawn = sorted(known or labels.titles, key=lambda item: hashlib.sha256(item.encode()).digest())
    lacking = [item for item in drawn if lacks(item)][: (count + 1) // 2]
    others = [item for item in drawn if item not in set(lacking) and not lacks(item)][: count - len(lacking)]
    return [_example(labels, truth, item, lacks(item)) for item in lacking + others]


def _example(labels: Labels, truth: Truth | None, item: str, lacks: bool) -> dict[str, Any]:
    category = labels.categories.get(item, {})
    return {
        "item_id": item,
        "title": labels.titles[item],
        "lacks_term": lacks,
        "terms": [
            {name: row[name] for name in ("term_id", "term", "score", "probability")} for row in labels.terms.get(item, ())
        ],
        "path": list(category.get("path") or ()),
        "path_probability": category.get("probability"),
        "true_term_ids": sorted(truth.terms.get(item, ())) if truth else None,
        "true_category_id": truth.categories.get(item) if truth else None,
        "category_id": category.get("category_id"),
    }
