"""The picture of loss curves that lie on each other: one above the other by width, and how far each is from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

LEAST = 1e-6
"""To which losses are kept: the axis of the differences is linear below it, so that none at all has a place."""
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#c9c9c9", "linewidth": 9.0, "zorder": 2.0},
    {"color": "#56b4e9", "linewidth": 4.5, "zorder": 2.1},
    {"color": "#000000", "linewidth": 1.3, "zorder": 2.3, "linestyle": (0, (4, 4))},
    {"color": "#d55e00", "linewidth": 2.0, "zorder": 2.2},
)
"""From wide and light to thin and dark, so that of lines that coincide each is seen; colours of Okabe & Ito (2008)."""
MARKERS: tuple[dict[str, Any], ...] = (
    {},
    {"color": "#56b4e9", "marker": "o", "markersize": 8.0, "zorder": 2.1},
    {"color": "#000000", "marker": "x", "markersize": 3.5, "zorder": 2.3},
    {"color": "#d55e00", "marker": ".", "markersize": 9.0, "zorder": 2.2},
)


@dataclass(frozen=True, slots=True)
class Run:
    """A training."""

    name: str
    curve: Mapping[int, float]
    """Loss by step."""
    killed: int | None = None
    """Last step that it took before it was killed."""
    resumed: int | None = None
    """Step of the checkpoint from which it was gone on with."""

    def differences(self, first: Run) -> dict[int, float]:
        """How far its loss is from that of ``first``, by step.

        Raises:
            ValueError: they have other steps.
        """
        if self.curve.keys() != first.curve.keys():
            raise ValueError(
                f"{self.name!r} has {len(self.curve)} steps, {first.name!r} has {len(first.curve)}, not the same"
            )
        return {step: abs(loss - first.curve[step]) for step, loss in self.curve.items()}


def draw(runs: Sequence[Run], file: Path) -> None:
    """Losses by step above, differences from the first run below, and where runs were killed; at most four runs."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for run, style in zip(runs, STYLES[: len(runs)], strict=True):
        above.plot(list(run.curve), list(run.curve.values()), label=run.name, **style)
    for run, style in list(zip(runs, MARKERS, strict=False))[1:]:
        apart = run.differences(runs[0])
        below.plot(list(apart), list(apart.values()), linestyle="", **style)
    for axes in (above, below):
        _mark_kills(axes, runs)
        axes.grid(alpha=0.3)
    above.set_ylabel("loss, mean of all ranks")
    above.legend()
    below.set_yscale("symlog", linthresh=LEAST)
    below.set_ylim(-LEAST / 2, 3)
    below.set_ylabel("difference from the first")
    below.set_xlabel("step")
    figure.savefig(file, dpi=100)


def draw_one(points: Sequence[tuple[int, float]], file: Path, title: str) -> None:
    """The loss by step of one training, as ``metrics.json`` of its bundle has it under ``curve``."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), color="#0072b2")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, mean of all ranks since the last point")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=100)


def _mark_kills(axes: Axes, runs: Sequence[Run]) -> None:
    """The steps between checkpoint and kill, which were done again."""
    label = "kill -9, and the steps since the checkpoint"
    for run in runs:
        if run.killed is not None and run.resumed is not None:
            axes.axvspan(run.resumed, run.killed, color="#e69f00", alpha=0.15, linewidth=0)
            axes.axvline(run.killed, color="#a00000", linewidth=1.2, linestyle=":", label=label)
            label = ""  # one entry of the legend for all
