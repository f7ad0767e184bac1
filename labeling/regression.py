"""Whether a day's best terms still say what shoppers click for, beside the labels of the day before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.vocabulary import Vocabulary
from labeling.check import Check
from labeling.clicked import Clicked

NAME = "item_terms.clicked_hit_rate_change"

_Z = 1.96  # of a 95% interval


def regression_check(
    rows: DataFrame, before: DataFrame | None, items: Sequence[Clicked], vocabulary: Vocabulary, max_drop: float, least: int
) -> Check:
    """ITEM_TERMS of a day and of an earlier one -> the change of their hit rate on the same items and clicks; a hard check.

    The hit rate is the share of items whose best term is one that held-out queries of the day led to. Another bundle,
    calibration or vocabulary is compared with what it replaces, on clicks that neither has seen. It fails where the whole
    95% interval of the paired difference lies below ``-max_drop``, so that chance among few items stops no night.

    Args:
        rows: Of the staged day.
        before: Of the newest earlier day; None if there is none.
        items: Those that held-out queries led to, see :func:`labeling.probability_checks.clicked_for`.
        vocabulary: Whose positions ``items`` name.
        max_drop: Largest drop of the hit rate.
        least: With fewer items that both days have, nothing is said.
    """
    hits = [_hits(day, items, vocabulary) for day in (rows, before) if day is not None]
    both = sorted(set.intersection(*(set(found) for found in hits))) if before is not None else []
    what = f"hit rate of best terms on {len(both)} items that held-out queries led to, against the newest earlier day"
    if len(both) < least:
        return Check(NAME, None, f"{what}: too few to say (expected >= {least})", passed=True, hard=True)
    now_N, then_N = (np.array([found[item] for item in both], dtype=np.float64) for found in hits)
    change_N = now_N - then_N
    upper = change_N.mean() + _Z * change_N.std() / np.sqrt(len(both))
    expected = (
        f"not below {-max_drop:g} with 95% confidence: {what}, {then_N.mean():.3f} before and {now_N.mean():.3f} now; "
        "go back to the champion of before (`labeller predict --bundle`), or see what changed in the vocabulary"
    )
    return Check(NAME, round(float(change_N.mean()), 6), expected, passed=bool(upper >= -max_drop), hard=True)


def _hits(rows: DataFrame, items: Sequence[Clicked], vocabulary: Vocabulary) -> dict[str, bool]:
    """Item -> whether its best term is one that held-out queries led to; of ``items`` that the day has."""
    ids = [term.term_id for term in vocabulary.terms]
    right = {item.item_id: {ids[term] for term in item.held_out} for item in items}
    chosen = rows.sparkSession.createDataFrame([(name,) for name in right], "item_id string")
    best = rows.where("rank <= 1").join(F.broadcast(chosen), on="item_id", how="left_semi").select("item_id", "term_id")
    return {row["item_id"]: row["term_id"] in right[row["item_id"]] for row in best.collect()}
