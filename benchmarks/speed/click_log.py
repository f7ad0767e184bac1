"""A made-up log of acts for measuring speed: Zipf-distributed queries and items, and one key that can be made hot."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etl.sample.series import zipf

DAYS = 7
FILES_PER_DAY = 2
DAY_US = 86_400_000_000
_LETTERS = str.maketrans("0123456789", "abcdefghij")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogShape:
    """What a log looks like; queries, items and users grow with the clicks, as a shop's do."""

    clicks: int
    hot_query: float = 0.0
    """Share of the clicks that are of one query."""
    hot_item: float = 0.0
    """Share of the clicks that are on one item."""
    seed: int = 5

    @property
    def name(self) -> str:
        return f"clicks={self.clicks},query={self.hot_query:g},item={self.hot_item:g}"

    @property
    def queries(self) -> int:
        return max(self.clicks // 40, 100)

    @property
    def items(self) -> int:
        return max(self.clicks // 20, 100)

    @property
    def users(self) -> int:
        return max(self.clicks // 8, 100)


def write_log(root: Path, shape: LogShape, last: dt.date) -> Path:
    """``root``/NAME with click_log/ds=…/ of :data:`DAYS` days and items.parquet (item_id, title_id), unless it is there."""
    directory = root / shape.name
    if (directory / "done").exists():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    rng = np.random.default_rng(shape.seed)
    titles = rng.permutation(shape.items).astype(np.int64)
    directory.mkdir(parents=True)
    items = pa.table({"item_id": [f"item{n:08d}" for n in range(shape.items)], "title_id": titles})
    pq.write_table(items, directory / "items.parquet")
    popular = np.cumsum(zipf(shape.queries, 0.9)), np.cumsum(zipf(shape.items, 0.8))
    for back in range(DAYS):
        day = last - dt.timedelta(days=back)
        for part in range(FILES_PER_DAY):
            path = directory / "click_log" / f"ds={day}" / f"part-{part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(_events(shape, rng, day, popular), path)
    (directory / "done").touch()
    return directory


def _events(shape: LogShape, rng: np.random.Generator, day: dt.date, popular: tuple[np.ndarray, np.ndarray]) -> pa.Table:
    n = shape.clicks // (DAYS * FILES_PER_DAY)
    query, item = (np.minimum(np.searchsorted(total, rng.random(n)), len(total) - 1) for total in popular)
    query = np.where(rng.random(n) < shape.hot_query, 0, query)
    item = np.where(rng.random(n) < shape.hot_item, 0, item)
    # A visitor's acts follow each other: a fifth of them repeat the query, some the item too.
    for column, share in ((query, 0.2), (item, 0.05)):
        again = np.flatnonzero(rng.random(n - 1) < share) + 1
        column[again] = column[again - 1]
    user = np.sort(rng.integers(shape.users, size=n))
    start = int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp() * 1_000_000)
    event = rng.choice(3, size=n, p=(0.9, 0.07, 0.03))
    return pa.table(
        {
            "event_time": pa.array(start + rng.integers(DAY_US, size=n), pa.timestamp("us", tz="UTC")),
            "user_id": _texts(user, lambda n: f"user{n:08d}"),
            "session_id": _texts(user, lambda n: f"visit{n:08d}"),
            "query": _texts(query, _query),
            "item_id": _texts(item, lambda n: f"item{n:08d}"),
            "event": pa.DictionaryArray.from_arrays(pa.array(event, pa.int32()), ["click", "cart", "order"]).cast(
                pa.string()
            ),
            "position": pa.array(rng.integers(1, 40, size=n), pa.int32()),
            "dwell_ms": pa.array(rng.integers(100, 60_000, size=n), mask=rng.random(n) < 0.2),
        }
    )


def _texts(numbers: np.ndarray, text: Callable[[int], str]) -> pa.Array:
    distinct, index = np.unique(numbers, return_inverse=True)
    return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(map(text, distinct.tolist()))).cast(
        pa.string()
    )


def _query(number: int) -> str:
    # Letters, since long numbers are examined for personal data at 20 times the price. A third has a size, as real ones.
    word = f"{number:08d}".translate(_LETTERS)
    return f"red running {word}" if number % 3 else f"{number % 60} in. running {word}"
