"""A share of all items from a stratified random sample of them, with its interval."""

# h stratum, N_h its items, n_h those of them that were judged

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import beta


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share; without bias for the items that the judged strata hold."""

    value: float
    low: float
    high: float
    judged: int
    """Items that the estimate is made of."""
    covered: float
    """Share of all items in strata of which at least one was judged."""


def stratified_share(
    judged: Mapping[str, Sequence[bool]], sizes: Mapping[str, int], confidence: float = 0.95
) -> Share | None:
    """The share of right items among all, from judged ones by stratum; None if nothing was judged.

    The mean of the strata's shares, weighted by their sizes, which is Horvitz and Thompson's estimate (1952) where all that
    was drawn was judged, and holds as well where judging stopped half-way, if it did so for no reason that has to do with
    the items. The interval is Korn and Graubard's (1998): Clopper and Pearson's for the sample size that would have had the
    same variance, which keeps its promise for shares near 0 and 1, where a normal one does not.

    Args:
        judged: Stratum -> outcomes of its judged items, drawn without replacement, all equally likely.
        sizes: Stratum -> its items, N_h; strata without outcomes too.
        confidence: Of the interval.
    """
    outcomes = {name: found for name, found in judged.items() if found}
    if not outcomes:
        return None
    whole = sum(sizes[name] for name in outcomes)
    weights = {name: sizes[name] / whole for name in outcomes}
    value = sum(weights[name] * sum(found) / len(found) for name, found in outcomes.items())
    variance = sum(weights[name] ** 2 * _variance(found, sizes[name], value) for name, found in outcomes.items())
    count, covered = sum(map(len, outcomes.values())), whole / sum(sizes.values())
    if all(len(found) == sizes[name] for name, found in outcomes.items()):  # no sample: all there is
        return Share(value, value, value, count, covered)
    effective = value * (1 - value) / variance if variance else float(count)
    right, rest = value * effective, (1 - confidence) / 2
    low = float(beta.ppf(rest, right, effective - right + 1)) if value > 0 else 0.0
    high = float(beta.ppf(1 - rest, right + 1, effective - right)) if value < 1 else 1.0
    return Share(value, low, high, count, covered)


def _variance(found: Sequence[bool], size: int, overall: float) -> float:
    """Of a stratum's share; of a single item the overall share has to say how much its like vary."""
    n = len(found)
    share = sum(found) / n if n > 1 else overall
    return (1 - n / size) * share * (1 - share) / max(n - 1, 1)
