"""What the labels must beat: a longest-match dictionary, BM25 over the vocabulary, and a look-up of clicked queries.

All three give one term, or none, for a title or an item; none of them learns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import bm25s
import numpy as np
import polars as pl

from etl.text import is_cjk, normalise, stem, words
from etl.vocabulary import Vocabulary


class LongestMatch:
    """The term whose form is the longest run of words in the title, up to a plural s; the first of equals."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._terms: dict[tuple[str, ...], str] = {}
        for term in vocabulary.terms:
            for form in term.forms:
                if key := tuple(_stems(form)):
                    self._terms.setdefault(key, term.term_id)
        self._longest = max(map(len, self._terms), default=0)

    def term(self, title: str) -> str | None:
        """The term_id for a raw title; None if no form stands in it."""
        found = _stems(title)
        for size in range(min(self._longest, len(found)), 0, -1):
            for start in range(len(found) - size + 1):
                if (term_id := self._terms.get(tuple(found[start : start + size]))) is not None:
                    return term_id
        return None


class Bm25:
    """BM25 over tokenised documents with Lucene's idf; k1 .9 and b .4 as in the published runs on short texts."""

    def __init__(self, documents: Sequence[list[str]]) -> None:
        self._size = len(documents)
        self._index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self._index.index(list(documents), show_progress=False)

    def scores(self, query: list[str]) -> np.ndarray:
        """Score of every document for a tokenised query, float32 [N]."""
        return self._index.get_scores(query) if query else np.zeros(self._size, dtype=np.float32)


class Bm25Terms:
    """The term with the form that BM25 ranks first, with the title as the query; the smallest term_id of equals."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        forms = [(term.term_id, form) for term in vocabulary.terms for form in term.forms]
        forms = sorted(form for form in forms if bm25_tokens(form[1]))
        self._term_ids = [term_id for term_id, _ in forms]
        self._index = Bm25([bm25_tokens(form) for _, form in forms]) if forms else None

    def term(self, title: str) -> str | None:
        """The term_id for a raw title; None if no word of it stands in any form."""
        if self._index is None:
            return None
        scores = self._index.scores(bm25_tokens(title))
        best = int(scores.argmax())
        return self._term_ids[best] if scores[best] > 0 else None


def bm25_tokens(text: str) -> list[str]:
    """Words of a raw text without a plural s; CJK as characters and bigrams, as search engines index it."""
    found = words(normalise(text))
    bigrams = [a + b for a, b in itertools.pairwise(found) if is_cjk(a) and is_cjk(b)]
    return [stem(word) for word in found] + bigrams


def clicked_terms(pairs: pl.DataFrame, vocabulary: Vocabulary) -> dict[str, str]:
    """Item -> term of the strongest of its queries that is a form of a term; PAIRS of one day.

    Items without such a query are left out. Ties go to the smaller query.
    """
    forms: dict[str, str] = {}
    for term in vocabulary.terms:
        for form in term.forms:
            forms.setdefault(normalise(form), term.term_id)
    named = pairs.select("item_id", "query", "weight").filter(pl.col("query").is_in(list(forms)))
    strongest = named.sort(["item_id", "weight", "query"], descending=[False, True, False]).unique(
        "item_id", keep="first", maintain_order=True
    )
    return {item: forms[query] for item, query in strongest.select("item_id", "query").iter_rows()}


def _stems(text: str) -> list[str]:
    return [stem(word) for word in words(normalise(text))]
