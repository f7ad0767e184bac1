"""Which of an item's terms say no more than another one: the same words, a form as near as a synonym, or a wider term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from etl.text import is_cjk, stem

SPECIFIC_SHARE = 0.5
"""Least probability of a narrower term, as a share of the wider one's, to take its place though the wider one is nearer.

On Home Depot (half of the products to fit the curves, half to measure) hit@1 is .7586 if it never does, .7588 with .5 and
.7574 if it always does.
"""


MAX_SIMILARITY = 0.9
"""Cosine of two terms' nearest forms from which on they count as one, unless set otherwise."""


class Relation(NamedTuple):
    """How term a stands to term b."""

    wider: bool
    narrower: bool
    similarity: float
    """Largest cosine of a form of one with a form of the other; 1 if both have a form of the same words."""


def relation(
    forms_a: Sequence[Sequence[str]], forms_b: Sequence[Sequence[str]], vectors_a: np.ndarray, vectors_b: np.ndarray
) -> Relation:
    """Compare two terms by the words and the vectors ([forms, D], any length) of all of their forms."""
    stems_a, stems_b = ([[stem(word) for word in form] for form in forms] for forms in (forms_a, forms_b))
    if any(sorted(a) == sorted(b) for a in stems_a for b in stems_b):
        return Relation(wider=False, narrower=False, similarity=1.0)
    units_a, units_b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in map(np.float64, (vectors_a, vectors_b)))
    return Relation(
        wider=any(is_wider(a, b) for a in stems_a for b in stems_b),
        narrower=any(is_wider(b, a) for a in stems_a for b in stems_b),
        similarity=round(float((units_a @ units_b.T).max()), 6),
    )


def is_wider(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether ``wide`` names a class that ``narrow`` is of, by their words alone: "shoe" of "trail running shoe".

    A compound is a kind of its head, the last word of both (right-hand head rule, Williams 1981): "bed" is no wider term of
    "bed sheet". Further words may stand anywhere before it, but those of a script without spaces, single characters, one
    after the other: 水杯 (water glass) is not what 水果杯 (fruit cup) is a kind of.
    """
    if len(wide) >= len(narrow) or not wide or wide[-1] != narrow[-1]:
        return False
    if any(map(is_cjk, narrow)):
        return list(narrow[-len(wide) :]) == list(wide)
    return set(wide) <= set(narrow)


def without_redundant(
    terms: Sequence[int], probabilities: Sequence[float], relate: Callable[[int, int], Relation], max_similarity: float
) -> list[int]:
    """Places of the terms that say something of their own, best first.

    Of two whose forms are as near as ``max_similarity`` the first stays. Of a wider and a narrower one the narrower stays,
    unless it comes second and is far less probable (:data:`SPECIFIC_SHARE`).

    Args:
        terms: The terms of an item, best first.
        probabilities: Theirs.
        relate: How the first of two terms stands to the second.
        max_similarity: Cosine from which on two terms count as one.
    """
    kept: list[int] = []
    for place, term in enumerate(terms):
        relations = {other: relate(term, terms[other]) for other in kept}
        wider = [other for other, found in relations.items() if found.narrower]
        rest = [other for other in kept if other not in wider]
        if any(says_the_same(relations[other], max_similarity) for other in rest):
            continue
        if all(probabilities[place] >= SPECIFIC_SHARE * probabilities[other] for other in wider):
            kept = [*rest, place]
    return kept


def says_the_same(found: Relation, max_similarity: float) -> bool:
    """Whether one of two related terms is enough."""
    return found.wider or found.narrower or found.similarity >= min(max_similarity, 1.0)
