"""How shoppers behave: visits, what a result page shows them, and what they do with it. Arrays only, no texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etl.sample.catalogue import Shelf
from etl.sample.queries import (
    BRAND,
    CAMPAIGN,
    CATEGORY,
    COLOUR,
    KIND_SHARES,
    NOUN,
    SERIES,
    SERIES_TERM,
    TERM,
    WIDE,
)
from etl.sample.series import zipf
from etl.sample.world import World

# n queries, K slots of a result page, E events

SLOTS = 8
SHOWN_SHARES = (0.30, 0.30, 0.20, 0.20)  # pages that show 5, 6, 7 or 8 items
POSITION_BIAS = 0.7  # an item at position p is looked at with probability p**-0.7
SESSION_LENGTHS = np.array([0.55, 0.22, 0.12, 0.07, 0.04])
CHANGE_OF_MIND = 0.25
TERM_POPULARITY = 0.9  # exponent
SLIPS = 0.04  # items that are looked at and clicked by mistake; a third of those clicks dwell all the same
BOT_QUERIES = 250  # of one bot, all within an hour
BOT_CLICK = 0.06
SCRAPER_CLICK = 0.01  # every second robot looks at everything and clicks little: no rule on clicks finds it
CORRECTED = 0.25  # slips after which the shopper goes at once to the best of the page
IMPRESSION, CLICK, CART, ORDER = range(4)
EVENTS = ("impression", "click", "cart", "order")
# Shares of the day by hour (UTC): a shop with customers in Europe and China.
HOURS = np.array([3, 3, 2.5, 2, 2, 2, 2.5, 3, 4, 5, 5, 5, 5.5, 5.5, 5, 4.5, 4.5, 5, 6, 7, 7, 6, 5, 4])
SECOND = 1_000_000
DAY = 86_400 * SECOND


class Groups:
    """Draws items out of groups (terms, series, nouns, leaves) by weight."""

    def __init__(self, group: np.ndarray, item: np.ndarray, weight: np.ndarray, n_groups: int) -> None:
        order = np.argsort(group, kind="stable")
        self.item = item[order]
        self.total = np.concatenate([[0.0], np.cumsum(weight[order])])
        self.start = np.searchsorted(group[order], np.arange(n_groups + 1))

    def draw(self, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One item of each given group; a group without items must not be asked for."""
        first, end = self.start[group], self.start[group + 1]
        assert (first < end).all(), "a group without items was asked for one"
        mass = self.total[first] + rng.random(group.shape) * (self.total[end] - self.total[first])
        at = np.searchsorted(self.total, mass, side="right") - 1
        return self.item[np.clip(at, first, end - 1)]


@dataclass(frozen=True, slots=True)
class Day:
    """Who belongs to what among the items on sale on a day."""

    by_term: Groups
    by_series: Groups
    by_noun: Groups
    by_leaf: Groups
    by_popularity: Groups
    noun: np.ndarray
    """[N] noun of an item; leaf and brand alike."""
    leaf: np.ndarray
    brand: np.ndarray

    @classmethod
    def of(cls, world: World, shelf: Shelf, day: int) -> Day:
        alive = np.flatnonzero((shelf.first_day <= day) & (day < shelf.end_day))
        noun = np.array([term.noun for term in world.terms])[shelf.items.term]
        leaf = np.array([term.node for term in world.terms])[shelf.items.term]
        truth = shelf.truth[alive]
        row, column = np.nonzero(truth >= 0)
        weight = shelf.weight[alive]
        by_term = Groups(truth[row, column], alive[row], weight[row] * np.where(column, 0.5, 1.0), len(world.terms))
        popularity = zipf(len(world.terms), TERM_POPULARITY)[shelf.items.term[alive]] * weight
        return cls(
            by_term,
            Groups(shelf.items.series[alive], alive, weight, len(world.series)),
            Groups(noun[alive], alive, popularity, len(world.nouns)),
            Groups(leaf[alive], alive, popularity, len(world.nodes)),
            Groups(np.zeros(len(alive), int), alive, popularity, 1),
            noun,
            leaf,
            world.series_brand[shelf.items.series],
        )


@dataclass(frozen=True, slots=True)
class Visits:
    """n queries of one stretch of a day, in visits; every array is [n]."""

    session: np.ndarray
    user: np.ndarray
    time: np.ndarray
    """Microseconds since midnight."""
    kind: np.ndarray
    term: np.ndarray
    wanted: np.ndarray
    crawled: np.ndarray
    """Share of the items shown that a robot clicks; 0 for people."""


@dataclass(frozen=True, slots=True)
class Actions:
    """E events; ``query`` is an index into the visits, position 0 and dwell -1 stand for null."""

    query: np.ndarray
    item: np.ndarray
    event: np.ndarray
    position: np.ndarray
    dwell_ms: np.ndarray
    time: np.ndarray


