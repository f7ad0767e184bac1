"""How far stated probabilities are from what happened: calibration error, Brier skill, AUC."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
    from sklearn.metrics import (  # not above: two seconds of every job that audits or reads labels
        brier_score_loss,
        roc_auc_score,
    )

    skill = 1 - brier_score_loss(right, probabilities) / right.var()
    return Reliability(error, round(float(skill), 6), round(float(roc_auc_score(right, probabilities)), 6))


class Bin(NamedTuple):
    """A point of the reliability diagram."""

    stated: float
    """Mean probability of its cases."""
    frequency: float
    """Share of them that are right."""
    cases: int


def bins_of_equal_mass(probabilities: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Stated probabilities [N] and outcomes [N] -> bins of neighbouring probabilities, ascending.

    15 bins, fewer where one would hold under 20 cases: the noise of a frequency of four cases is no calibration error.
    """
    bins = min(15, max(1, len(right) // 20))
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    return [Bin(float(probabilities[p].mean()), float(right[p].mean()), len(p)) for p in parts if len(p)]


def expected_calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of probability and frequency over bins of equal mass (Nguyen and O'Connor 2015)."""
    found = bins_of_equal_mass(probabilities, right)
    return sum(bin_.cases * abs(bin_.stated - bin_.frequency) for bin_ in found) / max(len(right), 1)
