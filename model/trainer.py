"""The training loop: batches in, loss curve out, whatever engine takes the steps."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import distributed as dist
from tqdm import tqdm

from model.engines import Engine
from model.known import KnownPairs
from model.loss import LossConfig, contrastive_loss
from model.ranks import Ranks
from model.reader import Batch

log = logging.getLogger(__name__)

JOINING = 0.2
"""Least share of the layers' steps in which their learning rate rises, where they join late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """What the loop itself needs to know."""

    steps: int
    tau: float
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    layers_from: float = 0.0
    """Share of the steps after which the Transformer joins the bag."""
    loss: LossConfig = field(default_factory=LossConfig)
    log_every: int = 20


@dataclass(slots=True)
class Curve:
    """What happened: (step, mean loss of all ranks since the last point), and where the time went."""

    points: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    data_seconds: float = 0.0
    rows: int = 0
    """Pairs and crops of this rank."""


class NotFinite(RuntimeError):
    """Loss or gradient is not a number any more; nothing was stepped with it."""


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate at ``step`` (from 0): linear up over ``warmup`` of the steps, then linear down to 0."""
    rise = max(1, round(steps * warmup))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise + 1))


def rates(step: int, config: LoopConfig) -> dict[str, float]:
    """Share of its learning rate that each group of parameters takes; the layers' own schedule starts when they join."""
    whole = schedule(step, config.steps, config.warmup)
    join = int(config.steps * config.layers_from)
    layers = schedule(step - join, config.steps - join, max(config.warmup, JOINING)) if join else whole
    return {"table": whole, "weights": whole, "layers": layers if step >= join else 0.0}


def train(
    engine: Engine, batches: Iterable[Batch], config: LoopConfig, ranks: Ranks, known: KnownPairs | None = None
) -> Curve:
    """Take ``config.steps`` steps.

    Raises:
        NotFinite: naming the step, before the optimizer moved.
    """
    curve, meter = Curve(), _Meter(config, ranks)
    started = time.monotonic()
    for step, batch in enumerate(_timed(batches, curve)):
        scales = rates(step, config)
        engine.encoder.layers_on = scales["layers"] > 0
        loss = contrastive_step(engine, batch, config, ranks, known)
        value = loss.item()
        _require_finite("loss", value, step, config, ranks)
        engine.backward(loss)
        _require_finite("gradient norm", engine.gradient_norm(), step, config, ranks)
        engine.step(scales)
        curve.rows += len(batch.rows)
        curve.seconds = time.monotonic() - started
        meter.update(step + 1, value, curve)
    meter.close()
    engine.encoder.layers_on = True
    if not curve.points or curve.points[-1][0] != config.steps:
        raise RuntimeError(f"training ended after {curve.points[-1:] or 'no'} steps, {config.steps} were planned")
    return curve


def contrastive_step(
    engine: Engine, batch: Batch, config: LoopConfig, ranks: Ranks, known: KnownPairs | None
) -> torch.Tensor:
    """Forward pass of one batch: queries and titles as one packed call, then the gathered loss."""
    embeddings = engine.forward(batch.texts.to(engine.device))
    query_BD, title_BD = embeddings.split(len(batch.rows))
    found = contrastive_loss(query_BD, title_BD, batch.rows, tau=config.tau, ranks=ranks, known=known, config=config.loss)
    return found.loss


def _require_finite(what: str, value: float, step: int, config: LoopConfig, ranks: Ranks) -> None:
    if not math.isfinite(value):
        raise NotFinite(
            f"{what} is {value} at step {step + 1} of {config.steps} (rank {ranks.rank}); no step was taken with it: "
            "lower --lr, or raise --tau"
        )


class _Meter:
    """Progress on rank 0: a bar on a terminal, else a line every so many steps."""

    def __init__(self, config: LoopConfig, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.losses: list[float] = []
        show = ranks.rank == 0 and sys.stderr.isatty()
        self.bar = tqdm(total=config.steps, unit="step", dynamic_ncols=True) if show else None

    def update(self, step: int, loss: float, curve: Curve) -> None:
        self.losses.append(loss)
        if self.bar is not None:
            self.bar.update()
        if step % self.config.log_every and step != self.config.steps:
            return
        mean = torch.tensor([sum(self.losses) / len(self.losses)], dtype=torch.float64)
        if self.ranks.world > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            mean = mean.to(device)
            dist.all_reduce(mean)
            mean /= self.ranks.world
        curve.points.append((step, round(float(mean), 6)))
        self.losses = []
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {float(mean):.3f}")
        elif self.ranks.rank == 0:
            log.info("%s", progress_line(step, self.config.steps, curve, self.ranks.world))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def progress_line(step: int, steps: int, curve: Curve, world: int) -> str:
    """As ``step 1200/8000 loss 1.83 pairs/s 41k data 6% eta 38m``; crops count as pairs."""
    rate = world * curve.rows / max(curve.seconds, 1e-9)
    eta = curve.seconds / step * (steps - step)
    waiting = 100 * curve.data_seconds / max(curve.seconds, 1e-9)
    left = f"{eta / 60:.0f}m" if eta > 90 else f"{eta:.0f}s"
    return f"step {step}/{steps} loss {curve.points[-1][1]:.3f} pairs/s {_short(rate)} data {waiting:.0f}% eta {left}"


def _short(value: float) -> str:
    return f"{value / 1000:.0f}k" if value >= 10_000 else f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def _timed(batches: Iterable[Batch], curve: Curve) -> Iterator[Batch]:
    """Batches, with the time that was spent waiting for them."""
    source = iter(batches)
    while True:
        started = time.monotonic()
        batch = next(source, None)
        curve.data_seconds += time.monotonic() - started
        if batch is None:
            return
        yield batch
