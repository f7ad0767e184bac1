"""The labelling tasks of the public sets: what a system may learn from, and the cases that it is chosen and measured on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.sets.bigbasket import held_out_part, left_out_types, read_products
from benchmarks.sets.homedepot_judgements import (
    POSITIVE,
    held_out_products,
    products_of_terms,
    read_judgements,
    titles_by_product,
    unseen_queries,
)
from benchmarks.sets.taobao import Title, read_titles
from etl.text import normalise, stem, words

NEGATIVE = 1.67


@dataclass(frozen=True, slots=True)
class Case:
    """A title and what is true of it, as positions in the labels of its task."""

    text: str
    gold: frozenset[int]
    wanted: int = -1
    """The one label that this case asks for; -1: any of ``gold``."""
    wrong: frozenset[int] = frozenset()
    """Labels that were judged to be wrong; those in neither set are unknown."""


@dataclass(frozen=True, slots=True)
class Task:
    """One set: ``views`` are ways of showing the same cases, ``slices`` parts of them."""

    name: str
    labels: Sequence[str]
    learnt: Sequence[tuple[str, int]]
    """(title, label) that the clicks tell."""
    valid: Mapping[str, Sequence[Case]]
    """View -> cases that settings are chosen on."""
    test: Mapping[str, Sequence[Case]]
    """View -> cases that are measured once."""
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> which of the test cases, bool [N]."""


def taobao(directory: str) -> Task:
    """Titles to terms: a case is a title and one of its terms; shown whole, without that term, without all terms."""
    titles = {part: read_titles(directory, part) for part in ("train", "dev", "test")}
    terms = sorted({term for part in titles.values() for title in part for term in title.terms if words(normalise(term))})
    number = {term: n for n, term in enumerate(terms)}
    learnt = [(title.text, number[term]) for title in titles["train"] for term in title.terms if term in number]
    return Task("taobao", terms, learnt, _views(titles["dev"], number), _views(titles["test"], number))


def _views(titles: Sequence[Title], number: Mapping[str, int]) -> dict[str, list[Case]]:
    views = defaultdict(list)
    for title in titles:
        gold = frozenset(number[term] for term in title.terms if term in number)
        for term in title.terms:
            if term in number:
                shown = {"whole": title.text, "term cut": title.text.replace(term, ""), "all cut": title.cut().text}
                for view, text in shown.items():
                    views[view].append(Case(text, gold, number[term]))
    return dict(views)


def homedepot(directory: str) -> Task:
    """Titles to terms of products that no training saw; the slice are titles that lack a word of each of their terms."""
    judgements = read_judgements(directory)
    titles, terms, unseen = titles_by_product(judgements), products_of_terms(judgements), unseen_queries(judgements)
    number = {term: n for n, term in enumerate(terms)}
    test, valid = held_out_products(terms)
    gold: defaultdict[str, set[int]] = defaultdict(set)
    wrong: defaultdict[str, set[int]] = defaultdict(set)
    for j in judgements:
        if j.query in number and (j.relevance >= POSITIVE or j.relevance <= NEGATIVE):
            (gold if j.relevance >= POSITIVE else wrong)[j.product].add(number[j.query])
    learnt = [
        (titles[product], label)
        for product, found in sorted(gold.items())
        for label in sorted(found)
        if product not in test | valid and list(terms)[label] not in unseen
    ]
    cases = {
        part: [Case(titles[p], frozenset(gold[p]), wrong=frozenset(wrong[p])) for p in sorted(products)]
        for part, products in (("valid", valid), ("test", test))
    }
    lacks = np.array([all(_stems(terms_of) - _stems(c.text) for terms_of in _named(c, list(terms))) for c in cases["test"]])
    slices = {"all": np.ones(len(lacks), dtype=bool), "title lacks the term": lacks}
    return Task("homedepot", list(terms), learnt, {"whole": cases["valid"]}, {"whole": cases["test"]}, slices)


def _named(case: Case, labels: Sequence[str]) -> list[str]:
    return [labels[label] for label in case.gold]


def _stems(text: str) -> set[str]:
    return {stem(word) for word in words(normalise(text))}


VALID_SHARE = 0.05
"""Of BigBasket's titles with clicks, that settings of the supervised baselines are chosen on."""


def bigbasket(directory: str) -> Task:
    """Titles to full paths; the slices are types that clicks show, and types that only their names in the tree show."""
    products = read_products(directory)
    held_out, unseen = held_out_part(products), left_out_types(products)
    paths = sorted({product.path for product in products})
    number = {path: n for n, path in enumerate(paths)}
    learnt = [p for p, out in zip(products, held_out, strict=True) if not out and p.path[2] not in unseen]
    chosen_on = np.random.RandomState(11).rand(len(learnt)) < VALID_SHARE
    cases = {
        "valid": [Case(p.title, frozenset([number[p.path]])) for p, out in zip(learnt, chosen_on, strict=True) if out],
        "test": [Case(p.title, frozenset([number[p.path]])) for p, out in zip(products, held_out, strict=True) if out],
    }
    of_unseen = np.array([p.path[2] in unseen for p, out in zip(products, held_out, strict=True) if out])
    return Task(
        "bigbasket",
        [" > ".join(path) for path in paths],
        [(p.title, number[p.path]) for p, out in zip(learnt, chosen_on, strict=True) if not out],
        {"whole": cases["valid"]},
        {"whole": cases["test"]},
        {"types seen": ~of_unseen, "types left out": of_unseen},
    )


TASKS = {"taobao": taobao, "homedepot": homedepot, "bigbasket": bigbasket}
