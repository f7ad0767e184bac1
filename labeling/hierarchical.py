"""How right category paths are: hierarchical precision, recall and F1, and accuracy of whole paths and by level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap, takewhile
from typing import NamedTuple

Path = Sequence[str]
"""Ids (or names) from the root down; empty where no category is given.

A node is its whole path: one name or id under two parents is two nodes, so two paths share what both begin with.
"""


class HierarchicalScores(NamedTuple):
    """Of the nodes on the paths, counted over all items (micro-average)."""

    precision: float | None
    """Share of the predicted nodes that are true; None if nothing is predicted."""
    recall: float | None
    """Share of the true nodes that are predicted; None if no item has a true path."""
    f1: float
    """Their harmonic mean; 0 if neither a node is predicted nor one is true."""


def hierarchical_scores(true: Sequence[Path], predicted: Sequence[Path]) -> HierarchicalScores:
    """Precision, recall and F1 of paths as sets of nodes (Kiritchenko et al. 2005, 2006).

    An item's set is its category and all that lies above it, without the root that all trees share and nobody stores. A
    path that stops early loses recall and no precision, a wrong root costs both on all levels; an item without a
    category has the empty set.

    Raises:
        ValueError: the two have different lengths.
    """
    right = sum(starmap(shared, zip(true, predicted, strict=True)))
    of_true, of_predicted = (sum(map(len, paths)) for paths in (true, predicted))
    return HierarchicalScores(
        precision=right / of_predicted if of_predicted else None,
        recall=right / of_true if of_true else None,
        f1=2 * right / (of_true + of_predicted) if of_true + of_predicted else 0.0,
    )


class LevelAccuracy(NamedTuple):
    """Of the items whose true path reaches a level, how many have the right node there."""

    items: int
    accuracy: float


def accuracy_by_level(true: Sequence[Path], predicted: Sequence[Path]) -> list[LevelAccuracy]:
    """Accuracy at level 1, 2, … down to the deepest true path; a path that stopped above a level is wrong there.

    Raises:
        ValueError: the two have different lengths.
    """
    found = [(len(path), shared(path, other)) for path, other in zip(true, predicted, strict=True)]
    levels = []
    for level in range(1, 1 + max((depth for depth, _ in found), default=0)):
        right = [common >= level for depth, common in found if depth >= level]
        levels.append(LevelAccuracy(len(right), sum(right) / len(right)))
    return levels


def path_accuracy(true: Sequence[Path], predicted: Sequence[Path]) -> float | None:
    """Share of items whose predicted path is the true one from end to end; None without items.

    Raises:
        ValueError: the two have different lengths.
    """
    right = [list(path) == list(other) for path, other in zip(true, predicted, strict=True)]
    return sum(right) / len(right) if right else None


def holds(true: Path, predicted: Path) -> bool:
    """Whether all that a predicted path says is true: it is the beginning of the true one, and says something.

    It is what the probability of a path states, which may stop at an inner node.
    """
    return 0 < len(predicted) == shared(true, predicted)


def shared(path: Path, other: Path) -> int:
    """How many nodes two paths share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, other, strict=False)))
