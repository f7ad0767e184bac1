"""Whether a term's Chinese form leads to its English one, and back: of vocabularies whose terms have both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from etl.text import language_of
from etl.vocabulary import Vocabulary
from model.bundle import Bundle
from model.metrics import hits_of, intervals, reciprocal_rank
from model.retrieval import top_k

Language = Literal["chinese", "latin"]
DIRECTIONS: tuple[tuple[Language, Language], ...] = (("chinese", "latin"), ("latin", "chinese"))


def across_languages(vocabulary: Vocabulary, bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Ask for each term by its usual form in one language among all forms of the other; empty if no term has both.

    Returns:
        By direction (``chinese -> latin``): ``terms``, and mean, low and high of ``hit@1`` and ``mrr@10``.
    """
    normalise = bundle.tokenizer.normalise
    forms = [[(language_of(normalise(form)), form) for form in term.forms] for term in vocabulary.terms]
    both = [of for of in forms if {"chinese", "latin"} <= {language for language, _ in of}]
    if not both:
        return {}
    return {f"{asked} -> {found}": _one_way(both, asked, found, bundle) for asked, found in DIRECTIONS}


def _one_way(terms: Sequence[Sequence[tuple[str, str]]], asked: Language, found: Language, bundle: Bundle) -> dict[str, Any]:
    usual = [next(form for language, form in of if language == asked) for of in terms]
    sought = [(number, form) for number, of in enumerate(terms) for language, form in of if language == found]
    owner = np.array([number for number, _ in sought])
    queries, forms = (bundle.encode(texts, "query") for texts in (usual, [form for _, form in sought]))
    hits, _ = hits_of(top_k(queries, forms, 10)[1], [np.flatnonzero(owner == n) for n in range(len(terms))])
    values = {"hit@1": hits[:, 0].astype(np.float64), "mrr@10": reciprocal_rank(hits, 10)}
    return {"terms": len(terms), **{name: list(interval) for name, interval in intervals(values).items()}}
