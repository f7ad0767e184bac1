"""What the sample's items truly are, and how much of it an oracle reads out of their titles.

The oracle knows every table of the generator and sees the title only: brand, series, attributes, hints, the bare
noun, a term named in passing. It answers with the term most likely to be true, by Bayes' rule. It sees no clicks: what
was clicked for one particular item may tell more than its title does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from etl.sample.catalogue import Shelf
from etl.sample.items import (
    FULL,
    HINT_SHOWN,
    MISLEADING_SAME_ROOT,
    PARTIAL,
    SECOND_TERM,
    Items,
    attribute_texts,
    roots_of,
    siblings_of,
)
from etl.sample.world import World
from etl.text import contains, normalise, words

# N items, T terms, L levels of the tree


def lacks_term(world: World, shelf: Shelf) -> np.ndarray:
    """[N] whether no form of any true term of the item stands in its title."""
    forms = [[words(normalise(form)) for form in term.forms] for term in world.terms]

    def lacks(title: str, truth: np.ndarray) -> bool:
        split = words(normalise(title))
        return not any(contains(split, form) for term in truth[truth >= 0] for form in forms[term])

    return np.array([lacks(title, truth) for title, truth in zip(shelf.titles, shelf.truth, strict=True)])


def oracle(world: World, shelf: Shelf, lacking: np.ndarray) -> dict[str, Any]:
    """Hit rates of the oracle over all items; levels of the tree are counted from the root."""
    likelihood = _Likelihood(world, shelf.items)
    kin = _kin(world)
    ancestors = _ancestors(world)
    own_path = ancestors[np.array([term.node for term in world.terms])]
    hit = np.empty(len(shelf.items), bool)
    right = np.empty((len(hit), own_path.shape[1]), bool)
    for i in range(len(hit)):
        terms, weight = likelihood.posterior(i)
        hit[i] = (weight @ kin[terms]).argmax() in shelf.truth[i]
        right[i] = [_heaviest(level, weight) for level in own_path[terms].T] == own_path[shelf.items.term[i]]
    counts = own_path[shelf.items.term] >= 0
    return {
        "term_hit1": _mean(hit),
        "term_hit1_lacking": _mean(hit[lacking]),
        "category_accuracy_by_level": _by_level(right, counts),
        "category_accuracy_by_level_lacking": _by_level(right[lacking], counts[lacking]),
        "items": len(hit),
        "items_lacking": int(lacking.sum()),
    }


class _Likelihood:
    """P(what a title shows | term), up to factors that are the same for every term."""

    def __init__(self, world: World, items: Items) -> None:
        self.world, self.items = world, items
        self.series_start = np.searchsorted(world.cell_series, np.arange(len(world.series) + 1))
        self.brand_weight = np.zeros((len(world.brands), len(world.terms)))
        np.add.at(self.brand_weight, (world.series_brand[world.cell_series], world.cell_term), world.cell_share)
        self.noun = np.array([term.noun for term in world.terms])
        self.root = roots_of(world)
        self.same_root = np.bincount(self.root)[self.root]
        texts, slots = attribute_texts()
        families = {family: number for number, family in enumerate(slots)}
        self.family = np.array([families[world.nodes[term.node].family] for term in world.terms])
        self.attribute = np.zeros((len(texts), 2, len(families)))
        for family, lists in slots.items():
            for slot, values in enumerate(lists):
                self.attribute[values, slot, families[family]] = 1 / len(values)
        # Row -1 is "no hint".
        self.hint = np.zeros((len(world.hints) + 1, len(world.terms)))
        for number, term in enumerate(world.terms):
            self.hint[list(term.hints), number] = HINT_SHOWN / max(1, len(term.hints))
            self.hint[-1, number] = 1 - HINT_SHOWN * bool(term.hints)

    def posterior(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Candidate terms of item ``i`` and their weights."""
        items = self.items
        if items.mode[i] == FULL:
            return items.term[i : i + 1], np.ones(1)  # the title says it
        series = items.series[i]
        if items.series_shown[i]:
            cells = slice(self.series_start[series], self.series_start[series + 1])
            terms, weight = self.world.cell_term[cells], self.world.cell_share[cells].copy()
        else:
            weight = self.brand_weight[self.world.series_brand[series]]
            terms = np.flatnonzero(weight)
            weight = weight[terms]
        for slot, value in enumerate(items.attributes[i]):
            if value >= 0:
                weight = weight * self.attribute[value, slot, self.family[terms]]
        weight = weight * self.hint[items.hint[i], terms]
        if items.mode[i] == PARTIAL:
            weight = weight * (self.noun[terms] == self.noun[items.term[i]])
        if items.mention[i] >= 0:
            weight = weight * self._mentioned(items.mention[i], terms)
        return terms, weight

    def _mentioned(self, mention: int, terms: np.ndarray) -> np.ndarray:
        near = (self.root[terms] == self.root[mention]) / np.maximum(1, self.same_root[terms] - 1)
        far = 1 / (len(self.root) - 1)
        return (terms != mention) * (MISLEADING_SAME_ROOT * near + (1 - MISLEADING_SAME_ROOT) * far)


def _kin(world: World) -> np.ndarray:
    """[T, T] probability that an item of one term is of the other too."""
    kin = np.eye(len(world.terms), dtype=np.float32)
    for term, siblings in enumerate(siblings_of(world)):
        kin[term, siblings] += SECOND_TERM / max(1, len(siblings))
        kin[term, list(world.wider[term])] = 1
    return kin


def _ancestors(world: World) -> np.ndarray:
    """[nodes, L] path of each node, -1 below it."""
    paths = [world.ancestors(node) for node in range(len(world.nodes))]
    levels = max(map(len, paths))
    return np.array([path + [-1] * (levels - len(path)) for path in paths])


def _heaviest(nodes: np.ndarray, weight: np.ndarray) -> int:
    found, index = np.unique(nodes, return_inverse=True)
    return int(found[np.bincount(index, weight).argmax()])


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4) if len(values) else 0.0


def _by_level(right: np.ndarray, counts: np.ndarray) -> list[float]:
    return [_mean(right[counts[:, level], level]) for level in range(right.shape[1]) if counts[:, level].any()]
