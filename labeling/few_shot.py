"""Categories, few-shot: examples that people placed move the vectors of the tree's leaves (prototypes)."""

# L leaves of the tree, D embedding

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from labeling.vectors import unit


class Shots(NamedTuple):
    """The examples of a day, as they enter the prototypes."""

    prior: float
    """How many examples a leaf's own prompts count for."""
    sums: Mapping[str, np.ndarray]
    """Category id -> float64 [D], the sum of the unit vectors of its examples' texts."""


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Vectors of the leaves with their examples in them, and what it takes to leave one example out again.

    A leaf's vector is the direction of its zero-shot vector, ``prior`` times, plus those of its examples: the class mean of
    prototypical networks (Snell et al. 2017) with the zero-shot vector as a prior. A leaf without examples keeps its
    zero-shot vector. An example of an inner node counts for every leaf below it: one of them it is.

    No text vouches for itself: one that is an example is scored with prototypes that lack it (leave-one-out), in the nightly
    run as in measuring. What the seller says would otherwise confirm itself, and a comparison with the seller's category
    would compare it with itself. A near copy of the text still counts.
    """

    weighted: np.ndarray
    """Float64 [L, D]: ``prior`` times the zero-shot vector plus the sum of the examples; of any length."""
    below: Mapping[str, Sequence[int]]
    """Category id -> the places of the leaves that lie below it, or its own."""

    @classmethod
    def build(cls, ways: Sequence[Sequence[str]], own_LD: np.ndarray, shots: Shots) -> Prototypes:
        """Move the zero-shot vectors ``own_LD`` (float64, unit) of the leaves.

        Args:
            ways: Ids from the root down to each leaf.
            own_LD: Their vectors.
            shots: The examples.
        """
        below: defaultdict[str, list[int]] = defaultdict(list)
        weighted_LD = shots.prior * own_LD
        for place, way in enumerate(ways):
            for id_ in way:
                below[id_].append(place)
                if id_ in shots.sums:
                    weighted_LD[place] += shots.sums[id_]
        return cls(weighted_LD, dict(below))

    @property
    def vectors(self) -> np.ndarray:
        """Float64 [L, D], unit."""
        return unit(self.weighted)

    def without(self, id_: str, example_D: np.ndarray) -> tuple[Sequence[int], np.ndarray]:
        """The vectors that an example of the node ``id_`` has moved, as they are without it.

        Returns:
            Places of the leaves, and their unit vectors, float64 [len(places), D].
        """
        places = self.below[id_]
        return places, unit(self.weighted[places] - example_D)
