"""Which (query, item) pairs were clicked: such a pair in a batch is no negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from etl.dataset import Manifest
from model.matches import Matches, spread
from model.packing import take


class KnownPairs:
    """Clicked pairs by query, as CSR: 16 bytes a pair, one lookup per distinct query of a batch."""

    def __init__(self, query_groups: np.ndarray, item_groups: np.ndarray) -> None:
        order = np.lexsort((item_groups, query_groups))
        self.queries, starts = np.unique(query_groups[order], return_index=True)
        self.offsets = np.append(starts, len(query_groups)).astype(np.int64)
        self.items = item_groups[order]

    @classmethod
    def load(cls, dataset: Path, manifest: Manifest) -> KnownPairs:
        """All pairs of a verified dataset's training split, those thinned out of pairs/ among them."""
        tables = [pq.read_table(dataset / f.path, columns=["query_group", "item_group"]) for f in manifest.files("known")]
        columns = [np.concatenate([t[name].to_numpy() for t in tables]) for name in ("query_group", "item_group")]
        return cls(*columns)

    def matches(self, query_groups: np.ndarray, item_groups: np.ndarray) -> Matches:
        """Queries [A] and items [B] -> the pairs of them of which the query led to a click on the item."""
        queries, query_of = np.unique(query_groups, return_inverse=True)
        items, item_of = np.unique(item_groups, return_inverse=True)
        rows, places = _locate(queries, self.queries)
        values, offsets = take(self.offsets, self.items, places)
        found, columns = _locate(values, items)
        clicked = Matches.of(np.repeat(rows, np.diff(offsets))[found], columns, max(len(items), 1))
        ids = max(len(queries), len(items))
        return spread(clicked.rows, clicked.columns, query_of.reshape(-1), item_of.reshape(-1), ids)


def _locate(values: np.ndarray, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of those values that are in ``ascending``, and their places there."""
    places = np.searchsorted(ascending, values).clip(max=max(len(ascending) - 1, 0))
    found = np.flatnonzero(ascending[places] == values) if len(ascending) else np.zeros(0, dtype=np.int64)
    return found, places[found]
