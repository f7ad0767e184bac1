"""From scores to probabilities: the curve and the temperature that a bundle carries, read without sklearn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FORMAT = 1
UNCALIBRATED = "default"
"""Identity of the calibration of a bundle that has none."""

DEFAULT_KNOTS = ((0.0, 0.0), (1.0, 1.0))
"""(score, probability) of the curve that stands in: the cosine itself. It ranks, it does not mean a frequency."""

DEFAULT_TEMPERATURE = 0.1
"""Of the softmax over sibling categories, where none could be fitted: the training temperature of ``published``."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Monotone knots for terms (ascending scores) and a temperature for categories."""

    id: str
    scores: np.ndarray
    probabilities: np.ndarray
    temperature: float
    terms_calibrated: bool
    categories_calibrated: bool

    @classmethod
    def of(cls, content: Mapping[str, Any] | None, calibration_id: str = "") -> Calibration:
        """From what :mod:`labeling.calibrate` stored in a bundle; None gives the documented defaults."""
        terms = (content or {}).get("terms", {})
        categories = (content or {}).get("categories", {})
        knots = np.array(terms.get("knots", DEFAULT_KNOTS), dtype=np.float64)
        return cls(
            id=calibration_id or UNCALIBRATED,
            scores=knots[:, 0],
            probabilities=knots[:, 1],
            temperature=float(categories.get("temperature", DEFAULT_TEMPERATURE)),
            terms_calibrated=bool(terms.get("calibrated")),
            categories_calibrated=bool(categories.get("calibrated")),
        )

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Probability that a term with this score is right: linear between the knots, flat outside."""
        return np.interp(scores, self.scores, self.probabilities)
