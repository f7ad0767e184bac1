"""From scores to probabilities: the curves and the temperature that a bundle carries, read without sklearn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from etl.errors import InputError

FORMAT = 2
UNCALIBRATED = "default"
"""Identity of the calibration of a bundle that has none."""

DEFAULT_KNOTS = ((0.0, 0.0), (1.0, 1.0))
"""(score, probability) of the curve that stands in: the cosine itself. It ranks, it does not mean a frequency."""

DEFAULT_TEMPERATURE = 0.05
"""Of the softmax over sibling categories for a bundle that does not say at which temperature it was trained."""


class Curve(NamedTuple):
    """Knots of a non-decreasing curve; ``scores`` ascend."""

    scores: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, knots: Sequence[Sequence[float]]) -> Curve:
        table = np.array(knots, dtype=np.float64)
        return cls(table[:, 0], table[:, 1])

    def at(self, scores: np.ndarray) -> np.ndarray:
        """Linear between the knots, flat outside."""
        return np.interp(scores, self.scores, self.probabilities)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A curve for an item's best candidate, one for the further ones, and a temperature for categories.

    The best candidate has won against the whole vocabulary: at the same score it is right far more often than one that
    stands behind another. With one curve for both the sample's best candidates had .51 on average, and .84 were right.
    """

    id: str
    first: Curve
    further: Curve
    temperature: float
    terms_calibrated: bool
    categories_calibrated: bool

    @classmethod
    def of(cls, content: Mapping[str, Any] | None, calibration_id: str = "") -> Calibration:
        """From what :mod:`labeling.calibrate` stored in a bundle; None gives the documented defaults.

        Raises:
            InputError: another version of this package stored it.
        """
        if content and content.get("format") != FORMAT:
            raise InputError(
                f"calibration {calibration_id} has format {content.get('format')!r}, this version reads {FORMAT}: "
                "run `labeller calibrate --bundle …` again"
            )
        terms = (content or {}).get("terms", {})
        categories = (content or {}).get("categories", {})
        return cls(
            id=calibration_id or UNCALIBRATED,
            first=Curve.of(terms.get("first", {}).get("knots", DEFAULT_KNOTS)),
            further=Curve.of(terms.get("further", {}).get("knots", DEFAULT_KNOTS)),
            temperature=float(categories.get("temperature", DEFAULT_TEMPERATURE)),
            terms_calibrated=bool(terms.get("calibrated")),
            categories_calibrated=bool(categories.get("calibrated")),
        )

    def probabilities(self, ranked_scores: np.ndarray) -> np.ndarray:
        """Probability that each of one item's candidates, best first, is right; never above that of the best."""
        found = self.further.at(ranked_scores)
        found[:1] = self.first.at(ranked_scores[:1])
        return np.minimum(found, found[:1])
