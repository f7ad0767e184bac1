"""Fits what makes a candidate term's probability: the weight of a lexical score, and curves by kind and language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from labeling.clicked import Clicked
from labeling.probability import Curve
from labeling.reliability import expected_calibration_error
from labeling.term_search import Candidate
from model.metrics import intervals


class Enough(Protocol):
    """How many cases are enough; settings of `labeller calibrate`."""

    @property
    def min_cases(self) -> int: ...
    @property
    def min_queries(self) -> int: ...
    @property
    def min_language_items(self) -> int: ...


class Case(NamedTuple):
    """An item's candidate, and whether a held-out click on the item was for one of its forms."""

    best: bool
    """Whether it is the item's best candidate."""
    named: bool
    """Whether it stands in the item's text."""
    score: float
    right: bool
    query: int
    language: str
    """Of the item's text."""


def choose_weight(items: Sequence[Clicked], ranked: Sequence[Sequence[Sequence[Candidate]]]) -> tuple[int, list[float]]:
    """Which of the lexical weights [W] to take, and the hit@1 of each on the held-out clicks.

    The best, if it is better than the first, which is 0, in 97.5% of the draws of the paired bootstrap; else the first.

    Args:
        items: N of them.
        ranked: [W][N] candidates of each item under each weight, best first.
    """
    hits = [[of[0].term in item.held_out for item, of in zip(items, found, strict=True)] for found in ranked]
    hits_WN = np.array(hits, dtype=np.float64)
    if not len(items):
        return 0, [0.0] * len(ranked)
    means = hits_WN.mean(axis=1)
    best = int(means.argmax())
    low = intervals({"gain": hits_WN[best] - hits_WN[0]})["gain"].low
    return (best if low is not None and low > 0 else 0), means.round(6).tolist()


def fit_terms(
    items: Sequence[Clicked],
    candidates: Sequence[Sequence[Candidate]],
    languages: Sequence[str],
    settings: Enough,
) -> dict[str, Any]:
    """Curves for best and for further candidates, from items whose main term no query of training led to.

    Terms that led to a click on an item in training are left out: of them the encoder has been told. What bends the curves:
    a right term that nobody clicked counts as wrong, and the labels of the night include pairs that were trained on
    (both make probabilities too low); only items enter that have a clicked term at all (for others they are too high).

    Args:
        items: The items.
        candidates: Those of each, best first, by :meth:`labeling.terms.TermLabeller.distinct`.
        languages: Of their texts, by :func:`etl.text.language_of`; one with enough cases gets curves of its own.
        settings: What is enough.
    """
    cases = [
        Case(rank == 0, found.lexical, found.score, found.term in item.held_out, item.query_id, language)
        for item, ranked, language in zip(items, candidates, languages, strict=True)
        for rank, found in enumerate(ranked)
        if found.term not in item.trained
    ]
    content: dict[str, Any] = {"cases": len(items), "queries": len({item.query_id for item in items}), "calibrated": False}
    first, further = [case for case in cases if case.best], [case for case in cases if not case.best]
    if len(first) < settings.min_cases or content["queries"] < settings.min_queries or not further:
        return content
    kinds = by_naming("first", first, settings) | by_naming("further", further, settings)
    by_language = {
        language: {kind: fit_language(found, language, count, settings) for kind, found in kinds.items()}
        for language, count in sorted(Counter(languages).items())
    }
    fitted = {kind: fit_curve(found) for kind, found in kinds.items()}
    return content | {"calibrated": True} | fitted | {"languages": by_language}


