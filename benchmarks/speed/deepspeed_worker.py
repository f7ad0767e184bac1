"""One of several ranks that step the same training by several engines in turn, and note time and bytes sent by phase.

DeepSpeed's launcher starts it (:mod:`benchmarks.speed.training_deepspeed`); its only argument is JSON, see :class:`Task`.
All engines live in the same processes, so that none has the quieter moments to itself.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import distributed as dist

from benchmarks.speed import wire
from benchmarks.speed.scaling import PLAIN
from model.deepspeed_settings import deepspeed_settings
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import DeepSpeedEngine, Engine, TorchEngine, optimizer, parameter_groups
from model.loss import Rows
from model.packing import PackedTexts, pack
from model.precision import Chosen, autocast
from model.presets import EncoderConfig
from model.ranks import Ranks
from model.reader import Batch
from model.trainer import LoopConfig, contrastive_step
from model.worker import join, leave

QUERY_TOKENS, TITLE_TOKENS = 7, 29


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Which engines, how often."""

    stages: Sequence[int]
    encoder: dict[str, Any]
    """Of EncoderConfig."""
    batch: int
    """Pairs of a rank."""
    steps: int
    out: str
    """Rank 0 writes what was measured here."""
    checkpointing: bool = False
    """Whether layers keep only what goes in."""
    precision: Chosen = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True, slots=True)
class Step:
    """What one step took, summed over the ranks."""

    stage: int
    cpu: float
    """Seconds."""
    wall: float
    """Seconds, the mean over the ranks."""
    memory: int
    """Bytes that a rank has taken since it began, at most so far; the mean over the ranks."""
    phases: dict[str, int]
    """Bytes sent: ``forward``, ``embeddings`` (backward through the gather), ``backward`` (the rest of it), ``step``."""


class Watched:
    """An engine that notes when the gradient of the embeddings is there, before that of any parameter."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.encoder, self.device, self.sharded = engine.encoder, engine.device, engine.sharded
        self.backward, self.gradient_norm, self.step = engine.backward, engine.gradient_norm, engine.step
        self.weights, self.save, self.load = engine.weights, engine.save, engine.load
        self.mark = 0

    def forward(self, texts: PackedTexts, *, last: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, tau = self.engine.forward(texts, last=last)
        vectors.register_hook(self._note)
        return vectors, tau

    def _note(self, _: torch.Tensor) -> None:
        self.mark = wire.sent()


def build(stage: int, task: Task, ranks: Ranks) -> Watched:
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig.from_json(task.encoder))
    model = DualEncoder(encoder, 0.1, autocast=autocast(task.precision, task.device)).to(task.device).train()
    if encoder.config.layers:
        encoder.encoder.checkpointing = task.checkpointing
    adam = optimizer(parameter_groups(model, lr=2e-4, weight_lr=1.0, layers_lr=1.0))
    if stage == PLAIN:
        return Watched(TorchEngine(model, adam, ranks))
    settings = deepspeed_settings(precision=task.precision)
    settings["zero_optimization"] = settings["zero_optimization"] | {"stage": stage}
    return Watched(DeepSpeedEngine(model, adam, settings, task.batch))


def batch(task: Task, number: int, ranks: Ranks) -> Batch:
    """Made-up pairs, other ones on each rank and in each step."""
    rng = np.random.default_rng((number, ranks.rank))
    means = np.repeat([QUERY_TOKENS, TITLE_TOKENS], task.batch)
    lengths = np.clip(rng.poisson(means), 1, task.encoder["positions"])
    ids = (task.encoder["rows"] * rng.random(lengths.sum()) ** 3).astype(np.int64)
    own = np.arange(task.batch) + (number * ranks.world + ranks.rank) * task.batch
    nothing = np.zeros(task.batch)
    return Batch(pack(ids, np.cumsum([0, *lengths]), None), Rows(own, own, nothing + 1, nothing, nothing))


def step(engine: Watched, stage: int, batch: Batch, ranks: Ranks, before: int) -> Step:
    """One step as model.trainer takes it."""
    dist.barrier()
    started, cpu, sent = time.monotonic(), time.process_time(), [wire.sent()]
    _, backward = contrastive_step(engine, batch, LoopConfig(steps=1), ranks, None)
    sent.append(wire.sent())
    backward()
    sent += [engine.mark, wire.sent()]
    engine.gradient_norm()
    engine.step({"table": 1.0, "weights": 1.0, "layers": 1.0})
    sent.append(wire.sent())
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    spent, wall, memory = time.process_time() - cpu, time.monotonic() - started, peak(engine.device) - before
    figures = torch.tensor([spent, wall, memory, *np.diff(sent)], dtype=torch.float64, device=engine.device)
    dist.all_reduce(figures)
    spent, wall, memory, *by_phase = figures.tolist()
    names = ("forward", "embeddings", "backward", "step")
    phases = {name: int(value) for name, value in zip(names, by_phase, strict=True)}
    return Step(stage, spent, wall / ranks.world, int(memory / ranks.world), phases)


def peak(device: torch.device) -> int:
    """Most bytes that this process has had in memory, or its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    ranks, before = join(task.device, timeout_minutes=10.0), peak(torch.device(task.device))
    engines = {stage: build(stage, task, ranks) for stage in task.stages}
    found = []
    for number in range(task.steps):
        texts = batch(task, number, ranks)
        # Another one first each time: what ran before leaves the caches as it likes.
        order = [task.stages[(number + place) % len(task.stages)] for place in range(len(task.stages))]
        found += [step(engines[stage], stage, texts, ranks, before) for stage in order]
    if ranks.rank == 0:
        Path(task.out).write_text(json.dumps([asdict(one) for one in found]), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    leave(0)
