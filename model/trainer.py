"""The training loop: batches in, loss curve out, whatever engine takes the steps."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed as dist
from tqdm import tqdm

from model.engines import Engine
from model.grad_cache import cached_step
from model.known import KnownPairs
from model.loss import Contrast, LossConfig, contrastive_loss
from model.ranks import Ranks
from model.reader import Batch

log = logging.getLogger(__name__)

JOINING = 0.2
"""Least share of the layers' steps in which their learning rate rises, where they join late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """What the loop itself needs to know."""

    steps: int
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    layers_from: float = 0.0
    """Share of the steps after which the Transformer joins the bag."""
    loss: LossConfig = field(default_factory=LossConfig)
    cache_texts: int = 0
    """Texts that are encoded at once, see :mod:`model.grad_cache`; 0: all of a batch."""
    log_every: int = 20
    save_every: int = 0
    """Steps between two checkpoints; 0: none."""


@dataclass(slots=True)
class Curve:
    """What happened: (step, mean loss of all ranks since the last point), and where the time went."""

    points: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    data_seconds: float = 0.0
    rows: int = 0
    """Pairs and crops of this rank."""
    step: int = 0
    """Steps that were taken."""
    losses: list[float] = field(default_factory=list)
    """Of all ranks together, since the last point."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Curve:
        """The curve that ``asdict`` made ``raw`` of."""
        return cls(**{**raw, "points": [(step, loss) for step, loss in raw["points"]]})


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
    return {"table": whole, "weights": whole, "layers": layers if step >= join else 0.0, "temperature": whole}


def train(
    engine: Engine,
    batches: Iterable[Batch],
    config: LoopConfig,
    ranks: Ranks,
    known: KnownPairs | None = None,
    *,
    curve: Curve | None = None,
    save: Callable[[Curve], None] | None = None,
) -> Curve:
    """Take steps up to ``config.steps``.

    Args:
        engine: Takes them.
        batches: Those that are still to come.
        config: See there.
        ranks: Who takes part.
        known: Clicked pairs.
        curve: What happened before, where a training goes on.
        save: Called every ``config.save_every`` steps, but the last.

    Raises:
        NotFinite: naming the step, before the optimizer moved.
    """
    curve = curve or Curve()
    meter, started = _Meter(config, ranks, curve), time.monotonic() - curve.seconds
    for step, batch in enumerate(_timed(batches, curve), start=curve.step):
        scales = rates(step, config)
        engine.encoder.layers_on = scales["layers"] > 0
        found, backward = contrastive_step(engine, batch, config, ranks, known)
        value = found.loss.item()
        _require_finite("loss", value, step, config, ranks)
        backward()
        _require_finite("gradient norm", engine.gradient_norm(), step, config, ranks)
        engine.step(scales)
        curve.rows += len(batch.rows)
        curve.step, curve.seconds = step + 1, time.monotonic() - started
        meter.update(value)
        if save is not None and config.save_every and curve.step % config.save_every == 0 and curve.step < config.steps:
            save(curve)
    meter.close()
    engine.encoder.layers_on = True
    if curve.step != config.steps:
        raise RuntimeError(f"training ended after {curve.step} steps, {config.steps} were planned")
    return curve


def contrastive_step(
    engine: Engine, batch: Batch, config: LoopConfig, ranks: Ranks, known: KnownPairs | None
) -> tuple[Contrast, Callable[[], None]]:
    """The gathered loss of one batch, whose queries and titles are one packed call, and what computes its gradient."""

    def loss_of(vectors: torch.Tensor, tau: torch.Tensor) -> Contrast:
        query_BD, title_BD = vectors.split(len(batch.rows))
        return contrastive_loss(query_BD, title_BD, batch.rows, tau=tau, ranks=ranks, known=known, config=config.loss)

    if 0 < config.cache_texts < len(batch.texts):
        return cached_step(engine, batch.texts.parts(config.cache_texts), loss_of)
    found = loss_of(*engine.forward(batch.texts.to(engine.device)))
    return found, lambda: engine.backward(found.loss)


def _require_finite(what: str, value: float, step: int, config: LoopConfig, ranks: Ranks) -> None:
    if not math.isfinite(value):
        raise NotFinite(
            f"{what} is {value} at step {step + 1} of {config.steps} (rank {ranks.rank}); no step was taken with it: "
            "lower --lr, or raise --tau"
        )


class _Meter:
    """Progress on rank 0: a bar on a terminal, else a line every so many steps."""

    def __init__(self, config: LoopConfig, ranks: Ranks, curve: Curve) -> None:
        self.config, self.ranks, self.curve = config, ranks, curve
        show = ranks.rank == 0 and sys.stderr.isatty()
        self.bar = tqdm(total=config.steps, initial=curve.step, unit="step", dynamic_ncols=True) if show else None

    def update(self, loss: float) -> None:
        curve, step = self.curve, self.curve.step
        curve.losses.append(loss)
        if self.bar is not None:
            self.bar.update()
        if step % self.config.log_every and step != self.config.steps:
            return
        mean = torch.tensor([sum(curve.losses) / len(curve.losses)], dtype=torch.float64)
        if self.ranks.world > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            mean = mean.to(device)
            dist.all_reduce(mean)
            mean /= self.ranks.world
        curve.points.append((step, round(float(mean), 6)))
        curve.losses = []
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
