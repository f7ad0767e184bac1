"""Invented brands and series, and which series makes items of which terms."""

from __future__ import annotations

import numpy as np

from etl.sample.names import SERIES_CHARACTERS, SERIES_SUFFIXES, SYLLABLES
from etl.sample.terms import Term

SHARED_SERIES = 0.26  # of the series that may be shared; a term's first never is
ITEMS_PER_SERIES = 5
MOST_SERIES = 40_000  # about what the syllables can name without searching long


def zipf(n: int, exponent: float) -> np.ndarray:
    """Shares of ``n`` ranks by the Zipf-Mandelbrot law with offset 10 (the head of a shop is flatter than 1/rank)."""
    weight = (np.arange(n) + 10.0) ** -exponent
    return weight / weight.sum()


class Names:
    """Invented words, never the same twice and never one of ``used``."""

    def __init__(self, rng: np.random.Generator, used: set[str]) -> None:
        self.rng, self.used = rng, set(used)
        self.syllables = [pair.split(":") for pair in SYLLABLES.split()]

    def latin(self) -> tuple[str, str]:
        while True:
            length = 2 if self.rng.random() < 0.3 and len(self.used) < 2_000 else 3
            parts = [self.syllables[i] for i in self.rng.integers(len(self.syllables), size=length)]
            word = "".join(part[0] for part in parts)
            if word not in self.used:
                self.used.add(word)
                return word.capitalize(), "".join(part[1] for part in parts)

    def chinese(self) -> str | None:
        for _ in range(20):
            word = "".join(SERIES_CHARACTERS[i] for i in self.rng.integers(len(SERIES_CHARACTERS), size=2))
            if word not in self.used:
                self.used.add(word)
                return word
        return None


def make_brands(
    rng: np.random.Generator, names: Names, roots: np.ndarray
) -> tuple[list[tuple[str, str]], dict[int, np.ndarray]]:
    """Brands (Latin and, for half of them, Chinese name) and which of them serve which root category."""
    brands: list[tuple[str, str]] = []
    of_root: dict[int, np.ndarray] = {}
    for root, n_terms in zip(*np.unique(roots, return_counts=True), strict=True):
        first = len(brands)
        for _ in range(max(3, round(n_terms / 6))):
            latin, chinese = names.latin()
            brands.append((latin, chinese if rng.random() < 0.5 else latin))
        of_root[int(root)] = np.arange(first, len(brands))
    return brands, of_root


def make_series(
    rng: np.random.Generator,
    names: Names,
    items_of_term: np.ndarray,
    roots: np.ndarray,
    brands_of_root: dict[int, np.ndarray],
    terms: list[Term],
) -> tuple[list[str], list[int], list[tuple[int, int, float]]]:
    """Names and brands of the series, and cells (series, term, expected items)."""
    series: list[str] = []
    brand: list[int] = []
    cells: list[tuple[int, int, float]] = []
    per_series = max(ITEMS_PER_SERIES, items_of_term.sum() / MOST_SERIES)
    for term, items in enumerate(items_of_term):
        sizes = zipf(max(1, round(items / per_series)), 0.5) * items
        brands = brands_of_root[int(roots[term])]
        for rank, size in enumerate(sizes):
            chinese = names.chinese() if rng.random() < 0.25 else None
            series.append(chinese or names.latin()[0] + SERIES_SUFFIXES[rng.integers(len(SERIES_SUFFIXES))])
            brand.append(int(rng.choice(brands, p=zipf(len(brands), 1.0))))
            guests = _guests(rng, term, roots, terms) if rank and rng.random() < SHARED_SERIES else []
            parts = rng.dirichlet([8.0] + [5.0] * len(guests))
            members = zip([term, *guests], parts, strict=True)
            cells += [(len(series) - 1, member, float(size * part)) for member, part in members]
    return series, brand, cells


def _guests(rng: np.random.Generator, term: int, roots: np.ndarray, terms: list[Term]) -> list[int]:
    """One or two further terms of a series: siblings of the noun, neighbours in the root, or any."""
    kind = rng.random()
    if kind < 0.4:
        pool = [i for i, other in enumerate(terms) if other.noun == terms[term].noun and i != term]
    elif kind < 0.75:
        pool = [i for i in np.flatnonzero(roots == roots[term]).tolist() if i != term]
    else:
        pool = [i for i in range(len(terms)) if i != term]
    size = min(len(pool), 1 if rng.random() < 0.75 else 2)
    return [int(i) for i in rng.choice(pool, size=size, replace=False)] if size else []
