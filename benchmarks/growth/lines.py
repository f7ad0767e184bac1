"""What was measured, a line of JSON each, so that a run that was ended goes on; and how long the rest may take."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.growth.meter import Cost
from benchmarks.speed.machine_name import this_machine
from etl.code import revision
from etl.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One measurement that is to be there."""

    group: str
    what: str
    size: int
    """Asked for: clicks, ranks, pairs of a batch."""
    round: int
    workers: int = 0
    """Executors of their own; 0 where the driver does all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One that is."""

    job: Job
    cost: Cost
    counts: Mapping[str, float]
    """What the outputs say there was: clicks, pairs, items; bytes, where some were counted."""
    took: float
    """Seconds of the whole measurement, which may be several turns."""
    machine: str = field(default_factory=this_machine)
    revision: str = field(default_factory=revision)
    at: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))


def append(file: Path, line: Line) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(line)) + "\n")


def read(file: Path) -> list[Line]:
    """Lines of a file, oldest first; none if there is no file.

    Raises:
        InputError: a line is none, as the last one is after a crash, or another machine measured it.
    """
    if not file.is_file():
        return []
    found, here = [], this_machine()
    for n, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(text)
            line = Line(**row | {"job": Job(**row["job"]), "cost": Cost(**row["cost"])})
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(
                f"{file}, line {n}: cut off, or no measurement ({error}): take the line out, and it is measured again"
            ) from None
        if line.machine != here:
            raise InputError(f"{file}, line {n} was measured on {line.machine}, this is {here}: name another --root")
        found.append(line)
    return found


def missing(jobs: Sequence[Job], lines: Sequence[Line]) -> list[Job]:
    """Those without a line, in their order."""
    there = {line.job for line in lines}
    return [job for job in jobs if job not in there]


def expected_seconds(job: Job, guess: float, lines: Sequence[Line], guesses: Mapping[Job, float]) -> float:
    """How long it may take: as it did in another round, else the guess, corrected by how far guesses were off so far.

    Args:
        job: To be done.
        guess: Rough seconds.
        lines: Measured ones.
        guesses: Of the measured jobs.
    """
    same = [line.took for line in lines if _same(line.job, job)]
    if same:
        return median(same)
    known = [line for line in lines if line.job in guesses]
    own = [line for line in known if (line.job.group, line.job.what) == (job.group, job.what)] or known
    return guess * (median(line.took / guesses[line.job] for line in own) if own else 1.0)


def _same(one: Job, other: Job) -> bool:
    """Whether they are two rounds of one thing."""
    return (one.group, one.what, one.size, one.workers) == (other.group, other.what, other.size, other.workers)
