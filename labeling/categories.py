"""Category paths: softmax over siblings, the most probable path, where to stop on it; zero-shot or with examples."""

# N items, M nodes of the tree, D embedding

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from etl.errors import InputError
from etl.taxonomy import Taxonomy
from labeling.few_shot import Prototypes, Shots
from labeling.prompts import gather, own_vectors
from labeling.term_search import DECIMALS, Encode
from labeling.terms import LOW_PROBABILITY

LEAF, UNCERTAIN_BELOW = "leaf", "uncertain_below"

_CHUNK = 512  # items scored against all nodes at once: 512 x 10,000 float64 are 40 MB


class CategoryLabel(NamedTuple):
    """The path of one item, from the root down; empty where even the root is uncertain or there is no text."""

    category_id: str | None
    path_ids: list[str]
    path: list[str]
    probabilities: list[float]
    """Of the path down to each level: never rises."""
    stopped: str

    @property
    def probability(self) -> float | None:
        return self.probabilities[-1] if self.probabilities else None


def no_category(reason: str) -> CategoryLabel:
    return CategoryLabel(None, [], [], [], reason)


@dataclass(frozen=True, slots=True)
class CategoryTree:
    """The nodes level by level, so that siblings stand side by side, ascending by id; picklable for broadcast.

    A node is its place in the tree, not its name: equal names under different parents stay different nodes.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: np.ndarray
    """int64 [M]: position of the parent, -1 for a root."""
    vectors: np.ndarray
    """float32 [M, D] unit vectors."""
    families: tuple[tuple[int, int, int], ...]
    """(position of the parent or -1, first child, end of children), the roots first, then level by level."""
    prototypes: Prototypes | None = None
    """Where ``vectors`` come from if there are examples."""

    @classmethod
    def build(cls, taxonomy: Taxonomy, encode: Encode, shots: Shots | None = None) -> CategoryTree:
        """Lay the tree out, encode its prompts, and let the examples move them if there are any.

        Raises:
            InputError: the encoder makes no finite vector of a node's prompts.
        """
        ids = list(taxonomy.roots)
        parents = [-1] * len(ids)
        families = [(-1, 0, len(ids))]
        for position, id_ in enumerate(ids):  # grows while it is read: breadth first
            children = taxonomy.nodes[id_].children
            if children:
                families.append((position, len(ids), len(ids) + len(children)))
                ids += children
                parents += [position] * len(children)
        parents_M = np.array(parents, dtype=np.int64)
        own = own_vectors(taxonomy, ids, encode)
        prototypes = None if shots is None else Prototypes.build(tuple(ids), parents_M, own, shots)
        vectors = (gather(own, parents_M) if prototypes is None else prototypes).vectors.astype(np.float32)
        bad = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 1e-2)
        if bad.any():
            raise InputError.of(
                [f"category_id {ids[i]!r}, name {taxonomy.nodes[ids[i]].name!r}" for i in np.flatnonzero(bad)],
                heading="table taxonomy: nodes that the encoder makes no vector of (expected a unit vector of each):",
            )
        names = tuple(taxonomy.nodes[id_].name for id_ in ids)
        return cls(tuple(ids), names, parents_M, vectors, tuple(families), prototypes)

    def scores(self, vectors_ND: np.ndarray, example_of: Sequence[str | None] = ()) -> np.ndarray:
        """Score of each node for float64 unit vectors, [M, N]; see :meth:`label` for ``example_of``.

        An inner node scores by its own vector or by the best node below it, whichever is nearer: "Kitchen" is right
        for a kettle because of "Kettles", which its own words do not say.
        """
        scores_MN = self.vectors.astype(np.float64) @ vectors_ND.T
        if self.prototypes is not None:
            places = {id_: place for place, id_ in enumerate(self.ids)} if any(example_of) else {}
            for item, id_ in enumerate(example_of):
                if id_ is not None:
                    way, moved = self.prototypes.without(places[id_], vectors_ND[item])
                    scores_MN[way, item] = moved.astype(np.float32).astype(np.float64) @ vectors_ND[item]
        for parent, start, end in reversed(self.families[1:]):
            np.maximum(scores_MN[parent], scores_MN[start:end].max(axis=0), out=scores_MN[parent])
        return scores_MN.round(DECIMALS)

    def log_steps(self, scores_MN: np.ndarray, temperature: float) -> np.ndarray:
        """Log of P(node | its parent) by softmax over siblings at ``temperature``, [M, N]."""
        steps_MN = np.empty_like(scores_MN)
        for _, start, end in self.families:
            logits = scores_MN[start:end] / temperature
            logits -= logits.max(axis=0)
            steps_MN[start:end] = logits - np.log(np.exp(logits).sum(axis=0))
        return steps_MN

    def log_paths(self, steps_MN: np.ndarray) -> np.ndarray:
        """Log of P(path from the root to the node), [M, N]."""
        paths_MN = steps_MN.copy()
        for parent, start, end in self.families[1:]:
            paths_MN[start:end] += paths_MN[parent]
        return paths_MN

    def label(
        self,
        vectors_ND: np.ndarray,
        temperature: float,
        min_step_probability: float,
        example_of: Sequence[str | None] = (),
    ) -> list[CategoryLabel]:
        """The path of each item.

        The most probable way to a leaf is followed from the root as long as each step is at least
        ``min_step_probability`` probable given the one before. The search is exact: the scores of all nodes come from
        one matrix product, so a beam would save nothing and could lose the best path.

        Args:
            vectors_ND: Float64 unit vectors.
            temperature: Of the softmax over siblings.
            min_step_probability: Least probability of a step.
            example_of: Of each item the id of the node that its text is an example of, None for most; empty for all. It is
                scored without itself.
        """
        labels: list[CategoryLabel] = []
        leaves = np.setdiff1d(np.arange(len(self.ids)), self.parents)
        leaves = leaves[np.argsort(np.array(self.ids, dtype=object)[leaves], kind="stable")]  # argmax: ties by id
        for start in range(0, len(vectors_ND), _CHUNK):
            scores_MN = self.scores(vectors_ND[start : start + _CHUNK], example_of[start : start + _CHUNK])
            steps_MN = self.log_steps(scores_MN, temperature)
            # Rounded, so that the order of summation cannot decide between equal paths.
            best_N = leaves[self.log_paths(steps_MN)[leaves].round(9).argmax(axis=0)]
            labels += [
                self._walk(int(leaf), np.exp(steps_MN[:, item]), min_step_probability) for item, leaf in enumerate(best_N)
            ]
        return labels

    def _walk(self, leaf: int, steps_M: np.ndarray, min_step_probability: float) -> CategoryLabel:
        way = self.way(leaf)
        sure = steps_M[way].round(DECIMALS) >= min_step_probability
        kept = way[: len(way) if sure.all() else int(sure.argmin())]
        if not kept:
            return no_category(LOW_PROBABILITY)
        probabilities = np.cumprod(steps_M[kept]).round(DECIMALS)
        return CategoryLabel(
            category_id=self.ids[kept[-1]],
            path_ids=[self.ids[node] for node in kept],
            path=[self.names[node] for node in kept],
            probabilities=probabilities.tolist(),
            stopped=LEAF if kept[-1] == leaf else UNCERTAIN_BELOW,
        )

    def way(self, node: int) -> list[int]:
        """Positions from the root down to ``node``."""
        way = [node]
        while self.parents[way[-1]] >= 0:
            way.append(int(self.parents[way[-1]]))
        return way[::-1]