def visit(
    rng: np.random.Generator, day: Day, n_terms: int, n_users: int, n: int, bots: list[int], stretch: tuple[float, float]
) -> Visits:
    """About ``n`` queries of people and those of ``bots`` (user numbers), within a ``stretch`` of the day's traffic."""
    lengths = rng.choice(5, size=max(1, round(n / (SESSION_LENGTHS @ np.arange(1, 6)))), p=SESSION_LENGTHS) + 1
    session = np.repeat(np.arange(len(lengths)), lengths)
    first = np.concatenate([[True], session[1:] != session[:-1]])
    hours = np.concatenate([[0.0], np.cumsum(HOURS / HOURS.sum())])
    # At most five minutes between queries: a visit stays within half an hour, and starts so that it ends the same day.
    clock = np.linspace(0, 86_400 - 1_800, 25)
    start = np.interp(stretch[0] + rng.random(len(lengths)) * (stretch[1] - stretch[0]), hours, clock)
    gap = np.where(first, 0.0, np.minimum(300.0, 20 + rng.exponential(90.0, len(session))))
    since = np.cumsum(gap)
    seconds = start[session] + since - since[first][session]
    popularity = np.cumsum(zipf(n_terms, TERM_POPULARITY))
    drawn = np.minimum(np.searchsorted(popularity, rng.random(len(session))), n_terms - 1)
    fresh = first | (rng.random(len(session)) < CHANGE_OF_MIND)
    term = drawn[np.maximum.accumulate(np.where(fresh, np.arange(len(session)), 0))]
    user = (n_users * rng.random(len(lengths)) ** 1.3).astype(int)[session]
    kind = rng.choice(len(KIND_SHARES), size=len(session), p=KIND_SHARES)
    bot_hours = rng.integers(0, 23, len(bots))
    bot_seconds = (bot_hours[:, None] + np.sort(rng.random((len(bots), BOT_QUERIES)), axis=1)) * 3600.0
    robots = np.array(bots, int)
    crawled = np.repeat(np.where((robots - n_users) % 2, SCRAPER_CLICK, BOT_CLICK), BOT_QUERIES)
    term = np.concatenate([term, rng.integers(n_terms, size=bot_seconds.size)])
    return Visits(
        session=np.concatenate([session, len(lengths) + np.repeat(np.arange(len(bots)), BOT_QUERIES)]),
        user=np.concatenate([user, np.repeat(np.array(bots, int), BOT_QUERIES)]),
        time=(np.concatenate([seconds, bot_seconds.ravel()]) * SECOND).astype(np.int64),
        kind=np.concatenate([kind, np.full(bot_seconds.size, TERM)]),
        term=term,
        wanted=day.by_term.draw(term, rng),
        crawled=np.concatenate([np.zeros(len(session)), crawled]),
    )


