"""The exponent b of cost ~ n^b, with its interval, and what it says of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy import stats

MARGIN = 0.1
"""Above the claimed exponent by more than this, and surely: more than claimed."""
SUPERLINEAR, AS_CLAIMED = "**superlinear**", "as claimed or less"


@dataclass(frozen=True, slots=True)
class Exponent:
    """A slope on logs."""

    value: float
    low: float | None = None
    """Lower end of its 95% interval; None where the points leave no freedom for one."""
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> Exponent | None:
    """Least squares on logs, its interval by the t distribution; None with a cost that has no log, or a single size.

    Of three points one degree of freedom is left, and the interval is 12.7 standard errors to either side; repeats of the
    same sizes narrow it.
    """
    if len(set(sizes)) < 2 or min(costs) <= 0:
        return None
    line = stats.linregress(np.log(sizes), np.log(costs))
    free = len(sizes) - 2
    if not free:
        return Exponent(float(line.slope))
    apart = float(stats.t.ppf(0.975, free) * line.stderr)
    return Exponent(float(line.slope), float(line.slope) - apart, float(line.slope) + apart)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Size and cost of the tiny runs, by which the fixed part is known: their medians."""

    size: float
    cost: float

    @classmethod
    def of(cls, sizes: Sequence[float], costs: Sequence[float]) -> Fixed:
        return cls(median(sizes), median(costs))

    def above(self, sizes: Sequence[float], costs: Sequence[float]) -> Exponent | None:
        """The exponent of the cost above the tiny run's in the data above its: exactly 1 of a cost a + k n.

        None if a cost is no more than that of the tiny run: then the growth is lost in the noise of the fixed part.
        """
        chosen = [(n - self.size, c - self.cost) for n, c in zip(sizes, costs, strict=True) if n > self.size]
        return exponent(*zip(*chosen, strict=True)) if chosen else None


def verdict(found: Exponent | None, claimed: float) -> str:
    """What the exponent above the fixed cost says of the claim."""
    if found is None:
        return "not told from the fixed cost"
    if found.low is None or found.high is None:
        return "no interval from two points"
    if found.low > claimed + MARGIN:
        return SUPERLINEAR if claimed == 1 else "**more than claimed**"
    return AS_CLAIMED if found.high <= claimed + MARGIN else "open: the interval is wide"
