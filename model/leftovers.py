"""What trainings that were cut off leave under ``ROOT/checkpoints``, and when it may go."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.scratch import KILLED, claim, note_of, remove


@contextmanager
def running(checkpoints: Path, ds: dt.date) -> Iterator[Path]:
    """The scratch directory of the training of a day, by a lock known as in use until this process ends, however it does."""
    with tempfile.TemporaryDirectory(prefix="train-", dir=checkpoints) as made, claim(Path(made), f"ds={ds}"):
        yield Path(made)


def remove_leftovers(checkpoints: Path, ds: dt.date) -> None:
    """Remove what killed trainings left, and checkpoints of ``ds`` and the days before that no running training needs.

    A training that breaks every night would fill the disk otherwise: its checkpoints go when it succeeds, or a later one.
    """
    for scratch in sorted(checkpoints.glob("train-*")):
        if note_of(scratch) == KILLED:
            remove(scratch, "the training there was killed")
    for old in abandoned(checkpoints, ds):
        remove(old, f"checkpoints of a training that did not end, and the one of ds={ds} has")


def abandoned(checkpoints: Path, ds: dt.date) -> list[Path]:
    """Checkpoints of ``ds`` and the days before that no running training needs."""
    needed = {note_of(scratch) for scratch in checkpoints.glob("train-*")}
    return [old for old in sorted(checkpoints.glob("ds=*")) if old.name <= f"ds={ds}" and old.name not in needed]
