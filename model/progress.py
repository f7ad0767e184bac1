"""What a training says of itself: the loss curve and its figures, a line every so many steps, a bar on a terminal."""

# B rows, D embedding

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import distributed as dist
from tqdm import tqdm

from model.loss import Contrast
from model.ranks import Ranks
from model.tracking import Tracker

log = logging.getLogger(__name__)

_LOOKED_AT = 512  # titles, for the uniformity: all pairs of more take time and say the same

LINE_SECONDS = 15.0
"""Between two lines of a pass without a terminal: one by `published` over the titles of a small day takes 90 s."""


@dataclass(slots=True)
class Curve:
    """What happened so far, and where the time went."""

    points: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss of all ranks since the last point)."""
    figures: list[dict[str, float]] = field(default_factory=list)
    """What is logged at each point, of rank 0 but for the loss."""
    step: int = 0
    """Steps that were taken."""
    losses: list[float] = field(default_factory=list)
    """Of this rank, since the last point."""
    rows: int = 0
    """Pairs and crops of this rank."""
    tokens: int = 0
    """Tokens of this rank, none of them padding."""
    seconds: float = 0.0
    data_seconds: float = 0.0
    tracked: dict[str, str] = field(default_factory=dict)
    """Names by which trackers find their runs again, see :mod:`model.tracking`."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Curve:
        """The curve that ``asdict`` made ``raw`` of.

        Raises:
            KeyError, TypeError, ValueError: another version did, with other fields.
        """
        return cls(**{**raw, "points": [(step, loss) for step, loss in raw["points"]]})

    def agreed(self, ranks: Ranks) -> Curve:
        """This curve with losses that are the same on every rank: their means, of which the next point is the same."""
        return replace(self, losses=_mean(self.losses, ranks))


class Meter:
    """Adds to the curve, and on rank 0 shows it."""

    def __init__(self, curve: Curve, ranks: Ranks, steps: int, log_every: int, trackers: Sequence[Tracker] = ()) -> None:
        self.curve, self.ranks, self.steps, self.log_every = curve, ranks, steps, log_every
        self.trackers = trackers if ranks.rank == 0 else ()
        self.bar = _bar(steps, unit="step", initial=curve.step) if ranks.rank == 0 else None

    def update(self, loss: float, more: Callable[[], Mapping[str, float]]) -> None:
        """After a step with this rank's ``loss``; ``more`` gives figures where they are asked for."""
        curve = self.curve
        curve.losses.append(loss)
        if self.bar is not None:
            self.bar.update()
        if curve.step % self.log_every and curve.step != self.steps:
            return
        mean = round(_mean([sum(curve.losses) / len(curve.losses)], self.ranks)[0], 6)
        curve.losses = []
        curve.points.append((curve.step, mean))
        seconds = max(curve.seconds, 1e-9)
        rates = {
            "pairs_per_s": self.ranks.world * curve.rows / seconds,
            "tokens_per_s": self.ranks.world * curve.tokens / seconds,
            "data_wait": curve.data_seconds / seconds,
        }
        row = {"step": curve.step, "loss": mean, **more(), **{name: round(value, 4) for name, value in rates.items()}}
        curve.figures.append(row)
        for tracker in self.trackers:
            tracker.log(curve.step, {name: value for name, value in row.items() if name != "step"})
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {mean:.3f}")
        elif self.ranks.rank == 0:
            log.info("%s", progress_line(row, self.steps, eta=seconds / curve.step * (self.steps - curve.step)))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@contextmanager
def advancing(what: str, total: int, unit: str, *, bar: bool = True) -> Iterator[Callable[[int], None]]:
    """Show how far a pass over ``total`` units is: a bar on a terminal, else a line every :data:`LINE_SECONDS`.

    Without ``bar`` it is lines on a terminal too, for where Spark has a bar of its own there.

    What is given is to be called with the number of units that are done since the last call.
    """
    shown, started, done = _bar(total, unit=unit, desc=what) if bar else None, time.monotonic(), 0
    said = started

    def advance(units: int) -> None:
        nonlocal done, said
        done += units
        now = time.monotonic()
        if shown is not None:
            shown.update(units)
        elif done and now - said >= LINE_SECONDS:
            said = now
            left = (now - started) / done * (total - done)
            log.info("%s: %d%% of %s %ss, eta %s", what, 100 * done // total, _short(total), unit, _time_left(left))

    try:
        yield advance
    finally:
        if shown is not None:
            shown.close()


def _bar(total: int, **options: Any) -> tqdm[Any] | None:
    """A bar, where somebody looks."""
    return tqdm(total=total, unit_scale=total >= 1_000_000, dynamic_ncols=True, **options) if sys.stderr.isatty() else None


def _mean(values: list[float], ranks: Ranks) -> list[float]:
    """Over all ranks, each value."""
    if ranks.world == 1:
        return values
    mean = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(mean)
    return [float(value) / ranks.world for value in mean]


def figures(found: Contrast, gradient_norm: float | None) -> dict[str, float]:
    """Of one step: what its vectors are like, and what it cost; without a gradient norm where nobody knows it."""
    gpu = found.titles.is_cuda
    memory = torch.cuda.max_memory_allocated() if gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = {
        **({} if gradient_norm is None else {"gradient_norm": gradient_norm}),
        "tau": found.tau,
        "alignment": alignment(found.queries, found.titles),
        "uniformity": uniformity(found.titles),
        "false_negatives": found.false_negatives,
        "memory_gb": memory / 2**30,
    }
    return {name: round(value, 6) for name, value in values.items()}


def alignment(query_BD: torch.Tensor, title_BD: torch.Tensor) -> float:
    """Mean squared distance of the two sides of a pair (Wang & Isola 2020, alpha = 2); 0 is best, 2 is chance."""
    return float((query_BD.float() - title_BD.float()).square().sum(dim=1).mean())


def uniformity(vectors_BD: torch.Tensor) -> float:
    """Log of the mean Gaussian potential of all pairs (Wang & Isola 2020, t = 2); 0 where all are one vector, -4 at best."""
    return float(torch.pdist(vectors_BD[:_LOOKED_AT].float()).square().mul(-2).exp().mean().log())


def progress_line(row: Mapping[str, float], steps: int, *, eta: float) -> str:
    """As ``step 1200/8000 loss 1.834 … pairs/s 41k tokens/s 1.2M data 6% mem 2.1G eta 38m``; crops count as pairs."""
    gradient = f"grad {row['gradient_norm']:.3f} " if "gradient_norm" in row else ""
    return (
        f"step {row['step']:.0f}/{steps} loss {row['loss']:.3f} {gradient}tau {row['tau']:.3f} "
        f"align {row['alignment']:.2f} unif {row['uniformity']:.2f} false {100 * row['false_negatives']:.1f}% "
        f"pairs/s {_short(row['pairs_per_s'])} tokens/s {_short(row['tokens_per_s'])} data {100 * row['data_wait']:.0f}% "
        f"mem {row['memory_gb']:.1f}G eta {_time_left(eta)}"
    )


def _time_left(seconds: float) -> str:
    return f"{seconds / 60:.0f}m" if seconds > 90 else f"{seconds:.0f}s"


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:.1f}M"
    return f"{value / 1000:.0f}k" if value >= 10_000 else f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"
