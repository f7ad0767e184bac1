"""The training loop: batches in, loss curve out, whatever engine takes the steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from model.distillation import Teacher, distilled
from model.engines import Engine
from model.grad_cache import cached_step
from model.known import KnownPairs
from model.loss import Contrast, HardNegatives, LossConfig, Rows, contrastive_loss
from model.progress import Curve, Meter, figures
from model.ranks import Ranks
from model.reader import Batch
from model.tracking import Tracker

COLLAPSED = 0.999
"""Mean cosine of a batch's distinct titles, or queries, above which training is over; an untrained published encoder has
some .4, its queries of one word .86."""

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


class NotFinite(RuntimeError):
    """Loss or gradient is not a number any more; nothing was stepped with it."""


class Collapsed(RuntimeError):
    """All vectors are nearly one; nothing was stepped with them."""


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
    engine: Engine,
    batches: Iterable[Batch],
    config: LoopConfig,
    ranks: Ranks,
    known: KnownPairs | None = None,
    *,
    curve: Curve | None = None,
    save: Callable[[Curve], None] | None = None,
    trackers: Sequence[Tracker] = (),
    teacher: Teacher | None = None,
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
        trackers: Get what is logged, on rank 0.
        teacher: Whose similarities are learnt too.

    Raises:
        NotFinite, Collapsed: naming the step, before the optimizer moved.
    """
    curve = curve or Curve()
    meter = Meter(curve, ranks, config.steps, config.log_every, trackers)
    started = time.monotonic() - curve.seconds
    for step, batch in enumerate(_timed(batches, curve), start=curve.step):
        scales = rates(step, config)
        engine.encoder.layers_on = scales["layers"] > 0
        found, backward = contrastive_step(engine, batch, config, ranks, known, teacher)
        value = found.loss.item()
        _require_finite("loss", value, step, config, ranks)
        _require_different(found, batch.rows, step, config, ranks)
        backward()
        norm = engine.gradient_norm()
        if norm is not None:
            _require_finite("gradient norm", norm, step, config, ranks)
        engine.step(scales)
        curve.rows += len(batch.rows)
        curve.tokens += int(batch.texts.lengths.sum())
        curve.step, curve.seconds = step + 1, time.monotonic() - started
        meter.update(value, lambda: figures(found, norm))  # noqa: B023 (called at once or never)
        if save is not None and config.save_every and curve.step % config.save_every == 0 and curve.step < config.steps:
            save(curve)
    meter.close()
    engine.encoder.layers_on = True
    if curve.step != config.steps:
        raise RuntimeError(f"training ended after {curve.step} steps, {config.steps} were planned")
    return curve


def contrastive_step(
    engine: Engine,
    batch: Batch,
    config: LoopConfig,
    ranks: Ranks,
    known: KnownPairs | None,
    teacher: Teacher | None = None,
) -> tuple[Contrast, Callable[[], None]]:
    """The gathered loss of one batch, whose queries and titles are one packed call, and what computes its gradient."""

    def loss_of(vectors: torch.Tensor, tau: torch.Tensor) -> Contrast:
        n, of = len(batch.rows), batch.hard
        query_BD, title_BD, hard_HD = vectors.split([n, n, len(vectors) - 2 * n])
        hard = HardNegatives(hard_HD, of) if of is not None else None
        found = contrastive_loss(
            query_BD, title_BD, batch.rows, tau=tau, ranks=ranks, known=known, config=config.loss, hard=hard
        )
        return (
            found
            if teacher is None
            else distilled(found, query_BD, title_BD, teacher, batch.texts, tau, ranks, config.cache_texts)
        )

    if 0 < config.cache_texts < len(batch.texts):
        return cached_step(engine, batch.texts.parts(config.cache_texts), loss_of)
    found = loss_of(*engine.forward(batch.texts.to(engine.device)))
    return found, lambda: engine.backward(found.loss)


def _require_different(found: Contrast, rows: Rows, step: int, config: LoopConfig, ranks: Ranks) -> None:
    """Of each side one vector for each distinct text: a batch that shows one title alone says nothing."""
    sides = {"titles": (found.titles, rows.item_group), "queries": (found.queries, rows.query_group)}
    for side, (vectors, group) in sides.items():
        _, first = np.unique(group, return_index=True)
        # The mean of all cosines is the squared length of the mean vector.
        cosine = float(vectors[torch.from_numpy(first).to(vectors.device)].float().mean(dim=0).square().sum())
        if len(first) > 1 and cosine > COLLAPSED:
            raise Collapsed(
                f"{side} have a mean cosine of {cosine:.4f} at step {step + 1} of {config.steps} (rank {ranks.rank}; "
                f"expected at most {COLLAPSED}): they are all one vector, no step was taken with them; "
                "lower --lr, with --no-resume"
            )


def _require_finite(what: str, value: float, step: int, config: LoopConfig, ranks: Ranks) -> None:
    if not math.isfinite(value):
        raise NotFinite(
            f"{what} is {value} at step {step + 1} of {config.steps} (rank {ranks.rank}); no step was taken with it: "
            "lower --lr, or raise --tau, with --no-resume"
        )


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
