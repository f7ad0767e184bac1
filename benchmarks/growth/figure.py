"""The picture of the growth of cost: CPU seconds by size on logs, where what is linear has slope 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.growth.page import Growth

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#000000", "#999999")
"""Of Okabe & Ito (2008), a stage each."""
MARKERS = "osD^vP*X"


def draw(night: Sequence[Growth], file: Path) -> None:
    """All CPU seconds of the stages beside those above the fixed cost, at most eight stages."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    total, above = figure.subplots(1, 2)
    for one, colour, marker in zip(night, COLOURS, MARKERS, strict=False):
        style = {"color": colour, "marker": marker, "markersize": 5.0, "linewidth": 1.5, "label": one.what}
        fixed = [median(value(line) for line in one.tiny) for value in (one.size, one.cost)]
        by_size = {
            size: median(c for n, c in zip(one.sizes, one.costs, strict=True) if n == size) for size in set(one.sizes)
        }
        _line(total, by_size, style)
        _line(above, {n - fixed[0]: c - fixed[1] for n, c in by_size.items()}, style)
    for axes, title in ((total, "CPU seconds"), (above, "CPU seconds above those of the tiny shop; grey is linear")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("data (clicks, pairs or items), of the smallest shop's")
        axes.grid(alpha=0.3)
    _slopes(above)
    total.legend(fontsize="small")
    figure.savefig(file, dpi=100)


def _line(axes: Axes, costs: dict[float, float], style: dict[str, Any]) -> None:
    """Costs by size, in units of the smallest; what does not exceed the fixed part has no place on logs."""
    shown = {n: costs[n] for n in sorted(costs) if n > 0 and costs[n] > 0}
    if shown:
        base = min(n for n in costs if n > 0)
        axes.plot([n / base for n in shown], list(shown.values()), **style)


def _slopes(axes: Axes) -> None:
    """Lines of slope 1 behind what is shown, a factor of two apart."""
    across, up = np.array(axes.get_xlim()), axes.get_ylim()
    for power in range(int(np.floor(np.log2(up[0] / across[1]))), int(np.ceil(np.log2(up[1] / across[0]))) + 1):
        axes.plot(across, 2.0**power * across, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_xlim(*across)
    axes.set_ylim(*up)