def result_pages(
    rng: np.random.Generator, shelf: Shelf, day: Day, visits: Visits
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items, positions (0 where nothing is shown) and relevance (0 to 1), each [n, K]."""
    n = len(visits.kind)
    aim = _aim(visits, day, shelf, rng)
    source = rng.random((n, SLOTS))
    wanted = np.repeat(visits.wanted[:, None], SLOTS, axis=1)
    item = np.where(source < 0.62, aim, day.by_series.draw(shelf.items.series[wanted], rng))
    item = np.where((source >= 0.74) & (source < 0.88), day.by_leaf.draw(day.leaf[wanted], rng), item)
    item = np.where(source >= 0.88, day.by_popularity.draw(np.zeros((n, SLOTS), int), rng), item)
    # The engine usually finds what is wanted, and puts it high.
    found = np.flatnonzero(rng.random(n) < 0.85)
    item[found, rng.integers(0, 4, len(found))] = visits.wanted[found]
    shown = np.arange(SLOTS) < rng.choice(4, size=n, p=SHOWN_SHARES)[:, None] + 5
    for k in range(1, SLOTS):
        shown[:, k] &= ~((item[:, :k] == item[:, k : k + 1]) & shown[:, :k]).any(axis=1)
    return item, np.where(shown, np.cumsum(shown, axis=1), 0), _relevance(visits, shelf, day, item)


def _aim(visits: Visits, day: Day, shelf: Shelf, rng: np.random.Generator) -> np.ndarray:
    """[n, K] items of what the query names: a term, a noun, a category, a series, or anything."""
    kind = np.repeat(visits.kind[:, None], SLOTS, axis=1)
    wanted = np.repeat(visits.wanted[:, None], SLOTS, axis=1)
    item = day.by_term.draw(np.repeat(visits.term[:, None], SLOTS, axis=1), rng)
    item = np.where(kind == NOUN, day.by_noun.draw(day.noun[wanted], rng), item)
    item = np.where(kind == CATEGORY, day.by_leaf.draw(day.leaf[wanted], rng), item)
    item = np.where(kind == WIDE, day.by_popularity.draw(np.zeros_like(wanted), rng), item)
    return np.where(kind == SERIES, day.by_series.draw(shelf.items.series[wanted], rng), item)


def _relevance(visits: Visits, shelf: Shelf, day: Day, item: np.ndarray) -> np.ndarray:
    """Probability that a shopper who looks at an item clicks it."""
    kind, wanted = visits.kind[:, None], visits.wanted[:, None]
    items = shelf.items
    named = (shelf.truth[item] == visits.term[:, None, None]).any(axis=2)
    named = np.where(kind == NOUN, day.noun[item] == day.noun[wanted], named)
    named = np.where(kind == CATEGORY, day.leaf[item] == day.leaf[wanted], named)
    same_series = items.series[item] == items.series[wanted]
    named = np.where(kind == SERIES, same_series, named) | (kind == WIDE)
    fits = np.ones_like(named)
    for asked, fit in (
        (BRAND, day.brand[item] == day.brand[wanted]),
        (COLOUR, items.colour[item] == items.colour[wanted]),
        (SERIES_TERM, same_series),
    ):
        fits = np.where(kind == asked, fit, fits)
    near = day.noun[item] == day.noun[wanted]
    relevance = np.select([item == wanted, named & fits, named, near], [0.60, 0.29, 0.09, 0.08], default=0.015)
    return np.where(visits.crawled[:, None] > 0, 0.0, relevance)


def act(rng: np.random.Generator, shelf: Shelf, day: Day, visits: Visits) -> Actions:
    """Everything that happens on the result pages of ``visits``: impressions, clicks, carts, orders."""
    item, position, relevance = result_pages(rng, shelf, day, visits)
    query, slot = np.nonzero(position)
    item, position, relevance = item[query, slot], position[query, slot], relevance[query, slot]
    looked = position**-POSITION_BIAS
    draw = rng.random(len(query))
    meant = draw < relevance * looked
    slipped = ~meant & (draw > 1 - SLIPS * looked)
    crawled = rng.random(len(query)) < visits.crawled[query]
    clicked = np.flatnonzero(meant | slipped | crawled)
    robot = visits.crawled[query][clicked] > 0
    dwell = _dwell(rng, meant[clicked], robot)
    # Six in a hundred come back to the same item within the visit.
    again = (rng.random(len(clicked)) < 0.06) & meant[clicked]
    carted = (rng.random(len(clicked)) < 0.16) & meant[clicked] & (dwell > 2_000)
    ordered = carted & (rng.random(len(clicked)) < 0.35)
    shown_at = visits.time[query] + position * 30_000
    # One after the other: a page's next click comes when the shopper is back from the last, after a minute at most.
    before = (rng.uniform(1.0, 12.0, len(clicked)) * SECOND).astype(np.int64)
    clicked_at = visits.time[query[clicked]] + _running(before, query[clicked])
    away = np.minimum(dwell, 60_000) * 1_000
    clicked_at += _running(away, query[clicked]) - away
    carted_at = clicked_at + np.minimum(dwell, 240_000) * 1_000
    again_at = clicked_at + (rng.uniform(30, 240, len(clicked)) * SECOND).astype(np.int64)
    again_dwell = _dwell(rng, meant[clicked], robot)
    best = np.empty(len(visits.kind), int)
    by_relevance = np.argsort(relevance, kind="stable")
    best[query[by_relevance]] = by_relevance
    instead = best[query[clicked]]
    corrected = slipped[clicked] & ~robot & (dwell < 2_000) & (rng.random(len(clicked)) < CORRECTED) & (instead != clicked)
    instead_dwell = _dwell(rng, np.ones(len(clicked), bool), robot)
    # The mail that leads to a campaign's items is no result page.
    logged = np.flatnonzero(visits.kind[query] != CAMPAIGN)
    none = np.full(len(query), -1)
    blocks = (
        (logged, IMPRESSION, none[logged], shown_at[logged]),
        (clicked, CLICK, dwell, clicked_at),
        (clicked[again], CLICK, again_dwell[again], again_at[again]),
        (instead[corrected], CLICK, instead_dwell[corrected], (clicked_at + dwell * 1_000)[corrected]),
        (clicked[carted], CART, none[clicked][carted], carted_at[carted]),
        (clicked[ordered], ORDER, none[clicked][ordered], carted_at[ordered] + 60 * SECOND),
    )
    rows = np.concatenate([row for row, *_ in blocks])
    return Actions(
        query=query[rows],
        item=item[rows],
        event=np.concatenate([np.full(len(row), event) for row, event, *_ in blocks]),
        position=position[rows],
        dwell_ms=np.concatenate([dwelt for _, _, dwelt, _ in blocks]),
        time=np.minimum(np.concatenate([at for *_, at in blocks]), DAY - 1),
    )


def _running(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of the values so far, [N], beginning anew where the sorted ``group`` changes."""
    total = np.cumsum(values)
    first = np.searchsorted(group, group, side="left")
    return total - (total - values)[first]


def _dwell(rng: np.random.Generator, meant: np.ndarray, bot: np.ndarray) -> np.ndarray:
    """Milliseconds: half a minute for what was meant, under two seconds for most slips and for bots."""
    long = rng.lognormal(np.log(30_000), 0.9, len(meant))
    short = rng.uniform(200, 1_900, len(meant))
    stays = rng.random(len(meant)) < np.where(meant, 0.96, 0.4)
    dwell = np.where(stays, np.maximum(long, 2_500), short)
    return np.where(bot, rng.uniform(300, 4_000, len(meant)), dwell).astype(np.int64)
