"""Position bias: how likely an item at a position is looked at, from the log alone, and the weight that undoes it.

The position-based model (Richardson et al. 2007; Craswell et al. 2008): a click at position k on item d for query q has
probability theta_k gamma_qd. With clicks c and impressions n, and clicks taken as Poisson, the maximum likelihood solves

    gamma_g = sum_k c_gk / sum_k n_gk theta_k        theta_k = sum_g c_gk / sum_g n_gk gamma_g

for groups g = (q, d), alternately. Groups without a click, or seen at one position only, say nothing of theta, and since
gamma drops out of the likelihood given a group's clicks, many small groups do not bias it. A click is then weighed by
1 / theta_k (inverse propensity, Joachims et al. 2017), up to a bound.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from etl.cleaning import Transform, acted, shown

log = logging.getLogger(__name__)

POSITIONS = 50
"""Positions that have a propensity of their own; further ones share the last."""
MIN_CLICKS = 1_000  # in groups that say something: at 1,000 the tenth position is known to some 15%
MAX_IMPRESSIONS = 5_000_000  # theta is a few dozen numbers: more queries than make these are not looked at
_ITERATIONS = 200
_TOLERANCE = 1e-6


def estimate(marked: DataFrame, impressions: int) -> np.ndarray | None:
    """Theta [positions], 1 at position 1 and never rising, or None where the log does not tell.

    Args:
        marked: Events with their rules, of which impressions and clicks are used.
        impressions: Their number; of a larger log a share of the queries is drawn by hash.
    """
    cells = _counts(marked, min(1.0, MAX_IMPRESSIONS / max(impressions, 1))).toArrow()
    names = ("group", "position", "shown", "clicks")
    group, position, seen, clicked = (cells[name].to_numpy() for name in names)
    clicks = int(clicked.sum())
    if clicks < MIN_CLICKS:
        log.warning(
            "position bias is not estimated: %d clicks on items seen at several positions for a query (expected >= %d); "
            "every click weighs the same",
            clicks, MIN_CLICKS,
        )  # fmt: skip
        return None
    theta = fit(group, position - 1, seen, clicked)
    log.info("propensity by position: %s", " ".join(f"{k}:{value:.2f}" for k, value in enumerate(theta, 1) if k <= 10))
    return theta


def fit(group: np.ndarray, position: np.ndarray, impressions: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Counts of N cells (group, position from 0), each [N] -> theta [highest position + 1], see the module."""
    _, group = np.unique(group, return_inverse=True)
    total, seen = np.bincount(group, clicks), np.bincount(position, clicks)
    theta = np.ones(position.max() + 1)
    for _ in range(_ITERATIONS):
        gamma = total / np.bincount(group, impressions * theta[position])
        expected = np.bincount(position, impressions * gamma[group], len(theta))
        new = np.divide(seen, expected, out=theta.copy(), where=expected > 0)
        new /= new[0] if new[0] > 0 else new.max()
        moved, theta = np.abs(new - theta).max(), new
        if moved < _TOLERANCE:
            break
    from sklearn.isotonic import IsotonicRegression  # not above: a second of every job that reads clicks

    # Nobody looks more at what stands lower; where clicks are few this is what keeps theta from jumping.
    weights = np.bincount(position, impressions, len(theta)) + 1e-9
    falling = IsotonicRegression(increasing=False).fit_transform(np.arange(len(theta)), theta, sample_weight=weights)
    return np.asarray(falling / falling[0])


def with_inverse_propensity(theta: np.ndarray | None, most: float) -> Transform:
    """Acts with weight and position -> weight over its position's propensity; an act without position keeps its weight."""

    def transform(acts: DataFrame) -> DataFrame:
        if theta is None:
            return acts.withColumn("weight", F.col("weight").cast("double"))
        inverse = [float(value) for value in np.minimum(1 / np.maximum(theta, 1e-9), most)]
        place = F.when(F.col("position") >= 1, F.least(F.col("position"), F.lit(len(inverse)))).cast("int")
        # Not element_at: of a constant array it gives Spark 4.0.5's last value, not null, where the index is null.
        factor = F.get(F.array(*map(F.lit, inverse)), place - 1)
        return acts.withColumn("weight", F.col("weight") * F.coalesce(factor, F.lit(1.0)))

    return transform


def as_counts(theta: np.ndarray | None) -> Mapping[str, float]:
    """Theta by position, to be recorded; empty if there is none."""
    return {} if theta is None else {str(k): round(float(value), 4) for k, value in enumerate(theta, 1)}


def _counts(marked: DataFrame, share: float) -> DataFrame:
    """(group, position, shown, clicks) of groups that were clicked, and seen at two positions at least."""
    drawn = F.pmod(F.xxhash64("query"), F.lit(1_000_000)) < int(share * 1_000_000)
    place: Column = F.least(F.col("position"), F.lit(POSITIONS)).alias("position")
    clicked = acted() & (F.col("event") == "click")
    events = marked.where((shown() | clicked) & (F.col("position") >= 1) & drawn)
    cells = events.groupBy(F.xxhash64("query", "item_id").alias("group"), place).agg(
        F.count_if(shown()).alias("shown"), F.count_if(clicked).alias("clicks")
    )
    # Several clicks of one impression are one.
    cells = cells.where(F.col("shown") > 0).withColumn("clicks", F.least("shown", "clicks"))
    telling = cells.groupBy("group").agg(F.count(F.lit(1)).alias("_places"), F.sum("clicks").alias("_clicks"))
    telling = telling.where((F.col("_places") > 1) & (F.col("_clicks") > 0)).select("group")
    return cells.join(telling, "group", how="left_semi")
