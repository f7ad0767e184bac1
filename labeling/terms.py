"""Product terms: exact top-k over all forms of the vocabulary, best form per term, and how many of them to give."""

# N items, F forms of all terms, D embedding

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from etl.errors import InputError
from etl.text import Normaliser, contains, words
from etl.vocabulary import Vocabulary
from labeling.nearest import nearest_in
from labeling.probability import Calibration, TermCurves
from labeling.redundancy import Relation, relation, says_the_same, without_redundant

Encode = Callable[[Sequence[str]], np.ndarray]
"""Raw texts -> float32 unit vectors [len(texts), D], with the query side's limits."""

CANDIDATES = 10
"""Terms per item that are ranked and calibrated; far more than are ever given."""

DECIMALS = 6
"""Scores are computed in float64 and rounded, so that no batch size and no machine's BLAS shows in them."""

LOW_PROBABILITY, TIE = "low_probability", "tie"
"""Why no term is given: the best one is not probable enough, or another that says something else is equally near."""

TIE_MARGIN = 1e-4
"""A smaller lead of the best term says nothing: float16, in which vectors are kept, moves a cosine by as much."""

_SPARE_FORMS = 16  # in float32 order faiss may cut equal forms at the last place
_MAX_FORMS = 1_024  # more neighbours than this cost more than the exotic term that they would save
_GATHERED = 16_384  # neighbours' vectors that are held at once: at 256 dimensions in float64 they are 34 MB


class TermLabel(NamedTuple):
    """One term of one item; ``margin`` is its lead over the runner-up, None if there is none."""

    rank: int
    term_id: str
    term: str
    score: float
    probability: float
    margin: float | None
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


@dataclass(frozen=True, slots=True)
class TermIndex:
    """Terms in the order of their ids, and the vectors [F, D] and words of their forms; picklable for broadcast."""

    term_ids: tuple[str, ...]
    terms: tuple[str, ...]
    form_terms: np.ndarray
    """int64 [F]: position of the term that each form belongs to."""
    form_words: tuple[tuple[str, ...], ...]
    vectors: np.ndarray

    @classmethod
    def build(cls, vocabulary: Vocabulary, encode: Encode, normaliser: Normaliser) -> TermIndex:
        """Encode every form of every term; ``normaliser`` is the bundle's, and makes the words for ``lexical_hit``.

        Raises:
            InputError: the encoder makes no finite unit vector of a form.
        """
        forms = [(position, form) for position, term in enumerate(vocabulary.terms) for form in term.forms]
        vectors = encode([form for _, form in forms])
        bad = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 1e-2)
        if bad.any():
            raise InputError.of(
                [f"term_id {vocabulary.terms[forms[i][0]].term_id!r}, form {forms[i][1]!r}" for i in np.flatnonzero(bad)],
                heading="table vocabulary: forms that the encoder makes no vector of (expected a unit vector of each):",
            )
        return cls(
            term_ids=tuple(term.term_id for term in vocabulary.terms),
            terms=tuple(term.term for term in vocabulary.terms),
            form_terms=np.array([position for position, _ in forms], dtype=np.int64),
            form_words=tuple(tuple(words(normaliser(form))) for _, form in forms),
            vectors=vectors,
        )

    def forms_of(self, term: int) -> list[list[str]]:
        """Words of each form of the term at this position."""
        return [list(form) for form in self.form_words[self.places_of(term)]]

    def places_of(self, term: int) -> slice:
        """Where the forms of the term stand, which are in the order of their terms."""
        start, end = np.searchsorted(self.form_terms, [term, term + 1])
        return slice(int(start), int(end))


