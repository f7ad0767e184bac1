"""The ground truth of a generated or adapted warehouse: the only module that opens ``truth/``.

Evaluation imports it, no stage of the nightly run does; a test holds that.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from etl.errors import InputError
from etl.polars_scan import scan
from etl.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of the items: any half may be empty."""

    terms: Mapping[str, frozenset[str]]
    """Item -> ids of all its terms."""
    lacking: frozenset[str]
    """Items in whose titles no form of any of their terms stands."""
    categories: Mapping[str, str]
    """Item -> id of its deepest category."""
    oracle: Mapping[str, Any]
    """What a labeller that knows the generator reaches, by measure; empty where nobody knows."""


def load_truth(warehouse: Warehouse) -> Truth | None:
    """The truth of a warehouse; None if it has none, as every real one.

    Raises:
        InputError: a truth table lacks a column.
    """
    directory = warehouse.truth
    if not directory.is_dir():
        return None
    terms = _table(directory / "item_terms", ("item_id", "term_id", "lacks_term"))
    categories = _table(directory / "item_categories", ("item_id", "category_id"))
    by_item: defaultdict[str, set[str]] = defaultdict(set)
    for item, term, _ in terms:
        by_item[str(item)].add(str(term))
    oracle = directory / "oracle.json"
    return Truth(
        terms={item: frozenset(found) for item, found in by_item.items()},
        lacking=frozenset(str(item) for item, _, lacks in terms if lacks),
        categories={str(item): str(category) for item, category in categories},
        oracle=json.loads(oracle.read_text(encoding="utf-8")) if oracle.is_file() else {},
    )


def _table(path: Path, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    if not path.is_dir():
        return []
    frame = scan(str(path))
    if missing := sorted(set(columns) - set(frame.collect_schema().names())):
        raise InputError(f"truth table {path} lacks the columns {missing}: generate or adapt the warehouse again")
    return frame.select(pl.col(columns)).collect().rows()
