"""What abstaining buys: the error among the items that are answered, against how many are (selective prediction)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

POINTS = 100
"""Of a curve that is kept: a percent of coverage each."""

LOOKS = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#cc79a7", ":"))
"""Okabe and Ito's colours, which all eyes can tell apart, and lines that differ in print too."""


@dataclass(frozen=True, slots=True)
class RiskCurve:
    """Risk by coverage, both ascending in coverage, and the area under all of it."""

    coverage: Sequence[float]
    """Share of the items that are answered, the most probable ones first."""
    risk: Sequence[float]
    """Share of wrong answers among them."""
    area: float
    """AURC: the mean risk over all coverages, 0 if no answer is wrong. Falls with fewer errors, and with errors that are
    stated to be less probable; only figures of the same items can be compared."""

    def at(self, coverage: float) -> float:
        """Risk at a coverage, linear between the points that are kept."""
        return float(np.interp(coverage, self.coverage, self.risk))


def risk_curve(probabilities: Sequence[float] | np.ndarray, right: Sequence[bool] | np.ndarray) -> RiskCurve:
    """Answer the most probable items first (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).

    No threshold parts items of equal probability: among them the risk is the mean over their orders, so that the curve
    does not depend on the order of the items.

    Args:
        probabilities: Stated for each item [N]; 0 for an item without an answer.
        right: Whether its answer is right [N]; False for an item without one: answering it would be guessing.

    Raises:
        ValueError: no items, the lengths differ, or a probability is not a number.
    """
    stated, wrong = np.asarray(probabilities, dtype=np.float64), 1.0 - np.asarray(right, dtype=np.float64)
    if stated.shape != wrong.shape or stated.ndim != 1 or not len(stated) or np.isnan(stated).any():
        raise ValueError(
            f"a risk curve needs a probability and an outcome of each item (found shapes {stated.shape} and {wrong.shape}, "
            f"{int(np.isnan(stated).sum())} of them not a number): give 0 where there is no answer"
        )
    order = np.argsort(-stated, kind="stable")
    last = np.flatnonzero(np.diff(stated[order], append=-np.inf))  # of each group of equal probability
    answered = np.arange(1, len(stated) + 1)
    errors = np.interp(answered, [0, *(last + 1)], [0.0, *wrong[order].cumsum()[last]])
    risk = errors / answered
    kept = np.unique(np.ceil(np.linspace(0, len(stated), POINTS + 1)[1:]).astype(int)) - 1
    return RiskCurve(
        coverage=(answered[kept] / len(stated)).round(6).tolist(),
        risk=risk[kept].round(6).tolist(),
        area=round(float(risk.mean()), 6),
    )


def draw(curves: Mapping[str, RiskCurve], file: Path, title: str) -> None:
    """Lay down the curves as a picture, one line a name, its area in the legend."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for place, (name, curve) in enumerate(curves.items()):
        color, style = LOOKS[place % len(LOOKS)]
        axes.plot(curve.coverage, curve.risk, color=color, linestyle=style, label=f"{name} (area {curve.area:.3f})")
    axes.set(
        xlabel="coverage: share of items answered, most probable first", ylabel="risk: share of them wrong", title=title
    )
    axes.set(xlim=(0, 1), ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=120)
