"""Pictures of the nightly report: SVG by matplotlib, inlined, in colours that all eyes can tell apart."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labeling.reliability import Bin
from labeling.selective import LOOKS

SIZE = (4.2, 2.8)
"""Inches: 403 pixels wide, so that its letters can still be read on a phone's 360."""

SPARK_SIZE = (1.5, 0.36)

_STYLE: Any = {
    "svg.fonttype": "none",  # letters as text: a tenth of the size
    "svg.hashsalt": "report",  # the same figures make the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that lies in the page itself."""

    src: str
    """A data: address."""
    alt: str
    """What a reader who cannot see it needs to know."""
    caption: str = ""


def sparkline(values: Sequence[float], alt: str) -> Picture:
    """A bare line of at least two values, oldest first, with a dot on the newest."""
    figure, axes = _figure(SPARK_SIZE)
    axes.plot(values, color=LOOKS[0][0], linewidth=1.2, clip_on=False)
    axes.plot([len(values) - 1], [values[-1]], "o", color=LOOKS[1][0], markersize=3.5, clip_on=False)
    axes.set_axis_off()
    axes.margins(x=0.04, y=0.2)
    return _picture(figure, alt)


def histogram(counts: Mapping[str, Sequence[int]], label: str, alt: str, caption: str) -> Picture:
    """Counts of bins of equal width over 0..1, one outline a name."""
    figure, axes = _figure()
    for (name, heights), (color, style) in zip(counts.items(), LOOKS, strict=False):
        edges = [n / len(heights) for n in range(len(heights) + 1)]
        axes.stairs(heights, edges, color=color, linestyle=style, label=name, linewidth=1.5)
    axes.set(xlabel=label, ylabel="items", xlim=(0, 1), ylim=(0, None))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    return _picture(figure, alt, caption)


def reliability_diagram(bins: Sequence[Bin], intervals: Sequence[tuple[float, float]], alt: str, caption: str) -> Picture:
    """Frequency by stated probability, with the interval of each frequency, beside the diagonal on which both are equal."""
    figure, axes = _figure()
    stated, found = [bin_.stated for bin_ in bins], [bin_.frequency for bin_ in bins]
    ends = [
        [max(0.0, bin_.frequency - low) for bin_, (low, _) in zip(bins, intervals, strict=True)],
        [max(0.0, high - bin_.frequency) for bin_, (_, high) in zip(bins, intervals, strict=True)],
    ]
    axes.plot([0, 1], [0, 1], color="0.45", linestyle=":", label="stated = clicked")
    axes.errorbar(
        stated, found, yerr=ends, fmt="o-", color=LOOKS[0][0], capsize=2, markersize=4, label="terms, 95% intervals"
    )
    axes.set(xlabel="probability as stated", ylabel="share that was clicked", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="upper left")
    return _picture(figure, alt, caption)


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], labels: tuple[str, str], alt: str, caption: str) -> Picture:
    """One line of (x, y) a name; ``labels`` are those of the axes."""
    figure, axes = _figure()
    for (name, points), (color, style) in zip(curves.items(), LOOKS, strict=False):
        axes.plot(*zip(*points, strict=True), color=color, linestyle=style, label=name, linewidth=1.5)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    if len(curves) > 1:
        axes.legend(frameon=False)
    return _picture(figure, alt, caption)


def _figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained" if size == SIZE else None)
        axes = figure.subplots() if size == SIZE else figure.add_axes((0, 0, 1, 1))
    return figure, axes


def _picture(figure: Figure, alt: str, caption: str = "") -> Picture:
    svg = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}", alt, caption)
