"""From scores to probabilities: the curves and the temperature that a bundle carries, read without sklearn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from etl.errors import InputError
from etl.text import language_of

FORMAT = 4
UNCALIBRATED = "default"
"""Identity of the calibration of a bundle that has none."""

DEFAULT_KNOTS = ((0.0, 0.0), (1.0, 1.0))
"""(score, probability) of the curve that stands in: the cosine itself. It ranks, it does not mean a frequency."""

DEFAULT_TEMPERATURE = 0.05
"""Of the softmax over the leaves of the tree for a bundle that does not say at which temperature it was trained."""


VOUCHING_USERS = 2
"""Who typed a further candidate and clicked the item, from which on that vouches for it."""


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


class TermCurves(NamedTuple):
    """A curve for an item's best candidate and one for the further ones, each perhaps with another for named terms.

    The best candidate has won against the whole vocabulary: at the same score it is right far more often than one that
    stands behind another. With one curve for both the sample's best candidates had .51 on average, and .84 were right.
    A term that the text names is another kind again: of Taobao's further candidates above .3 by a common curve (.72 on
    average) those that stand in the title were right in .76 of the cases, the others in none.
    """

    first: Curve
    further: Curve
    first_named: Curve | None = None
    """Of a best candidate that stands in the item's text; None: ``first`` is of both kinds."""
    further_named: Curve | None = None

    def probabilities(
        self, ranked_scores: np.ndarray, named: np.ndarray | None = None, users: np.ndarray | None = None
    ) -> np.ndarray:
        """Probability that each of one item's candidates, best first, is right; never above that of the best.

        Shoppers' own clicks vouch for a candidate beside the encoder, which held-out items, that the curves are fitted on,
        do not have. So a clicked best candidate has the most that either of its curves gives (of the sample's .997 are
        right, .86 of those of items without clicks). A further one that two users clicked for has what a best one of its
        score has: of the sample's .96 are right, of those that a single user clicked for, often by mistake, .37.

        Args:
            ranked_scores: Descending [C].
            named: Whether a form of the candidate stands in the item's text, bool [C]; None: none does.
            users: How many typed a form of the candidate and clicked the item in training, int [C]; None: none did.
        """
        first, further = self.first.at(ranked_scores), self.further.at(ranked_scores)
        if named is not None:
            first = np.where(named, (self.first_named or self.first).at(ranked_scores), first)
            further = np.where(named, (self.further_named or self.further).at(ranked_scores), further)
        found = np.concatenate([first[:1], further[1:]])
        if users is not None:
            vouched = np.maximum(found, first)
            vouched[:1] = max(curve.probabilities[-1] for curve in (self.first, self.first_named) if curve is not None)
            least = np.full(len(users), VOUCHING_USERS)
            least[:1] = 1
            found = np.where(users >= least, vouched, found)
        return np.minimum(found, found[:1])


@dataclass(frozen=True, slots=True)
class Calibration:
    """Curves for terms, joint and of the languages that had enough cases for their own, and a temperature for categories."""

    id: str
    joint: TermCurves
    languages: Mapping[str, TermCurves]
    """By :func:`etl.text.language_of` of the item's text; any other language has the joint curves."""
    temperature: float
    lexical_weight: float
    """What a term that stands in the item's text gets beside its cosine."""
    max_similarity: float | None
    """That the curves of terms were fitted for: of candidates that say no more than others. None if there are none."""
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
        joint = _own(terms, TermCurves(Curve.of(DEFAULT_KNOTS), Curve.of(DEFAULT_KNOTS)))
        return cls(
            id=calibration_id or UNCALIBRATED,
            joint=joint,
            languages={name: _own(found, joint) for name, found in terms.get("languages", {}).items() if _has_own(found)},
            temperature=float(categories.get("temperature", DEFAULT_TEMPERATURE)),
            lexical_weight=float(terms.get("lexical_weight", 0.0)),
            max_similarity=terms.get("max_similarity"),
            terms_calibrated=bool(terms.get("calibrated")),
            categories_calibrated=bool(categories.get("calibrated")),
        )

    def curves(self, text: str) -> TermCurves:
        """Those for an item with this normalised text."""
        return self.languages.get(language_of(text), self.joint) if self.languages else self.joint


def _has_own(kinds: Mapping[str, Any]) -> bool:
    return any("knots" in found for found in kinds.values())


def _own(kinds: Mapping[str, Any], joint: TermCurves) -> TermCurves:
    own = {kind: Curve.of(kinds[kind]["knots"]) for kind in TermCurves._fields if "knots" in kinds.get(kind, {})}
    return joint._replace(**own)
