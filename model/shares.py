"""Each rank's share of a dataset: which files it reads, how many rows the smallest share has, which batch that fills."""

from __future__ import annotations

import logging
from typing import Literal

from etl.dataset import DataFile, Manifest
from etl.errors import InputError
from model.ranks import Ranks

log = logging.getLogger(__name__)

TrainedPart = Literal["pairs", "titles"]


def rank_files(manifest: Manifest, part: TrainedPart, ranks: Ranks) -> tuple[DataFile, ...]:
    """The files that a rank reads: every ``world``-th.

    Raises:
        InputError: fewer files with rows in them than ranks.
    """
    files = tuple(file for file in manifest.files(part) if file.rows)
    if len(files) < ranks.world:
        raise InputError(
            f"{part}/ has {len(files)} files with rows in them for {ranks.world} ranks: build the dataset with at least "
            f"--ranks {ranks.world}, or train on fewer --ranks"
        )
    return files[ranks.rank :: ranks.world]


def smallest_share(manifest: Manifest, part: TrainedPart, world: int) -> int:
    """Rows of the rank that has the fewest."""
    return min(sum(f.rows for f in rank_files(manifest, part, Ranks(rank, world))) for rank in range(world))


def require_enough(manifest: Manifest, batch: int, world: int) -> None:
    """Refuse a batch that no epoch can fill; of those that nobody asked for see :func:`fit_batch`.

    Raises:
        InputError: ``batch`` is more than a rank's pairs.
    """
    share = smallest_share(manifest, "pairs", world)
    if batch > share:
        raise InputError(
            f"batch is {batch} pairs a rank, and each of {world} ranks has {share} (expected at most these): set a smaller "
            "--batch or fewer --ranks, or leave --batch out"
        )


def fit_batch(manifest: Manifest, wanted: int, world: int) -> int:
    """A preset's batch, or an eighth of a rank's rows where those are few: a handful of steps trains nothing."""
    fitting = max(smallest_share(manifest, "pairs", world) // 8, 1)
    if fitting < wanted:
        log.info(
            "%d pairs a rank are few: batch %d instead of %d", smallest_share(manifest, "pairs", world), fitting, wanted
        )
    return min(wanted, fitting)
