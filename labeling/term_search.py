"""The terms that are nearest to an item: exact search over all forms of the vocabulary, best form per term."""

# N items, F forms of all terms, D embedding

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from etl.errors import InputError
from etl.text import Normaliser, words
from etl.vocabulary import Vocabulary
from labeling.lexical import ContainedTerms
from labeling.nearest import nearest_in
from labeling.term_prototypes import TermPrototypes
from labeling.vectors import Encode

CANDIDATES = 10
"""Terms per item that are ranked and calibrated; far more than are ever given."""

DECIMALS = 6
"""Scores are computed in float64 and rounded, so that no batch size and no machine's BLAS shows in them."""

_SPARE_FORMS = 16  # in float32 order faiss may cut equal forms at the last place
_MAX_FORMS = 1_024  # more neighbours than this cost more than the exotic term that they would save
_GATHERED = 16_384  # neighbours' vectors that are held at once: at 256 dimensions in float64 they are 34 MB


class Candidate(NamedTuple):
    """A term of the vocabulary, by its position, for one item."""

    term: int
    score: float
    """``cosine``, and where the term stands in the text the lexical weight more."""
    cosine: float
    """Of the item and the term's nearest form, as clicked titles moved it."""
    lexical: bool
    """Whether a form of it stands in the item's text."""


@dataclass(frozen=True, slots=True)
class TermIndex:
    """Terms in the order of their ids, and the vectors [F, D] and words of their forms; picklable for broadcast.

    ``names`` are what the encoder makes of the forms, ``vectors`` what is searched: the same, or moved by clicked titles.
    """

    term_ids: tuple[str, ...]
    terms: tuple[str, ...]
    form_terms: np.ndarray
    """int64 [F]: position of the term that each form belongs to."""
    forms: tuple[str, ...]
    """[F], normalised."""
    form_words: tuple[tuple[str, ...], ...]
    names: np.ndarray
    vectors: np.ndarray

    @classmethod
    def build(
        cls, vocabulary: Vocabulary, encode: Encode, normaliser: Normaliser, prototypes: TermPrototypes | None = None
    ) -> TermIndex:
        """Encode every form of every term.

        Args:
            vocabulary: The terms.
            encode: The bundle's.
            normaliser: The bundle's, which makes the words for ``lexical_hit`` too.
            prototypes: What moves the forms that were clicked for; None: nothing does.

        Raises:
            InputError: the encoder makes no finite unit vector of a form.
        """
        forms = [(position, form) for position, term in enumerate(vocabulary.terms) for form in term.forms]
        names = encode([form for _, form in forms])
        bad = ~(np.abs(np.linalg.norm(names, axis=1) - 1.0) < 1e-2)
        if bad.any():
            raise InputError.of(
                [f"term_id {vocabulary.terms[forms[i][0]].term_id!r}, form {forms[i][1]!r}" for i in np.flatnonzero(bad)],
                heading="table vocabulary: forms that the encoder makes no vector of (expected a unit vector of each):",
            )
        normal = [normaliser(form) for _, form in forms]
        return cls(
            term_ids=tuple(term.term_id for term in vocabulary.terms),
            terms=tuple(term.term for term in vocabulary.terms),
            form_terms=np.array([position for position, _ in forms], dtype=np.int64),
            forms=tuple(normal),
            form_words=tuple(tuple(words(form)) for form in normal),
            # Beside moved vectors as float16, enough to tell whether two say the same: a float32 copy is a GB at 10^6 forms.
            names=names if prototypes is None else names.astype(np.float16),
            vectors=names if prototypes is None else prototypes.move(normal, names),
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
        self._contained = ContainedTerms(index.form_words, index.form_terms.tolist())
        self._norms_F = np.linalg.norm(index.vectors.astype(np.float64), axis=1)
        self._nearest = nearest_in(index.vectors)
        most_forms = int(np.bincount(index.form_terms).max())
        wanted = min((CANDIDATES - 1) * most_forms + 1, _MAX_FORMS) + _SPARE_FORMS
        self._neighbours = min(len(index.form_terms), wanted)

    def candidates(
        self, vectors_ND: np.ndarray, texts: Sequence[str], lexical_weights: Sequence[float] = (0.0,)
    ) -> list[list[list[Candidate]]]:
        """For each lexical weight, per item at most CANDIDATES, best first, ties by term_id.

        Args:
            vectors_ND: float64 unit vectors.
            texts: The items' normalised product texts.
            lexical_weights: What a term that stands in the text gets beside its cosine, each >= 0. Cosine and overlap of
                words know different things (Luan et al. 2021, "Sparse, Dense, and Attentional Representations").
        """
        contained = [self._contained.of(words(text)) for text in texts]
        nearest = self._nearest_terms(vectors_ND)
        if any(lexical_weights):
            # A term below the nearest ones may still pass them; one that neither is near nor stands in the text cannot.
            for vector_D, cosines, stand in zip(vectors_ND, nearest, contained, strict=True):
                cosines |= {term: self._cosine(vector_D, term) for term in stand - cosines.keys()}
        return [
            [_ranked(cosines, stand, weight) for cosines, stand in zip(nearest, contained, strict=True)]
            for weight in lexical_weights
        ]

    def _nearest_terms(self, vectors_ND: np.ndarray) -> list[dict[int, float]]:
        """Per item the cosine of its nearest terms; CANDIDATES of them at least, if there are as many."""
        found: list[dict[int, float]] = []
        size = max(_GATHERED // self._neighbours, 1)
        for start in range(0, len(vectors_ND), size):
            chunk = np.ascontiguousarray(vectors_ND[start : start + size])
            forms = self._nearest(chunk.astype(np.float32), self._neighbours)
            gathered = self.index.vectors[forms].astype(np.float64)  # a float64 copy of all is 2 GB a worker at 10^6 forms
            gathered /= self._norms_F[forms][..., None]
            scores = np.einsum("nd,nfd->nf", chunk, gathered).round(DECIMALS)
            terms = self.index.form_terms[forms]
            order = np.argsort(scores, axis=1, kind="stable")  # ascending: of a term's forms the best is the last one set
            ranked = zip(
                np.take_along_axis(terms, order, 1).tolist(), np.take_along_axis(scores, order, 1).tolist(), strict=True
            )
            found += [dict(zip(*row, strict=True)) for row in ranked]
        return found

    def _cosine(self, vector_D: np.ndarray, term: int) -> float:
        places = self.index.places_of(term)
        forms_FD = self.index.vectors[places].astype(np.float64) / self._norms_F[places, None]
        # Not as a matrix product, so that a term found in either way has the same last digit.
        return float(np.einsum("d,fd->f", vector_D, forms_FD).round(DECIMALS).max())


def _ranked(cosines: dict[int, float], contained: set[int], weight: float) -> list[Candidate]:
    scored = sorted((-round(cosine + weight * (term in contained), DECIMALS), term) for term, cosine in cosines.items())
    return [Candidate(term, -less, cosines[term], term in contained) for less, term in scored[:CANDIDATES]]
