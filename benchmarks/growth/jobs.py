"""Every measurement of the growth of cost: what there is to measure, and how each is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.growth import stages
from benchmarks.growth.lines import Job, Line
from benchmarks.growth.meter import Cost
from benchmarks.speed import contrastive_loss, training_deepspeed
from benchmarks.speed.deepspeed_worker import Task
from benchmarks.speed.scaling import bytes_sent
from model.presets import PRESETS

CLICKS, FACTORS = 240_000, (1, 3, 10)
"""Below, a stage costs what it costs anyway: at 240,000 clicks three quarters of `pairs`, and nearly all of the others."""
NIGHT, VOCABULARY, WORKERS, RANKS, LOSS = "night", "vocabulary", "workers", "ranks", "loss"
GROUPS = (VOCABULARY, WORKERS, RANKS, LOSS)
CHOICES = (*stages.CLAIMED, *GROUPS)
AFTER_VOCABULARY = ("embed", "predict")
ON_WORKERS = ("pairs", "embed")
WORLD = (1, 2, 4)
GLOBAL_BATCH, ZERO_STAGE, STEPS, WARM_UP = 128, 1, 4, 1
"""Of the training steps."""
LOSS_TURNS = 3
"""At least: they take seconds."""
CLUSTER = "local-cluster[{},1,1024]"
"""A standalone cluster on this machine: executors of one core and 1 GB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What was asked for."""

    root: Path
    clicks: int = CLICKS
    factors: tuple[int, ...] = FACTORS
    rounds: int = 1
    chosen: tuple[str, ...] = CHOICES

    @property
    def sizes(self) -> list[int]:
        """Clicks, ascending."""
        return sorted({self.clicks * factor for factor in self.factors})

    @property
    def all_sizes(self) -> list[int]:
        """With the tiny warehouse that shows the fixed cost."""
        return sorted({stages.TINY, *self.sizes})

    def jobs(self) -> list[Job]:
        """In the order in which they are measured: within a round each stage at all sizes in turn."""
        jobs = [job for turn in range(1, self.rounds + 1) for job in self._round(turn)]
        if LOSS in self.chosen:
            turns = range(1, max(self.rounds, LOSS_TURNS) + 1)
            jobs += [
                Job(group=LOSS, what="loss", size=size, round=turn) for turn in turns for size in contrastive_loss.SIZES
            ]
        return jobs

    def _round(self, turn: int) -> Iterator[Job]:
        needed = set(self.chosen)
        needed |= set(ON_WORKERS) if WORKERS in needed else set()
        needed |= set(AFTER_VOCABULARY) if VOCABULARY in needed else set()
        for number, stage in enumerate(stages.chain_to(tuple(needed))):
            for clicks in self.all_sizes[:: -1 if number % 2 else 1]:
                yield Job(group=NIGHT, what=stage.name, size=clicks, round=turn)
        if VOCABULARY in self.chosen:
            for what in AFTER_VOCABULARY:
                yield Job(group=VOCABULARY, what=what, size=self.sizes[-1], round=turn)
        if WORKERS in self.chosen:
            for what in ON_WORKERS:
                for clicks in sorted({stages.TINY, self.sizes[0]}):
                    for workers in (1, 2):
                        yield Job(group=WORKERS, what=what, size=clicks, round=turn, workers=workers)
        if RANKS in self.chosen:
            for ranks in WORLD:
                yield Job(group=RANKS, what="training step", size=ranks, round=turn)


def guess(job: Job) -> float:
    """Rough seconds, on two slow cores of which no other job has any."""
    if job.group == RANKS:
        return 25.0 + 15.0 * job.size
    if job.group == LOSS:
        return 4.0 + 12.0 * (job.size / max(contrastive_loss.SIZES)) ** 2
    fixed, growing = stages.STAGES[job.what].seconds
    if job.workers:
        fixed, growing = fixed + 8.0 + 4.0 * job.workers, growing * 2 / job.workers
    return fixed + growing * job.size / 100_000


def measure(job: Job, root: Path) -> Line:
    """Do one.

    Raises:
        RuntimeError: a command failed, or did other work than it was to be measured at.
    """
    started = time.monotonic()
    cost, counts = MEASURES[job.group](job, root)
    return Line(job=job, cost=cost, counts=counts, took=time.monotonic() - started)


def of_night(job: Job, root: Path) -> tuple[Cost, Mapping[str, float]]:
    where = stages.warehouse(root, job.round, job.size)
    cost = stages.generate(where, job.size) if job.what == "sample" else stages.run(stages.STAGES[job.what], where)
    counts = stages.counts(where)
    if job.what == "embed" and counts["reused"]:
        raise RuntimeError(f"{where}: {counts['reused']} vectors were there already: the cost of encoding is not known")
    return cost, counts


def of_vocabulary(job: Job, root: Path) -> tuple[Cost, Mapping[str, float]]:
    """After a term was retired, on a copy: the warehouse itself is not audited for another vocabulary."""
    where = stages.warehouse(root, job.round, job.size, "-vocabulary")
    stages.copy(stages.warehouse(root, job.round, job.size), where)
    stages.retire_a_term(where)
    cost = stages.run(replace(stages.STAGES[job.what], writes=()), where)
    counts = stages.counts(where)
    if counts["encoded"]:
        raise RuntimeError(f"{where}: {counts['encoded']} texts were encoded after a change of the vocabulary (expected 0)")
    return cost, counts


def of_workers(job: Job, root: Path) -> tuple[Cost, Mapping[str, float]]:
    where = stages.warehouse(root, job.round, job.size, "-workers")
    stages.copy(stages.warehouse(root, job.round, job.size), where, ("staging", "datasets", "training", "truth"))
    flags = ("--master", CLUSTER.format(job.workers), "--driver-memory", "1g")
    return stages.run(stages.STAGES[job.what], where, flags), stages.counts(where)


def of_ranks(job: Job, _: Path) -> tuple[Cost, Mapping[str, float]]:
    """Steps of ``published`` on made-up pairs, the batch of all ranks together always the same."""
    encoder = PRESETS["published"].encoder.to_json()
    with TemporaryDirectory() as directory:
        task = Task(
            stages=[ZERO_STAGE],
            encoder=encoder,
            batch=GLOBAL_BATCH // job.size,
            steps=STEPS + WARM_UP,
            out=str(Path(directory) / "steps.json"),
        )
        found = training_deepspeed.measure(task, job.size)[WARM_UP:]
    cost = Cost(median(one.cpu for one in found), median(one.wall for one in found), found[-1].memory / 2**30)
    shape = replace(training_deepspeed.shape(task, ZERO_STAGE), world=job.size)
    sent = median(sum(one.phases.values()) / job.size for one in found)
    return cost, {"ranks": job.size, "sent": sent, "formula": sum(bytes_sent(shape).values())}


def of_loss(job: Job, _: Path) -> tuple[Cost, Mapping[str, float]]:
    found = contrastive_loss.measure("ours", job.size)
    return Cost(found["seconds"], None, found["peak_gib"]), {"batch": job.size}


MEASURES: Mapping[str, Callable[[Job, Path], tuple[Cost, Mapping[str, float]]]] = {
    NIGHT: of_night,
    VOCABULARY: of_vocabulary,
    WORKERS: of_workers,
    RANKS: of_ranks,
    LOSS: of_loss,
}
