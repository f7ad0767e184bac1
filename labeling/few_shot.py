"""Categories, few-shot: examples that people placed move the vectors of the tree's nodes (prototypes)."""

# M nodes of the tree, D embedding

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from labeling.prompts import gather, unit, with_below


class Shots(NamedTuple):
    """The examples of a day, as they enter the prototypes."""

    prior: float
    """How many examples a node's own prompts count for."""
    sums: Mapping[str, np.ndarray]
    """Category id -> float64 [D], the sum of the unit vectors of its examples' texts."""


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Vectors of the nodes with their examples in them, and what it takes to leave one example out again.

    A node's own vector is the direction of its zero-shot vector, ``prior`` times, plus those of its examples: the class mean
    of prototypical networks (Snell et al. 2017) with the zero-shot vector as a prior. A node without examples keeps its
    zero-shot vector. Inner nodes then gather what lies below them, as without examples.

    No text vouches for itself: one that is an example is scored with prototypes that lack it (leave-one-out), in the nightly
    run as in measuring. What the seller says would otherwise confirm itself, and a comparison with the seller's category
    would compare it with itself. A near copy of the text still counts.
    """

    parents: np.ndarray
    """int64 [M], positions; -1 for a root."""
    weighted: np.ndarray
    """Float64 [M, D]: ``prior`` times the zero-shot vector plus the sum of the examples; of any length."""
    vectors: np.ndarray
    """Float64 [M, D], unit."""
    below: np.ndarray
    """Float64 [M, D], sums of the children's vectors."""

    @classmethod
    def build(cls, ids: tuple[str, ...], parents: np.ndarray, own_MD: np.ndarray, shots: Shots) -> Prototypes:
        """Move the zero-shot vectors ``own_MD`` (float64, unit) of the nodes ``ids``, which stand parents first."""
        nothing = np.zeros(own_MD.shape[1])
        weighted_MD = shots.prior * own_MD + np.stack([shots.sums.get(id_, nothing) for id_ in ids])
        gathered = gather(unit(weighted_MD), parents)
        return cls(parents, weighted_MD, gathered.vectors, gathered.below)

    def without(self, node: int, example_D: np.ndarray) -> tuple[list[int], np.ndarray]:
        """The vectors that an example of ``node`` has moved, as they are without it.

        Returns:
            Positions from ``node`` up to its root, and the unit vectors of these nodes, float64 [len(positions), D].
        """
        way = [node]
        vectors = [with_below(unit(self.weighted[node] - example_D), self.below[node])]
        while self.parents[way[-1]] >= 0:
            parent = int(self.parents[way[-1]])
            below_D = self.below[parent] - self.vectors[way[-1]] + vectors[-1]
            way.append(parent)
            vectors.append(with_below(unit(self.weighted[parent]), below_D))
        return way, np.stack(vectors)
