"""Whether the probabilities of a day's terms are the frequencies with which shoppers click accordingly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.text import Normaliser
from etl.vocabulary import Vocabulary
from labeling.check import Check
from labeling.clicked import Clicked, clicked_items, term_forms
from labeling.reliability import reliability

FRESH = "test"
"""Split whose queries neither training nor calibration has seen, so that what they led to is news on the first night too."""

MOST_ITEMS = 5_000
"""With as many, chance makes an error of .01."""


def clicked_for(rows: DataFrame, pairs: DataFrame, vocabulary: Vocabulary, normalise: Normaliser) -> list[Clicked]:
    """ITEM_TERMS and PAIRS of a day -> its items whose main term only held-out queries led to, drawn by hash."""
    labelled = rows.select("item_id", F.lit("").alias("text")).distinct()
    return clicked_items(pairs, labelled, term_forms(vocabulary, normalise), (FRESH,), MOST_ITEMS)


def stated_and_clicked(rows: DataFrame, items: Sequence[Clicked], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """ITEM_TERMS -> the probabilities of terms of ``items`` [N], and 1 where their item was clicked for them [N].

    As in :func:`labeling.calibrate.fit_terms`: all terms that no query of training led to; a right term that nobody
    clicked counts as wrong.
    """
    ids = [term.term_id for term in vocabulary.terms]
    trained = {(item.item_id, ids[term]) for item in items for term in item.trained}
    held_out = {(item.item_id, ids[term]) for item in items for term in item.held_out}
    chosen = rows.sparkSession.createDataFrame([(item.item_id,) for item in items], "item_id string")
    given = rows.where("rank > 0").join(F.broadcast(chosen), on="item_id", how="left_semi")
    found = [tuple(row) for row in given.select("item_id", "term_id", "probability").collect()]
    # By item: in an order by outcome, bins that cut a step of the curve would hold only right or only wrong cases of it.
    cases = [(stated, (item, term) in held_out) for item, term, stated in sorted(found) if (item, term) not in trained]
    stated, clicked = np.array(cases, dtype=np.float64).reshape(-1, 2).T
    return stated, clicked


def reliability_checks(stated: np.ndarray, clicked: np.ndarray, warn: float, block: float, least: int) -> list[Check]:
    """Calibration error, Brier skill and AUC of stated probabilities [N] against clicks [N].

    Args:
        stated: Probabilities.
        clicked: 1 or 0.
        warn: Largest calibration error without a warning.
        block: Largest one with which labels may go live.
        least: With fewer cases nothing is said, and all pass.
    """
    what = f"on {len(stated)} terms of items that held-out queries led to"
    names = [f"item_terms.{name}" for name in ("calibration_error", "brier_skill", "auc")]
    if len(stated) < least:
        return [
            Check(name, None, f"{what}: too few to say (expected >= {least})", passed=True, hard=False) for name in names
        ]
    found = reliability(stated, clicked)
    expected = (
        f"at most {warn:g} (beyond {block:g} nothing is published): distance of stated probability and clicked frequency, "
        f"{what}, stated {stated.mean():.3f} on average, clicked {clicked.mean():.3f}; beyond it run `labeller calibrate "
        "--bundle …` on newer clicks, or train again"
    )
    error = Check(names[0], found.error, expected, passed=found.error <= warn, hard=found.error > block)
    # Told beside the error, which alone a constant would pass; terms that are given are mostly right, and both are rough.
    beside = ("1 at most, 0 for a constant", "1 at most, .5 for a constant; null if all were clicked, or none was")
    figures = zip(names[1:], found[1:], beside, strict=True)
    return [error, *(Check(name, value, f"{scale}: {what}", passed=True, hard=False) for name, value, scale in figures)]
