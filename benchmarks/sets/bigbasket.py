"""BigBasket products: a real three-level category tree, with clicks made up from the titles of four fifths of them.

Two days: ``ds`` holds what a model may learn from; ``ds + 1`` has the same clicks and all titles, those of the test
part too. The types of ``left_out_types`` have no click at all: only their names in the tree can find them.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.sets.adapter import (
    TRUTH_CATEGORIES,
    AdapterConfig,
    data_file,
    open_root,
    run_command,
    write_catalogue,
    write_events,
    write_input,
    write_settings,
    write_truth,
)
from etl.contracts import TAXONOMY
from etl.errors import InputError

SET = "bigbasket"
CLICKS = (2, 8)  # made-up clicks an item: from, to (exclusive)
PHRASES = ("type", "sub_category", "brand_type", "brand")
PHRASE_SHARES = (0.55, 0.2, 0.15, 0.1)
WRONG_SHARE = 0.05

MADE_UP = (
    "all clicks: queries are phrases of an item's type, sub-category and brand; users, sessions and times too",
    f"{WRONG_SHARE:.0%} of the clicks go to a wrong item",
    "the second day repeats the clicks of the first; its catalogue has the test titles too",
)

SETTINGS = """# BigBasket products, written by benchmarks.bigbasket.
[warehouse]
absent = ["vocabulary"]

[pairs]
min_users = 1        # users are made up: one for each click
window_days = 1
valid_share = 0.02
test_share = 0.02
test_item_share = 0  # no item is held out: the tasks that these figures are compared with hold out none
"""


class BigBasketConfig(AdapterConfig):
    """Where the products are and where the warehouse goes."""

    data: str = f"../shared/data/{SET}"
    """Directory with BigBasket_Products.csv.gz."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product; ``path`` is category, sub-category, type."""

    item_id: str
    title: str
    brand: str
    path: tuple[str, str, str]


def read_products(directory: str) -> list[Product]:
    """The products with a title, in file order; of rows with the same title the first one counts.

    Raises:
        InputError: the file is missing, or lacks a column.
    """
    path = data_file(directory, "BigBasket_Products.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        expected = ("index", "product", "brand", "category", "sub_category", "type")
        if missing := sorted(set(expected) - set(rows.fieldnames or ())):
            raise InputError(f"{path} lacks the columns {missing} (found {rows.fieldnames})")
        products: dict[str, Product] = {}
        for row in rows:
            title, tree_path = row["product"], (row["category"], row["sub_category"], row["type"])
            if title:
                products.setdefault(title, Product(row["index"], title, row["brand"].strip(), tree_path))
    return list(products.values())


def held_out_part(products: Sequence[Product]) -> np.ndarray:
    """Which products are held out, bool [N]: a fifth, drawn as all published figures on this set here are."""
    return np.random.RandomState(13).rand(len(products)) < 0.2


def left_out_types(products: Sequence[Product]) -> set[str]:
    """The types that no click shows: a fifth of them."""
    types = sorted({product.path[2] for product in products})
    return set(np.random.RandomState(7).choice(types, len(types) // 5, replace=False).tolist())


def node_id(path: Sequence[str]) -> str:
    """Id of a node, by its full path: one type stands under up to five parents."""
    return "c" + hashlib.sha256("\x1f".join(path).encode()).hexdigest()[:12]


def warehouse(config: BigBasketConfig) -> Mapping[str, Any]:
    """Write click log, catalogue, taxonomy and truth of the set as a warehouse of two days."""
    products = read_products(config.data)
    held_out, unseen = held_out_part(products), left_out_types(products)
    learnt = [product for product, out in zip(products, held_out, strict=True) if not out]
    root = open_root(config.root, SET, MADE_UP)
    sessions, columns = _clicks([product for product in learnt if product.path[2] not in unseen])
    for ds, shown in ((config.ds, learnt), (config.ds + dt.timedelta(days=1), products)):
        write_events(root, ds, sessions, columns)
        write_catalogue(root, ds, [p.item_id for p in shown], [p.title for p in shown], "en")
    nodes = sorted({product.path[:depth] for product in products for depth in (1, 2, 3)})
    write_input(
        root,
        TAXONOMY,
        {
            "category_id": [node_id(path) for path in nodes],
            "parent_id": [node_id(path[:-1]) if path[1:] else None for path in nodes],
            "name": [path[-1] for path in nodes],
        },
    )
    rows = [(p.item_id, node_id(p.path)) for p, out in zip(products, held_out, strict=True) if out]
    truth = write_truth(root, "item_categories", TRUTH_CATEGORIES, rows)
    write_settings(root, SETTINGS)
    figures = {"items": len(products), "clicks": len(sessions), "nodes": len(nodes), "truth": truth}
    return figures | {"left_out_types": len(unseen), "days": f"{config.ds},{ds}", "path": root}


def phrases(product: Product, kind: str) -> list[str]:
    """What a shopper might type for a product: parts of a name that joins several things count one by one."""
    category = product.path[1] if kind == "sub_category" else product.path[2]
    parts = [part.strip().lower() for part in re.split(r"[,&/]", category) if part.strip()]
    brand = product.brand.lower()
    if kind == "brand":
        return [brand] if brand else parts
    return [f"{brand} {part}".strip() for part in parts] if kind == "brand_type" else parts


def _clicks(products: Sequence[Product]) -> tuple[list[str], dict[str, list[Any]]]:
    """The session of each made-up click, and its columns."""
    random = np.random.RandomState(29)
    columns: dict[str, list[Any]] = {name: [] for name in ("query", "item_id", "event", "position")}
    for product in products:
        for _ in range(random.randint(*CLICKS)):
            choices = phrases(product, PHRASES[random.choice(len(PHRASES), p=PHRASE_SHARES)])
            wrong = random.rand() < WRONG_SHARE
            clicked = products[random.randint(len(products))] if wrong else product
            row = (choices[random.randint(len(choices))], clicked.item_id, "click", 1 + random.randint(10))
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return [f"s{n}" for n in range(len(columns["query"]))], columns


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmarks.sets.bigbasket", __doc__, {"warehouse": (BigBasketConfig, warehouse)}, argv)


if __name__ == "__main__":
    sys.exit(main())