def by_naming(place: str, cases: list[Case], settings: Enough) -> dict[str, list[Case]]:
    """``cases`` under ``place``; or, as ``place`` and ``place_named``, apart by whether their terms stand in the text.

    Apart if both kinds have enough cases and queries, and if two curves from half of the queries are nearer (by Brier's
    score) to what was clicked for the others than one.
    """
    named, other = [case for case in cases if case.named], [case for case in cases if not case.named]
    if any(len(of) < settings.min_cases or len({c.query for c in of}) < settings.min_queries for of in (named, other)):
        return {place: cases}
    half, _ = halves_by_query(cases, cases)
    joint, apart = 0.0, 0.0
    for of in (named, other):
        own_half, rest = halves_by_query(of, cases)
        if not own_half or not rest:
            return {place: cases}
        right = np.array([case.right for case in rest], dtype=np.float64)
        joint += float(np.square(_measured(half, rest) - right).sum())
        apart += float(np.square(_measured(own_half, rest) - right).sum())
    return {place: other, f"{place}_named": named} if apart < joint else {place: cases}


def fit_curve(cases: Sequence[Case]) -> dict[str, Any]:
    """Knots, and the calibration error of a curve from half of the queries on the rest."""
    half, rest = halves_by_query(cases, cases)
    content = {"knots": isotonic(cases), "cases": len(cases), "right": sum(case.right for case in cases)}
    return content | (_error(_measured(half, rest), rest) if rest else {})


def fit_language(cases: Sequence[Case], language: str, items: int, settings: Enough) -> dict[str, Any]:
    """The curve of one language: ``own`` with its knots, or ``joint``, that of all of ``cases``.

    An own curve needs enough items and queries, as many right and wrong cases as queries, and to be nearer (by Brier's
    score) to what was clicked: fitted on half of the queries, measured on the others of the language. ``ece`` is that of
    the curve that was taken.
    """
    of_language = [case for case in cases if case.language == language]
    queries = {case.query for case in of_language}
    right = sum(case.right for case in of_language)
    content: dict[str, Any] = {"curve": "joint", "cases": len(of_language), "queries": len(queries), "right": right}
    own_half, rest = halves_by_query(of_language, cases)
    joint_half, _ = halves_by_query(cases, cases)
    if not rest:
        return content
    measured = {"joint": _measured(joint_half, rest)}
    rarer = min(right, len(of_language) - right)
    if own_half and items >= settings.min_language_items and min(len(queries), rarer) >= settings.min_queries:
        measured["own"] = _measured(own_half, rest)
    clicked = np.array([case.right for case in rest], dtype=np.float64)
    curve = min(measured, key=lambda name: float(np.square(measured[name] - clicked).mean()))
    content |= {"curve": curve} | _error(measured[curve], rest)
    return content | ({"knots": isotonic(of_language)} if curve == "own" else {})


def halves_by_query(cases: Sequence[Case], joint: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """The cases of every other query of ``joint``, and the rest: with one query on both sides a curve would look better."""
    chosen = set(sorted({case.query for case in joint})[::2])
    return [case for case in cases if case.query in chosen], [case for case in cases if case.query not in chosen]


def _measured(fitted_on: Sequence[Case], cases: Sequence[Case]) -> np.ndarray:
    return Curve.of(isotonic(fitted_on)).at(np.array([case.score for case in cases]))


def _error(probabilities: np.ndarray, cases: Sequence[Case]) -> dict[str, Any]:
    error = expected_calibration_error(probabilities, np.array([case.right for case in cases], dtype=np.float64))
    return {"ece": round(error, 6), "ece_cases": len(cases)}


def isotonic(cases: Sequence[Case]) -> list[list[float]]:
    """[score, probability] knots of the best non-decreasing curve (Zadrozny and Elkan 2002).

    Its ends keep away from 0 and 1 by the rule of succession: a hundred cases cannot show a certainty.
    """
    scores = np.array([case.score for case in cases])
    right = np.array([case.right for case in cases], dtype=np.float64)
    low, high = 1 / (len(right) + 2), 1 - 1 / (right.sum() + 2)
    from sklearn.isotonic import IsotonicRegression  # not above: a second of every job that only applies a curve

    fitted = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(scores, right)
    return [
        [round(float(x), 6), round(float(y), 6)] for x, y in zip(fitted.X_thresholds_, fitted.y_thresholds_, strict=True)
    ]
