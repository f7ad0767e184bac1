"""Random views of texts, drawn from (seed, epoch, row) alone: the same on any number of ranks, in any order."""

# N texts, T tokens in all of them

from __future__ import annotations

from typing import Literal

import numpy as np

CropStyle = Literal["span", "subset", "mix"]


def uniform(seed: int, epoch: int, rows: np.ndarray, use: int) -> np.ndarray:
    """Rows' ids, int64 of any shape -> float64 in [0, 1); ``use`` keeps draws for different ends independent."""
    key = rows.astype(np.uint64)
    for value in (seed, epoch, use):
        key = _mix(key ^ np.uint64(value))
    return (key >> np.uint64(11)).astype(np.float64) * 2.0**-53


def crop(
    ids: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    *,
    seed: int,
    epoch: int,
    style: CropStyle,
    longest: int,
    special: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A part of each text, as somebody might type it: 1 to ``longest`` of its tokens, in their order.

    Args:
        ids: [T] token ids of the texts, end to end.
        offsets: [N + 1] where each begins.
        rows: [N] ids of the texts, for the draw.
        seed: Of the training.
        epoch: Pass over the texts.
        style: ``span`` takes neighbours, ``subset`` any tokens, ``mix`` either, text by text.
        longest: Most tokens of a crop.
        special: Tokens at each end that are kept and not counted ([CLS] and [SEP]: 1; words: 0).

    Returns:
        Token ids of the crops end to end, and their offsets [N + 1].
    """
    lengths = np.diff(offsets)
    inner = np.maximum(lengths - 2 * special, 0)
    size = 1 + (uniform(seed, epoch, rows, 1) * np.minimum(longest, np.maximum(inner, 1))).astype(np.int64)
    position = np.arange(len(ids)) - np.repeat(offsets[:-1] + special, lengths)
    text = np.repeat(np.arange(len(rows)), lengths)
    inside = (position >= 0) & (position < inner[text])
    span_share = {"span": 1.0, "subset": 0.0, "mix": 0.5}[style]
    start = (uniform(seed, epoch, rows, 2) * (inner - size + 1)).astype(np.int64)
    draw = uniform(seed, epoch, rows[text] + position * np.int64(0x9E3779B9), 3)
    order = np.lexsort((np.where(inside, draw, 2.0), text))
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
    rank = np.where((uniform(seed, epoch, rows, 4) < span_share)[text], position - start[text], rank)
    keep = ~inside | ((rank >= 0) & (rank < size[text]))
    return ids[keep], np.concatenate([[0], np.cumsum(keep)])[offsets]


def thinned(
    values: np.ndarray, offsets: np.ndarray, share: float, *, draw: np.random.Generator, special: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Lists without a random ``share`` of their values, in their order; each that has any keeps one at least.

    Args:
        values: [T] of the lists, end to end.
        offsets: [N + 1] where each begins.
        share: Of the values that are dropped.
        draw: Which.
        special: Values at each end that are kept.

    Returns:
        The values that are left, and their offsets [N + 1].
    """
    lengths = np.diff(offsets)
    drawn = draw.random(len(values))
    position = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
    length = np.repeat(lengths, lengths)
    keep = (drawn >= share) | (position < special) | (position >= length - special)
    filled = np.flatnonzero(lengths > 2 * special)
    if len(filled):
        inner = np.where((position < special) | (position >= length - special), -1.0, drawn)
        most = np.maximum.reduceat(inner, offsets[:-1][filled])
        keep |= inner == np.repeat(_spread(most, filled, len(lengths)), lengths)
    return values[keep], np.concatenate([[0], np.cumsum(keep)])[offsets]


def _spread(values: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    found = np.full(size, np.inf)
    found[places] = values
    return found


def _mix(key: np.ndarray) -> np.ndarray:
    """One round of SplitMix64 (Steele et al. 2014)."""
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
