"""What exists in the sample shop before any item does: tree, nouns, terms, brands, series and who makes what.

A series (an invented name) mostly belongs to one term; about a sixth of them are shared by two or three, so that a title
without its term is ambiguous even to somebody who knows every table here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etl.sample.series import Names, make_brands, make_series, zipf
from etl.sample.terms import Term, compose_terms, parse_hints, wider_terms
from etl.sample.tree import Node, Noun, parse_tree
from etl.sample.words import TREE
from etl.text import normalise, stem, words

# T terms, S series, C cells (series, term)


@dataclass(frozen=True, slots=True)
class World:
    """The tables that items are drawn from; terms are ordered by popularity."""

    nodes: list[Node]
    nouns: list[Noun]
    terms: list[Term]
    hints: list[tuple[str, str]]
    brands: list[tuple[str, str]]
    series: list[str]
    series_brand: np.ndarray
    """[S] index into ``brands``."""
    cell_series: np.ndarray
    """[C] ascending."""
    cell_term: np.ndarray
    cell_share: np.ndarray
    """[C] share of all items that are of this series and this term; sums to 1."""
    wider: list[tuple[int, ...]]
    """Terms that every item of a term is of too: a trail running shoe is a running shoe."""

    def ancestors(self, node: int) -> list[int]:
        """Nodes from the root down to ``node``."""
        path: list[int] = []
        while node >= 0:
            path.insert(0, node)
            node = self.nodes[node].parent
        return path


def build_world(seed: int, n_terms: int, n_items: int) -> World:
    """The shop's world, the same for the same three numbers."""
    rng = np.random.default_rng([seed, 1])
    nodes, nouns = parse_tree(TREE)
    hints, hints_of = parse_hints()
    terms = compose_terms(rng, nouns, hints_of, n_terms)
    used = {stem(word) for term in terms for form in term.forms for word in words(normalise(form))}
    names = Names(rng, used)
    share = 0.3 / n_terms + 0.7 * zipf(n_terms, 0.7)
    roots = np.array([_root(nodes, term.node) for term in terms])
    brands, brands_of_root = make_brands(rng, names, roots)
    series, series_brand, cells = make_series(rng, names, share * n_items, roots, brands_of_root, terms)
    cell_series, cell_term, weight = (np.array(column) for column in zip(*cells, strict=True))
    return World(
        nodes, nouns, terms, hints, brands, series, np.array(series_brand), cell_series, cell_term, weight / weight.sum(),
        wider_terms(terms),
    )  # fmt: skip


def _root(nodes: list[Node], node: int) -> int:
    while nodes[node].parent >= 0:
        node = nodes[node].parent
    return node
