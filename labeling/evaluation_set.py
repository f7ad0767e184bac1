"""An evaluation set of one's own: a CSV file of queries and the items that are right for them, and what is wrong with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from etl.errors import InputError
from etl.product_template import ProductTemplate
from etl.text import language_of
from etl.typos import misspelt
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.product_text import product_text
from model.bundle import Bundle
from model.evaluate import Evaluation, rank

COLUMNS = ("query", "item_id")
SPLIT = "own set"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about the set that a reader of its figures must know, how often it occurs, and the first few cases."""

    what: str
    count: int
    first: tuple[str, ...]

    @classmethod
    def of(cls, what: str, found: Iterable[str]) -> Remark:
        cases = list(found)
        return cls(what, len(cases), tuple(dict.fromkeys(cases))[:_SHOWN])


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Queries (normalised), the places in ``titles`` of what is right for each, and what was wrong with the file."""

    gold: Mapping[str, frozenset[int]]
    titles: tuple[str, ...]
    """Every distinct text of the day's catalogue."""
    remarks: tuple[Remark, ...]


def read_evaluation_set(file: Path, warehouse: Warehouse, ds: dt.date, bundle: Bundle) -> EvaluationSet:
    """The file beside the catalogue of a day, with the text settings and the languages of a bundle.

    Raises:
        InputError: the file or the catalogue cannot be read, or no query with a known item is left.
    """
    spec = bundle.tokenizer.spec
    texts = local_tables.catalogue_texts(warehouse, ds, ProductTemplate(spec.product_text))
    usable = {item: product_text(raw, spec.normalise).text for item, raw in texts.items()}
    titles = {text: place for place, text in enumerate(sorted({text for text in usable.values() if text is not None}))}
    rows = [(spec.normalise.normal_form(query), query, item) for query, item in _rows(file)]
    known = [row for row in rows if row[2] in usable]
    with_text = [(query, titles[text]) for query, _, item in known if query and (text := usable[item]) is not None]
    gold: dict[str, set[int]] = {}
    for query, place in with_text:
        gold.setdefault(query, set()).add(place)
    remarks = [
        Remark.of(f"rows whose item is not in the catalogue of {ds}: left out", (r[2] for r in rows if r[2] not in usable)),
        Remark.of("rows whose item has no text to be found by: left out", (r[2] for r in known if usable[r[2]] is None)),
        Remark.of("rows whose query has no word: left out", (r[1] for r in rows if not r[0])),
        Remark.of("rows that repeat a query and an item, or another with the same text: counted once", _repeated(with_text)),
        Remark.of("spellings of a query that another row has otherwise: asked once", _spellings(rows)),
        Remark.of("queries without a right item that is left: left out", sorted({r[0] for r in rows if r[0]} - gold.keys())),
        Remark.of(*_foreign(gold, bundle)),
    ]
    found = tuple(remark for remark in remarks if remark.count)
    if not gold:
        problems = [f"{remark.count} {remark.what} ({', '.join(map(repr, remark.first))})" for remark in found]
        raise InputError.of(problems, heading=f"{file}: of {len(rows)} rows no query with a known item is left:")
    return EvaluationSet({query: frozenset(gold[query]) for query in sorted(gold)}, tuple(titles), found)


def evaluate_set(own: EvaluationSet, bundle: Bundle) -> Evaluation:
    """Ask a bundle the queries of the set, as they are and with typos, among all titles of the catalogue."""
    queries = list(own.gold)
    columns = {
        "split": np.full(len(queries), SPLIT),
        "query_id": np.arange(len(queries)),
        "language": np.array([language_of(query) for query in queries]),
    }
    gold = [sorted(places) for places in own.gold.values()]
    titles = bundle.encode(own.titles, "title")
    asked = (bundle.encode(texts, "query") for texts in (queries, [misspelt(query) for query in queries]))
    return rank(columns, gold, np.arange(len(own.titles)), titles, *asked)


def _rows(file: Path) -> list[tuple[str, str]]:
    """(query, item_id) of each row; an empty cell is an empty text."""
    try:
        frame = pl.read_csv(file, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"evaluation set {file} cannot be read as CSV (expected columns {', '.join(COLUMNS)}): {error}"
        ) from None
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise InputError(f"evaluation set {file} lacks the columns {missing} (found {frame.columns})")
    return [(query, item) for query, item in frame.select(pl.col(COLUMNS).fill_null("")).iter_rows()]


def _repeated(rows: list[tuple[str, int]]) -> Iterable[str]:
    seen: set[tuple[str, int]] = set()
    for row in rows:
        if row in seen:
            yield row[0]
        seen.add(row)


def _spellings(rows: list[tuple[str, str, str]]) -> Iterable[str]:
    """Raw queries beyond the first that are the same normalised."""
    first: dict[str, str] = {}
    return dict.fromkeys(raw for normal, raw, _ in rows if normal and first.setdefault(normal, raw) != raw)


def _foreign(gold: Iterable[str], bundle: Bundle) -> tuple[str, list[str]]:
    """Queries in a language of which training saw no query; none where the bundle does not know what it saw."""
    known = bundle.metrics.get("languages", {})
    foreign = [query for query in sorted(gold) if known and language_of(query) not in known]
    return (
        f"queries in a language that the bundle saw no query of in training (it saw {', '.join(sorted(known))}): counted",
        foreign,
    )
