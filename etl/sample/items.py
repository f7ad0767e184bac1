"""What each item of the sample is, and which of it its title shows."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from etl.sample.names import ATTRIBUTES, COLOURS
from etl.sample.world import World

# N items

FULL, PARTIAL, LACKING = 0, 1, 2
"""A title says its term, only the noun of it, or neither."""
MODES = (0.57, 0.05, 0.38)
LANGUAGE_SHARES = (0.52, 0.36, 0.12)
SERIES_HIDDEN = 0.06  # of the titles that lack their term; then the brand is all that is left
BRAND_SHOWN = 0.75
MODEL_SHOWN = 0.6
ATTRIBUTE_SHOWN = 0.55
HINT_SHOWN = 0.35  # titles that carry a hint at the modifier, where there is one
COLOUR_SHOWN = 0.7
SECOND_TERM = 0.10  # items that are of a second term of the same noun too
MISLEADING = 0.06  # titles that name another term
MISLEADING_SAME_ROOT = 0.5


@dataclass(frozen=True, slots=True)
class Items:
    """All items that are on sale on any day, one array entry each; -1 stands for none."""

    series: np.ndarray
    term: np.ndarray
    second: np.ndarray
    mode: np.ndarray
    language: np.ndarray
    series_shown: np.ndarray
    brand_shown: np.ndarray
    attributes: np.ndarray
    """[N, 2] index into :func:`attribute_texts`."""
    hint: np.ndarray
    mention: np.ndarray
    """Another term that the title names in passing."""
    colour: np.ndarray
    colour_shown: np.ndarray
    model: np.ndarray
    """Number of the model, 0 if the title does not say it; tells nothing of the term."""
    form: np.ndarray
    """[N, 3] uniform draws that choose the forms of term, second term and mention."""
    layout: np.ndarray
    """[N, 8] uniform draws that choose the order of a title's parts."""

    def take(self, rows: np.ndarray) -> Items:
        return Items(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def __len__(self) -> int:
        return len(self.term)


def attribute_texts() -> tuple[list[tuple[str, str]], dict[str, tuple[np.ndarray, ...]]]:
    """Distinct (English, Chinese) values, and which of them each slot of a family takes."""
    texts: dict[tuple[str, str], int] = {}
    slots = {}
    for family, lists in ATTRIBUTES.items():
        slots[family] = tuple(
            np.array([texts.setdefault(_pair(value), len(texts)) for value in values.split(",")]) for values in lists
        )
    return list(texts), slots


def colour_texts() -> list[tuple[str, str]]:
    return [_pair(value) for value in COLOURS.replace("\n", ",").split(",") if value.strip()]


def _pair(value: str) -> tuple[str, str]:
    en, _, zh = value.strip().partition("/")
    return en, zh


def draw_items(world: World, rng: np.random.Generator, n: int) -> Items:
    cell = np.repeat(np.arange(len(world.cell_share)), _apportion(rng, world.cell_share, n))
    term = world.cell_term[cell]
    mode = rng.choice(3, size=n, p=MODES)
    series_shown = (mode == FULL) | (rng.random(n) >= SERIES_HIDDEN)
    hints = [world.terms[t].hints for t in term]
    shown = rng.random(n) < HINT_SHOWN
    draws = rng.random(n)
    hint = [h[int(u * len(h))] if h and s else -1 for h, s, u in zip(hints, shown, draws, strict=True)]
    return Items(
        series=world.cell_series[cell],
        term=term,
        second=_second_terms(world, rng, term),
        mode=mode,
        language=rng.choice(3, size=n, p=LANGUAGE_SHARES),
        series_shown=series_shown,
        brand_shown=~series_shown | (rng.random(n) < BRAND_SHOWN),
        attributes=_attributes(world, rng, term),
        hint=np.array(hint),
        mention=_mentions(world, rng, term),
        colour=rng.integers(len(colour_texts()), size=n),
        colour_shown=rng.random(n) < COLOUR_SHOWN,
        # Few models a series, so that items of one model differ in colour and size only.
        model=np.where(rng.random(n) < MODEL_SHOWN, (world.cell_series[cell] * 37 % 90 + rng.integers(1, 4, n)) * 10, 0),
        form=rng.random((n, 3)),
        layout=rng.random((n, 8)),
    )


def _apportion(rng: np.random.Generator, share: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers that sum to ``n`` and are ``share * n`` on average."""
    whole = np.floor(share * n).astype(int)
    rest = share * n - whole
    return whole + rng.multinomial(n - whole.sum(), rest / rest.sum())


def _second_terms(world: World, rng: np.random.Generator, term: np.ndarray) -> np.ndarray:
    siblings = siblings_of(world)
    has = rng.random(len(term)) < SECOND_TERM
    draws = rng.random(len(term))
    pools = [siblings[t] for t in term]
    return np.array([p[int(u * len(p))] if h and len(p) else -1 for p, h, u in zip(pools, has, draws, strict=True)])


def siblings_of(world: World) -> list[np.ndarray]:
    """For each term, the other terms of its noun."""
    nouns = np.array([term.noun for term in world.terms])
    return [np.array([j for j in np.flatnonzero(nouns == nouns[i]) if j != i], int) for i in range(len(nouns))]


def _attributes(world: World, rng: np.random.Generator, term: np.ndarray) -> np.ndarray:
    slots = attribute_texts()[1]
    values = [slots[world.nodes[world.terms[t].node].family] for t in term]
    draws, shown = rng.random((2, len(term))), rng.random((2, len(term))) < ATTRIBUTE_SHOWN
    return np.array(
        [
            [v[slot][int(draws[slot, i] * len(v[slot]))] if shown[slot, i] else -1 for slot in (0, 1)]
            for i, v in enumerate(values)
        ]
    )


def roots_of(world: World) -> np.ndarray:
    """Root category of each term."""
    return np.array([world.ancestors(term.node)[0] for term in world.terms])


def _mentions(world: World, rng: np.random.Generator, term: np.ndarray) -> np.ndarray:
    roots = roots_of(world)
    mention = np.full(len(term), -1)
    for i in np.flatnonzero(rng.random(len(term)) < MISLEADING):
        near = rng.random() < MISLEADING_SAME_ROOT
        pool = np.flatnonzero(roots == roots[term[i]]) if near else np.arange(len(roots))
        pool = pool[pool != term[i]]
        mention[i] = rng.choice(pool) if len(pool) else -1
    return mention
