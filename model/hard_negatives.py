"""Hard negatives of a dataset's pairs: how many of them a step has, and which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset import HARD_NEGATIVE, Manifest
from etl.errors import InputError
from model.augment import uniform

_USE = 5
"""Keeps this draw apart from those of :mod:`model.augment`."""


@dataclass(frozen=True, slots=True)
class HardConfig:
    """Their schedule."""

    share: float = 0.0
    """Of a batch's pairs, each with one that is a further column for the queries of all ranks."""
    start: float = 0.3
    """Share of the steps after which they come."""

    def rows(self, step: int, steps: int, batch: int) -> int:
        """Hard negatives of a rank at ``step`` (from 0) of ``steps``."""
        return max(1, round(self.share * batch)) if self.share and step >= self.start * steps else 0

    def require(self, manifest: Manifest) -> None:
        """Refuse a dataset that has none to give.

        Raises:
            InputError: ``share`` is more than 0, and nothing was mined.
        """
        if self.share and not manifest.hard_negatives:
            raise InputError(
                f"hard_share is {self.share}, but the dataset of {manifest.ds} has no hard negatives: run `labeller mine "
                f"--root ROOT --ds {manifest.ds}` after `labeller dataset`, which makes it without, or set hard_share = 0"
            )


def hard_columns(count: int) -> tuple[str, ...]:
    """Names of the columns of ``count`` hard negatives a pair."""
    return tuple(f"{name}_{n}" for n in range(count) for name in HARD_NEGATIVE)


def one_of_each(pairs: pa.Table, seed: int, epoch: int, none: pa.Array) -> pa.Table:
    """Pairs with ``hard_title`` and ``hard_group`` of the negative that each brings in this epoch.

    Where ``none`` is true the title is empty: beside an answer without the query's words, a whole title with some of them
    would teach that sharing words is wrong.
    """
    count = sum(name.startswith("hard_title_") for name in pairs.column_names)
    draw = uniform(seed, epoch, pairs["pair_id"].to_numpy(), _USE)
    choice = pa.array((draw * count).astype(np.int64))
    for name in HARD_NEGATIVE:
        chosen = pc.choose(choice, *(pairs[f"{name}_{n}"] for n in range(count)))
        if name == "hard_title":
            chosen = pc.if_else(none, pa.scalar(b"", chosen.type), chosen)
        pairs = pairs.append_column(name, chosen)
    return pairs.drop(list(hard_columns(count)))
