"""Product terms: how many of an item's candidates to give, with which probability, or why none."""

# N items, D embedding

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from labeling.probability import Calibration, TermCurves
from labeling.redundancy import Relation, relation, says_the_same, without_redundant
from labeling.term_search import DECIMALS, Candidate, TermIndex, TermSearch

LOW_PROBABILITY, TIE = "low_probability", "tie"
"""Why no term is given: the best one is not probable enough, or another that says something else is equally near."""

TIE_MARGIN = 1e-4
"""A smaller distance to the best term says nothing: float16, in which vectors are kept, moves a cosine by as much."""


class TermLabel(NamedTuple):
    """One term of one item; ``margin`` is its lead over the runner-up, None if there is none.

    A further term may be behind it (a margin below 0): nearer is not always more probable. ``score`` is the cosine, plus the
    calibration's lexical weight where there is one and the term stands in the text.
    """

    rank: int
    term_id: str
    term: str
    score: float
    probability: float
    margin: float | None
    cosine: float
    lexical_hit: bool


class RunnerUp(NamedTuple):
    """The best candidate that is not given, and says something else than those that are."""

    term_id: str
    term: str


class ItemTerms(NamedTuple):
    """The terms of an item, best first; ``reason`` says why there are none, and is None otherwise."""

    terms: list[TermLabel]
    reason: str | None
    runner_up: RunnerUp | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TermSettings:
    """How many of an item's ranked candidates become its terms."""

    min_probability: float
    max_gap: float
    max_terms: int
    max_similarity: float


class TermLabeller:
    """The labels of items by one vocabulary; built once in a process."""

    def __init__(self, index: TermIndex) -> None:
        self.index = index
        self.search = TermSearch(index)
        self._relate = lru_cache(maxsize=2**16)(self._relation)  # 60 µs a pair, and the same pairs meet again and again

    def label(
        self,
        vectors_ND: np.ndarray,
        texts: Sequence[str],
        calibration: Calibration,
        settings: TermSettings,
        clicked: Sequence[Mapping[int, int]] | None = None,
    ) -> list[ItemTerms]:
        """The terms of each item, or why it has none.

        Args:
            vectors_ND: float64 unit vectors.
            texts: The items' normalised product texts, for ``lexical_hit`` and the curve of their language.
            calibration: Weighs terms that stand in the text, and turns scores into probabilities.
            settings: The cuts.
            clicked: The terms (positions) that training saw each item clicked for -> by how many users; without a
                calibration they say nothing.
        """
        if clicked is None or not calibration.terms_calibrated:
            clicked = [{}] * len(texts)
        (found,) = self.search.candidates(vectors_ND, texts, [calibration.lexical_weight])
        return [
            self._labels(candidates, calibration.curves(text), settings, terms)
            for candidates, text, terms in zip(found, texts, clicked, strict=True)
        ]

    def _labels(
        self,
        candidates: list[Candidate],
        curves: TermCurves,
        settings: TermSettings,
        clicked: Mapping[int, int],
    ) -> ItemTerms:
        terms, scores = [found.term for found in candidates], [found.score for found in candidates]
        users, named = np.array([clicked.get(term, 0) for term in terms]), np.array([found.lexical for found in candidates])
        probabilities = curves.probabilities(np.array(scores), named, users).round(DECIMALS).tolist()
        places = passing(scores, probabilities, settings)
        likely = [probabilities[place] for place in places]
        told = without_redundant([terms[place] for place in places], likely, self._relate, settings.max_similarity)
        chosen = [places[n] for n in told][: settings.max_terms]
        second = self._runner_up(terms, chosen, settings.max_similarity)
        runner_up = None if second is None else RunnerUp(self.index.term_ids[terms[second]], self.index.terms[terms[second]])
        if not chosen:
            return ItemTerms([], LOW_PROBABILITY, runner_up)
        if second is not None and abs(scores[chosen[0]] - scores[second]) < TIE_MARGIN:
            return ItemTerms([], TIE, runner_up)
        labels = [
            TermLabel(
                rank=rank,
                term_id=self.index.term_ids[terms[place]],
                term=self.index.terms[terms[place]],
                score=scores[place],
                probability=probabilities[place],
                margin=None if second is None else round(scores[place] - scores[second], DECIMALS),
                cosine=candidates[place].cosine,
                lexical_hit=candidates[place].lexical,
            )
            for rank, place in enumerate(chosen, start=1)
        ]
        return ItemTerms(labels, None, runner_up)

    def distinct(self, candidates: Sequence[Candidate], max_similarity: float) -> list[Candidate]:
        """The ranked candidates of an item without those that say the same as a nearer one, or are wider or narrower.

        What :meth:`label` leaves, but that a narrower term may take the place of a wider one there, by its probability.
        """
        kept: list[Candidate] = []
        for found in candidates:
            if not any(says_the_same(self._relate(found.term, other.term), max_similarity) for other in kept):
                kept.append(found)
        return kept

    def _runner_up(self, terms: Sequence[int], chosen: Sequence[int], max_similarity: float) -> int | None:
        """Place of the best candidate beside the chosen ones that says something else than each of them."""
        for place, term in enumerate(terms):
            others = [terms[other] for other in chosen]
            if not any(term == other or says_the_same(self._relate(term, other), max_similarity) for other in others):
                return place
        return None

    def _relation(self, a: int, b: int) -> Relation:
        vectors_a, vectors_b = (self.index.names[self.index.places_of(term)] for term in (a, b))
        return relation(self.index.forms_of(a), self.index.forms_of(b), vectors_a, vectors_b)


def passing(scores: Sequence[float], probabilities: Sequence[float], settings: TermSettings) -> list[int]:
    """Places of the ranked candidates that are above the cut and not far behind the best, the most probable first.

    Clicks, and being named in the text, make one more probable than another that is nearer; none is more than the best.
    """
    found = [
        place
        for place, (score, probability) in enumerate(zip(scores, probabilities, strict=True))
        if score >= scores[0] - settings.max_gap and probability >= settings.min_probability
    ]
    return sorted(found, key=lambda place: (-probabilities[place], place))
