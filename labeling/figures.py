"""Quality in numbers: hit@1 of terms and how right category paths are, on slices of the items with truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from labeling.baselines import Bm25Terms, LongestMatch, clicked_terms
from labeling.hierarchical import HierarchicalScores, accuracy_by_level, hierarchical_scores, holds, path_accuracy
from labeling.selective import RiskCurve, risk_curve
from labeling.truth import Truth

ALL, LACKING, UNCLICKED = "all", "title lacks its term", "lacks it, never clicked"


@dataclass(frozen=True, slots=True)
class TermFigures:
    """hit@1 of each system on each slice; an item that gets no term is a miss."""

    sizes: Mapping[str, int]
    """Items of each slice."""
    hits: Mapping[str, Mapping[str, float]]
    """System -> slice -> share of items whose first term is one of theirs."""


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """Share of items whose node at a depth is the true one, among those whose true path is that deep."""

    sizes: Mapping[str, Sequence[int]]
    """Slice -> items at depth 1, 2, …"""
    accuracy: Mapping[str, Sequence[float]]
    paths: Mapping[str, PathFigures]
    """Slice -> figures of its paths as wholes."""


@dataclass(frozen=True, slots=True)
class PathFigures:
    """How right the paths of a slice are."""

    hierarchical: HierarchicalScores
    whole: float | None
    """Share of items whose path is the true one from end to end."""
    risk: RiskCurve
    """A path that stopped early is right if all it says is, which is what its probability states."""


def term_figures(
    truth: Truth,
    titles: Mapping[str, str | None],
    labels: Mapping[str, str],
    vocabulary: Vocabulary,
    pairs: pl.DataFrame | None,
) -> TermFigures:
    """The labels beside what needs no learning.

    Args:
        truth: What is true.
        titles: Item -> raw title, of the day's catalogue.
        labels: Item -> its first term.
        vocabulary: The terms.
        pairs: PAIRS of the day, for the look-up and for which items were never clicked; None leaves both out.
    """
    items = sorted(item for item in truth.terms if item in titles)
    dictionary, bm25 = LongestMatch(vocabulary), Bm25Terms(vocabulary)
    systems: dict[str, Mapping[str, str | None]] = {
        "labels": labels,
        "longest-match dictionary": {item: dictionary.term(titles[item] or "") for item in items},
        "BM25 over the terms": {item: bm25.term(titles[item] or "") for item in items},
    }
    slices = {ALL: items, LACKING: [item for item in items if item in truth.lacking]}
    if pairs is not None:
        systems["look-up of clicked queries"] = clicked_terms(pairs, vocabulary)
        clicked = set(pairs["item_id"].unique())
        slices[UNCLICKED] = [item for item in slices[LACKING] if item not in clicked]
    slices = {name: found for name, found in slices.items() if found}
    return TermFigures(
        sizes={name: len(found) for name, found in slices.items()},
        hits={
            system: {
                name: _share(predicted.get(item) in truth.terms[item] for item in found) for name, found in slices.items()
            }
            for system, predicted in systems.items()
        },
    )


def category_figures(
    truth: Truth,
    titles: Mapping[str, str | None],
    paths: Mapping[str, tuple[Sequence[str], float | None]],
    taxonomy: Taxonomy,
) -> CategoryFigures:
    """Figures of the predicted paths (item -> node ids from the root down, and the probability of that path).

    A path that stopped above a level is wrong there: the share of items that get a right node is what counts.
    """
    true_paths = {
        item: [node.id for node in taxonomy.path(category)]
        for item, category in truth.categories.items()
        if item in titles and category in taxonomy.nodes
    }
    slices = {ALL: true_paths, LACKING: {item: path for item, path in true_paths.items() if item in truth.lacking}}
    sizes: dict[str, list[int]] = {}
    accuracy: dict[str, list[float]] = {}
    figures: dict[str, PathFigures] = {}
    for name, found in slices.items():
        if not found:
            continue
        true = list(found.values())
        predicted, probabilities = zip(*(paths.get(item, ((), None)) for item in found), strict=True)
        levels = accuracy_by_level(true, predicted)
        sizes[name] = [level.items for level in levels]
        accuracy[name] = [round(level.accuracy, 4) for level in levels]
        figures[name] = PathFigures(
            hierarchical=hierarchical_scores(true, predicted),
            whole=path_accuracy(true, predicted),
            risk=risk_curve([stated or 0.0 for stated in probabilities], list(map(holds, true, predicted))),
        )
    return CategoryFigures(sizes, accuracy, figures)


def _share(outcomes: Iterable[bool]) -> float:
    found = list(outcomes)
    return round(sum(found) / len(found), 4) if found else 0.0
