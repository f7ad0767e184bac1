"""The catalogue of the sample: which items are on sale on which day, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etl.sample.items import Items, draw_items
from etl.sample.names import PROMOTIONS
from etl.sample.titles import write_titles
from etl.sample.world import World

# N items

DUPLICATES = 0.02  # exact copies by other sellers
CHANGED_A_DAY = 0.01
RENEWED_A_DAY = 0.002  # items that leave and as many that come
COLD = 0.25  # items that hardly anybody is shown: their labels must come from what is like them
MOST_TRUE_TERMS = 4


@dataclass(frozen=True, slots=True)
class Shelf:
    """The items with what the days do to them."""

    items: Items
    item_ids: list[str]
    titles: list[str]
    truth: np.ndarray
    """[N, MOST_TRUE_TERMS] terms of an item, its own first, -1 where there are fewer."""
    weight: np.ndarray
    """Popularity among the items of its term: Zipf, and next to nothing for the cold ones."""
    first_day: np.ndarray
    end_day: np.ndarray
    seller_category: np.ndarray
    """Node that the seller chose, -1 if none."""

    def on_sale(self, day: int) -> np.ndarray:
        """Indices of the items of ``day`` (0 is the first), in the order of their ids."""
        alive = np.flatnonzero((self.first_day <= day) & (day < self.end_day))
        return alive[np.argsort(np.array(self.item_ids)[alive])]


def stock(world: World, seed: int, n_items: int, days: int) -> Shelf:
    """``n_items`` on sale on each of ``days``; a few go and a few come every day."""
    rng = np.random.default_rng([seed, 2])
    renewed = max(1, round(n_items * RENEWED_A_DAY)) if days > 1 else 0
    n = n_items + renewed * (days - 1)
    items = draw_items(world, rng, n)
    # Copies by other sellers: the item before, if it is of the same term.
    copied = (rng.random(n) < DUPLICATES) & (np.roll(items.term, 1) == items.term)
    copied[0] = False
    items = items.take(np.arange(n) - copied)
    rank = _rank_in_term(rng, items.term)
    first_day, end_day = np.zeros(n, int), np.full(n, days)
    # The most popular item of each term stays, so that no term is ever empty.
    movable = rng.permutation(np.flatnonzero(rank > 0))
    moves = np.repeat(np.arange(1, days), renewed)
    assert len(movable) >= 2 * len(moves), "too few items a term: the settings should have refused that"
    first_day[movable[: len(moves)]] = moves
    end_day[movable[len(moves) : 2 * len(moves)]] = moves
    return Shelf(
        items=items,
        item_ids=[f"i{number:07d}" for number in rng.permutation(n) + 1],
        titles=write_titles(world, items),
        truth=_truth(world, items),
        weight=(rank + 1.0) ** -0.8 * np.where((rank > 0) & (rng.random(n) < COLD), 0.01, 1.0),
        first_day=first_day,
        end_day=end_day,
        seller_category=_seller_category(world, rng, items),
    )


def changes(seed: int, day: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which items get a promotion in front of their title on ``day``, and which promotion."""
    rng = np.random.default_rng([seed, 3, day])
    changed = np.flatnonzero(rng.random(n) < CHANGED_A_DAY) if day else np.array([], int)
    return changed, rng.integers(len(PROMOTIONS), size=len(changed))


def _rank_in_term(rng: np.random.Generator, term: np.ndarray) -> np.ndarray:
    order = np.lexsort((rng.random(len(term)), term))
    starts = np.searchsorted(term[order], term[order], side="left")
    rank = np.empty(len(term), int)
    rank[order] = np.arange(len(term)) - starts
    return rank


def _truth(world: World, items: Items) -> np.ndarray:
    truth = np.full((len(items), MOST_TRUE_TERMS), -1)
    for i, (term, second) in enumerate(zip(items.term.tolist(), items.second.tolist(), strict=True)):
        own = [term] if second < 0 else [term, second]
        every = list(dict.fromkeys(own + [wide for t in own for wide in world.wider[t]]))[:MOST_TRUE_TERMS]
        truth[i, : len(every)] = every
    return truth


def _seller_category(world: World, rng: np.random.Generator, items: Items) -> np.ndarray:
    """Four in five sellers choose the right leaf, some another one, some none."""
    leaves = np.unique([noun.node for noun in world.nouns])
    right = np.array([term.node for term in world.terms])[items.term]
    kind = rng.random(len(items))
    return np.where(kind < 0.8, right, np.where(kind < 0.92, rng.choice(leaves, len(items)), -1))
