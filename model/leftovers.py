"""What trainings that were cut off leave under ``ROOT/checkpoints``, and when it may go."""

from __future__ import annotations

import datetime as dt
import fcntl
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

RUNNING = "running"
"""File of a scratch directory, locked as long as its training runs; it names that training's checkpoints."""

KILLED = ""


@contextmanager
def running(checkpoints: Path, ds: dt.date) -> Iterator[Path]:
    """The scratch directory of the training of a day, by a lock known as in use until this process ends, however it does."""
    with tempfile.TemporaryDirectory(prefix="train-", dir=checkpoints) as made:
        scratch = Path(made)
        draft = scratch / "draft"
        with draft.open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                log.warning("%s cannot be locked (%s): should this training be killed, it stays there", scratch, error)
            else:
                file.write(f"ds={ds}")
                file.flush()
                draft.rename(scratch / RUNNING)  # under that name it is never seen unlocked
            yield scratch


def remove_leftovers(checkpoints: Path, ds: dt.date) -> None:
    """Remove what killed trainings left, and checkpoints of ``ds`` and the days before that no running training needs.

    A training that breaks every night would fill the disk otherwise: its checkpoints go when it succeeds, or a later one.
    """
    for scratch in sorted(checkpoints.glob("train-*")):
        if _day_in_use(scratch) == KILLED:
            _remove(scratch, "the training there was killed")
    for old in abandoned(checkpoints, ds):
        _remove(old, f"checkpoints of a training that did not end, and the one of ds={ds} has")


def abandoned(checkpoints: Path, ds: dt.date) -> list[Path]:
    """Checkpoints of ``ds`` and the days before that no running training needs."""
    needed = {_day_in_use(scratch) for scratch in checkpoints.glob("train-*")}
    return [old for old in sorted(checkpoints.glob("ds=*")) if old.name <= f"ds={ds}" and old.name not in needed]


def _day_in_use(scratch: Path) -> str | None:
    """The checkpoints' name of the training that runs there; KILLED, or None if it starts or ends just now."""
    try:
        with (scratch / RUNNING).open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
    except FileNotFoundError:
        return None
    return KILLED


def _remove(directory: Path, why: str) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as error:
        log.warning("%s (%s) cannot be removed: %s", directory, why, error)
    else:
        log.info("removed %s: %s", directory, why)
