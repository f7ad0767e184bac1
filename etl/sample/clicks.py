"""The click log of the sample, day by day and in stretches of a day, so that memory does not grow with the log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from etl.sample.catalogue import Shelf
from etl.sample.queries import Phrases, write_queries
from etl.sample.shopping import (
    BOT_CLICK,
    BOT_QUERIES,
    CLICK,
    DAY,
    EVENTS,
    SCRAPER_CLICK,
    Actions,
    Day,
    Visits,
    act,
    visit,
)
from etl.sample.world import World

QUERIES_AT_ONCE = 40_000  # some 300,000 events, 200 MB at the peak
CLICKS_PER_USER = 4
CLICKS_PER_BOT = 12_000  # of everybody: a bot for so many
USERS_PER_APP = 8  # one shopper in so many uses an app that logs no dwell
LATE = 0.005  # events that arrive with the next day's partition
LOST_CLOCKS = 2  # events a day from 1970, and as many from ten years ahead
CHINESE_SHOPPERS = 0.45

SCHEMA = pa.schema(
    [
        pa.field("event_time", pa.timestamp("us", tz="UTC")),
        pa.field("user_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("session_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("query", pa.dictionary(pa.int32(), pa.string())),
        pa.field("item_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("event", pa.dictionary(pa.int32(), pa.string())),
        pa.field("position", pa.int32()),
        pa.field("dwell_ms", pa.int64()),
    ]
)
"""Dictionaries keep repeated texts once; Parquet stores plain strings."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How much happens; ``queries`` of people a day, ``bots`` by day as user numbers."""

    users: int
    queries: int
    bots: list[list[int]]


def plan_traffic(world: World, shelf: Shelf, seed: int, clicks: int, days: int) -> Traffic:
    """Traffic that makes about ``clicks`` clicks in ``days``, from the click rate of a trial day."""
    users = max(60, clicks // CLICKS_PER_USER)
    rng, first = np.random.default_rng([seed, 4]), Day.of(world, shelf, 0)
    trial = visit(rng, first, len(world.terms), users, 6_000, [], (0.0, 1.0))
    rate = (act(rng, shelf, first, trial).event == CLICK).sum() / len(trial.kind)
    n_bots = max(1, clicks // CLICKS_PER_BOT)
    rates = [SCRAPER_CLICK if b % 2 else BOT_CLICK for b in range(n_bots)]
    by_bots = BOT_QUERIES * 6.0 * sum(rates)  # about six items on a page
    bots = [[users + b for b in range(n_bots) if b % days == day] for day in range(days)]
    return Traffic(users, max(1, round((clicks - by_bots) / rate / days)), bots)


def click_log(
    world: World, shelf: Shelf, seed: int, traffic: Traffic, days: list[dt.date]
) -> Iterator[tuple[int, pa.Table]]:
    """(number of the day, events) in order of time; a day comes in several tables, late events first."""
    phrases = Phrases.of(world)
    late: list[pa.Table] = []
    for number, day in enumerate(days):
        for table in late:
            yield number, table
        late = []
        today = Day.of(world, shelf, number)
        parts = -(-traffic.queries // QUERIES_AT_ONCE)
        for part in range(parts):
            rng = np.random.default_rng([seed, 5, number, part])
            bots = traffic.bots[number] if part == 0 else []
            stretch = (part / parts, (part + 1) / parts)
            visits = visit(rng, today, len(world.terms), traffic.users, traffic.queries // parts, bots, stretch)
            actions = act(rng, shelf, today, visits)
            table = _as_table(world, shelf, phrases, rng, visits, actions, day, part)
            delayed = rng.random(table.num_rows) < LATE
            yield number, table.filter(pa.array(~delayed))
            late.append(table.filter(pa.array(delayed)))


def _as_table(
    world: World,
    shelf: Shelf,
    phrases: Phrases,
    rng: np.random.Generator,
    visits: Visits,
    actions: Actions,
    day: dt.date,
    part: int,
) -> pa.Table:
    tongue = (visits.user * 7919 % 100 < CHINESE_SHOPPERS * 100).astype(int)
    index, texts = write_queries(world, shelf.items, phrases, rng, visits.kind, visits.term, visits.wanted, tongue)
    order = np.argsort(actions.time, kind="stable")
    query, item = actions.query[order], actions.item[order]
    midnight = int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()) * 1_000_000
    time = midnight + actions.time[order]
    if part == 0:
        lost = rng.choice(len(time), size=min(len(time), 2 * LOST_CLOCKS), replace=False)
        time[lost[:LOST_CLOCKS]] = actions.time[order][lost[:LOST_CLOCKS]]
        time[lost[LOST_CLOCKS:]] += 3_652 * DAY
    users, user = np.unique(visits.user, return_inverse=True)
    stem = f"{day:%m%d}{part:03d}"
    position, dwell = actions.position[order], actions.dwell_ms[order]
    columns = [
        pa.array(time, pa.timestamp("us", tz="UTC")),
        _dictionary(user[query], [f"u{number:07d}" for number in users.tolist()]),
        _dictionary(visits.session[query], [f"s{stem}{number:06d}" for number in range(visits.session.max() + 1)]),
        _dictionary(index[query], texts),
        _dictionary(item, shelf.item_ids),
        _dictionary(actions.event[order], list(EVENTS)),
        pa.array(position.astype(np.int32)),
        pa.array(dwell, mask=(dwell < 0) | (visits.user[query] % USERS_PER_APP == 0)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _dictionary(index: np.ndarray, texts: list[str | None] | list[str]) -> pa.DictionaryArray:
    # Distinct values only: with one twice the writer of pyarrow 14 falls back to plain pages, and those of a column with
    # nulls had other bytes (of equal rows) in 10 of 12 runs.
    distinct: dict[str, int] = {}
    place = np.array([-1 if text is None else distinct.setdefault(text, len(distinct)) for text in texts])[index]
    indices = pa.array(np.maximum(place, 0).astype(np.int32), mask=place < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(distinct)))
