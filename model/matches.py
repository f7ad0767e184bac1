"""Which rows of one list go with which of another: by equal id, or because the pair is known to have been clicked."""

# A rows of the one list, B of the other, M matches

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs (row, column), sorted by row and then column, each once."""

    rows: np.ndarray
    """[M] int64."""
    columns: np.ndarray
    """[M] int64."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, rows: np.ndarray, columns: np.ndarray, width: int) -> Matches:
        """Pairs in any order, with repeats; ``width`` is more than any column."""
        key = np.unique(rows * width + columns)
        return cls(key // width, key % width)

    def transposed(self, width: int) -> Matches:
        """The same pairs the other way round; ``width`` is more than any row."""
        return Matches.of(self.columns, self.rows, width)

    def union(self, other: Matches, width: int) -> Matches:
        """Pairs of either; ``width`` is more than any column."""
        rows, columns = np.concatenate([self.rows, other.rows]), np.concatenate([self.columns, other.columns])
        return Matches.of(rows, columns, width)


def equal_ids(rows: np.ndarray, columns: np.ndarray) -> Matches:
    """Ids [A] and [B] -> the pairs whose ids are equal."""
    ids, where = np.unique(np.concatenate([rows, columns]), return_inverse=True)
    where = where.reshape(-1)
    same = np.arange(len(ids))
    return spread(same, same, where[: len(rows)], where[len(rows) :], len(ids))


def spread(left: np.ndarray, right: np.ndarray, row_of: np.ndarray, column_of: np.ndarray, ids: int) -> Matches:
    """Pairs of ids -> pairs of rows and columns that have them.

    Args:
        left: [N] ids below ``ids``, each pair with the one in ``right`` once.
        right: [N] ids below ``ids``.
        row_of: [A] the left id of each row.
        column_of: [B] the right id of each column.
        ids: More than any id.
    """
    row_order, row_starts = _grouped(row_of, ids)
    column_order, column_starts = _grouped(column_of, ids)
    tall, wide = row_starts[left + 1] - row_starts[left], column_starts[right + 1] - column_starts[right]
    sizes = tall * wide
    pair = np.repeat(np.arange(len(left)), sizes)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    down, across = np.divmod(place, np.maximum(wide[pair], 1))
    rows = row_order[row_starts[left][pair] + down]
    columns = column_order[column_starts[right][pair] + across]
    return Matches.of(rows, columns, max(len(column_of), 1))


def _grouped(ids: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices sorted by id, and where each of ``n`` ids begins among them [n + 1]."""
    return np.argsort(ids, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(ids, minlength=n))])
