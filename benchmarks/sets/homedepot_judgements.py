"""The judgements of the Home Depot set and the conventions by which all figures on it are measured."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.sets.adapter import AdapterConfig, data_file
from etl.errors import InputError

SET = "homedepot"
CLICKED = 2.33
POSITIVE = 2.67
TERM_PRODUCTS = 5  # positively judged products that make a query a term


class HomeDepotConfig(AdapterConfig):
    """Where the judgements are and where the warehouse is."""

    data: str = f"../shared/data/{SET}"
    """Directory with train.csv.gz of Kaggle's "Home Depot Product Search Relevance"."""

    hold_out_products: bool = False
    """Leave the products that the title-to-term task is measured on out of clicks and catalogue."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One row of the set: how well a product answers a query, 1 to 3."""

    query: str
    product: str
    title: str
    relevance: float


def read_judgements(directory: str) -> list[Judgement]:
    """All judgements in file order.

    Raises:
        InputError: the file is missing, or lacks a column.
    """
    path = data_file(directory, "train.csv.gz")
    with gzip.open(path, "rt", encoding="latin-1", newline="") as file:
        rows = csv.DictReader(file)
        expected = ("search_term", "product_uid", "product_title", "relevance")
        if missing := sorted(set(expected) - set(rows.fieldnames or ())):
            raise InputError(f"{path} lacks the columns {missing} (found {rows.fieldnames}): is it Kaggle's train.csv?")
        return [Judgement(r["search_term"], r["product_uid"], r["product_title"], float(r["relevance"])) for r in rows]


def unseen_queries(judgements: Sequence[Judgement]) -> set[str]:
    """The queries that never enter the click log: a tenth, drawn as all published figures on this set here are."""
    queries = sorted({j.query for j in judgements})
    return set(np.random.RandomState(13).choice(queries, len(queries) // 10, replace=False).tolist())


def held_out_products(terms: Mapping[str, set[str]]) -> tuple[set[str], set[str]]:
    """Products of the title-to-term task that no training sees: those to measure on, and those to choose settings on.

    A tenth of those with a term for the one, drawn as all published figures on this set here are, and a twentieth of all
    from the rest for the other.
    """
    products = sorted({product for found in terms.values() for product in found})
    test = set(np.random.RandomState(17).choice(products, len(products) // 10, replace=False).tolist())
    rest = [product for product in products if product not in test]
    return test, set(np.random.RandomState(18).choice(rest, len(products) // 20, replace=False).tolist())


def titles_by_product(judgements: Sequence[Judgement]) -> dict[str, str]:
    """Product -> title, by product; where a product has several titles the first one counts."""
    titles: dict[str, str] = {}
    for j in judgements:
        titles.setdefault(j.product, j.title)
    return dict(sorted(titles.items(), key=lambda entry: int(entry[0])))


def products_of_terms(judgements: Sequence[Judgement]) -> dict[str, set[str]]:
    """Term -> products that it is true of: queries with enough products judged positive, in order."""
    products = defaultdict(set)
    for j in judgements:
        if j.relevance >= POSITIVE:
            products[j.query].add(j.product)
    return {query: found for query, found in sorted(products.items()) if len(found) >= TERM_PRODUCTS}