class TermSearch:
    """Exact search in a :class:`TermIndex`; built once in a process."""

    def __init__(self, index: TermIndex) -> None:
        self.index = index
        self._norms_F = np.linalg.norm(index.vectors.astype(np.float64), axis=1)
        self._nearest = nearest_in(index.vectors)
        most_forms = int(np.bincount(index.form_terms).max())
        wanted = min((CANDIDATES - 1) * most_forms + 1, _MAX_FORMS) + _SPARE_FORMS
        self._neighbours = min(len(index.form_terms), wanted)
        self._relate = lru_cache(maxsize=2**16)(self._relation)  # 60 µs a pair, and the same pairs meet again and again

    def candidates(self, vectors_ND: np.ndarray) -> list[list[tuple[int, float]]]:
        """Per item at most CANDIDATES (position of a term, cosine of its best form), best first, ties by term_id.

        ``vectors_ND`` are float64 unit vectors.
        """
        found: list[list[tuple[int, float]]] = []
        size = max(_GATHERED // self._neighbours, 1)
        for start in range(0, len(vectors_ND), size):
            chunk = np.ascontiguousarray(vectors_ND[start : start + size])
            forms = self._nearest(chunk.astype(np.float32), self._neighbours)
            gathered = self.index.vectors[forms].astype(np.float64)  # a float64 copy of all is 2 GB a worker at 10^6 forms
            gathered /= self._norms_F[forms][..., None]
            scores = np.einsum("nd,nfd->nf", chunk, gathered).round(DECIMALS)
            terms = self.index.form_terms[forms]
            order = np.lexsort((terms, -scores), axis=1)
            ranked = zip(
                np.take_along_axis(terms, order, 1).tolist(), np.take_along_axis(scores, order, 1).tolist(), strict=True
            )
            found += [_best_per_term(*row) for row in ranked]
        return found

    def label(
        self,
        vectors_ND: np.ndarray,
        texts: Sequence[str],
        calibration: Calibration,
        settings: TermSettings,
    ) -> list[ItemTerms]:
        """The terms of each item, or why it has none.

        Args:
            vectors_ND: float64 unit vectors.
            texts: The items' normalised product texts, for ``lexical_hit`` and the curve of their language.
            calibration: Turns scores into probabilities.
            settings: The cuts.
        """
        return [
            self._labels(candidates, words(text), calibration.curves(text), settings)
            for candidates, text in zip(self.candidates(vectors_ND), texts, strict=True)
        ]

    def _labels(
        self,
        candidates: list[tuple[int, float]],
        text_words: list[str],
        curves: TermCurves,
        settings: TermSettings,
    ) -> ItemTerms:
        terms, scores = zip(*candidates, strict=True)
        probabilities = curves.probabilities(np.array(scores)).round(DECIMALS).tolist()
        passing = count_passing(scores, probabilities, settings)
        chosen = without_redundant(terms[:passing], probabilities, self._relate, settings.max_similarity)
        chosen = chosen[: settings.max_terms]
        second = self._runner_up(terms, chosen, settings.max_similarity)
        runner_up = None if second is None else RunnerUp(self.index.term_ids[terms[second]], self.index.terms[terms[second]])
        if not chosen:
            return ItemTerms([], LOW_PROBABILITY, runner_up)
        if second is not None and scores[chosen[0]] - scores[second] < TIE_MARGIN:
            return ItemTerms([], TIE, runner_up)
        labels = [
            TermLabel(
                rank=rank,
                term_id=self.index.term_ids[terms[place]],
                term=self.index.terms[terms[place]],
                score=scores[place],
                probability=probabilities[place],
                margin=None if second is None else round(scores[place] - scores[second], DECIMALS),
                lexical_hit=any(contains(text_words, form) for form in self.index.forms_of(terms[place])),
            )
            for rank, place in enumerate(chosen, start=1)
        ]
        return ItemTerms(labels, None, runner_up)

    def _runner_up(self, terms: Sequence[int], chosen: Sequence[int], max_similarity: float) -> int | None:
        """Place of the best candidate beside the chosen ones that says something else than each of them."""
        for place, term in enumerate(terms):
            others = [terms[other] for other in chosen]
            if not any(term == other or says_the_same(self._relate(term, other), max_similarity) for other in others):
                return place
        return None

    def _relation(self, a: int, b: int) -> Relation:
        vectors_a, vectors_b = (self.index.vectors[self.index.places_of(term)] for term in (a, b))
        return relation(self.index.forms_of(a), self.index.forms_of(b), vectors_a, vectors_b)


def count_passing(scores: Sequence[float], probabilities: Sequence[float], settings: TermSettings) -> int:
    """How many of the ranked candidates are above the cut and not far behind the best."""
    passing = 0
    for score, probability in zip(scores, probabilities, strict=True):
        if score < scores[0] - settings.max_gap or probability < settings.min_probability:
            break
        passing += 1
    return passing


def _best_per_term(terms: list[int], scores: list[float]) -> list[tuple[int, float]]:
    best: dict[int, float] = {}
    for term, score in zip(terms, scores, strict=True):
        best.setdefault(term, score)
        if len(best) == CANDIDATES:
            break
    return list(best.items())
