"""How far stated probabilities are from what happened: calibration error, Brier skill, AUC."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import brier_score_loss, roc_auc_score


class Reliability(NamedTuple):
    """Three measures that only together say that probabilities can be used."""

    error: float
    """Expected calibration error: 0 if each probability is the frequency of being right. So is one constant, the mean."""
    brier_skill: float | None
    """1 - Brier score / that of the mean frequency stated for all: above 0, they say more than that constant."""
    auc: float | None
    """Probability that a right case was stated to be more probable than a wrong one; None if all are right, or wrong."""


def reliability(probabilities: np.ndarray, right: np.ndarray) -> Reliability:
    """Measure stated probabilities [N] against outcomes [N], 1 if right and 0 if wrong; N >= 1."""
    error = round(expected_calibration_error(probabilities, right), 6)
    if right.min() == right.max():
        return Reliability(error, None, None)
    skill = 1 - brier_score_loss(right, probabilities) / right.var()
    return Reliability(error, round(float(skill), 6), round(float(roc_auc_score(right, probabilities)), 6))


def expected_calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of probability and frequency over bins of equal mass (Nguyen and O'Connor 2015).

    15 bins, fewer where one would hold under 20 cases: the noise of a frequency of four cases is no calibration error.
    """
    bins = min(15, max(1, len(right) // 20))
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(p) * abs(probabilities[p].mean() - right[p].mean()) for p in parts) / max(len(order), 1))
