"""Category paths: softmax over the leaves, summed up the tree, and where to stop; zero-shot or with examples."""

# N items, M nodes of the tree, L leaves, D embedding

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from etl.errors import InputError
from etl.taxonomy import Taxonomy
from labeling.few_shot import Prototypes, Shots
from labeling.prompts import node_vectors
from labeling.term_search import DECIMALS, Encode
from labeling.terms import LOW_PROBABILITY

LEAF, UNCERTAIN_BELOW = "leaf", "uncertain_below"

_Children = Mapping[int, tuple[int, int]]
"""Position of an inner node, -1 for what is above the roots -> first and end of its children."""

_CHUNK = 512  # items scored against all leaves at once: 512 x 10,000 float64 are 40 MB


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
    families: tuple[tuple[int, int, int], ...]
    """(position of the parent or -1, first child, end of children), the roots first, then level by level."""
    leaves: np.ndarray
    """int64 [L]: positions of the nodes without children, by their ids."""
    vectors: np.ndarray
    """float32 [L, D] unit vectors of the leaves."""
    prototypes: Prototypes | None = None
    """Where ``vectors`` come from if there are examples."""

    @classmethod
    def build(cls, taxonomy: Taxonomy, encode: Encode, shots: Shots | None = None) -> CategoryTree:
        """Lay the tree out, encode the leaves' prompts, and let the examples move them if there are any.

        Raises:
            InputError: the encoder makes no finite vector of a leaf's prompts.
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
        leaves = np.setdiff1d(np.arange(len(ids)), parents_M)
        leaves = leaves[np.argsort(np.array(ids, dtype=object)[leaves], kind="stable")]  # the first of equals: by id
        leaf_ids = [ids[leaf] for leaf in leaves]
        own_LD = node_vectors(taxonomy, leaf_ids, encode)
        ways = [[node.id for node in taxonomy.path(id_)] for id_ in leaf_ids]
        prototypes = None if shots is None else Prototypes.build(ways, own_LD, shots)
        vectors = (own_LD if prototypes is None else prototypes.vectors).astype(np.float32)
        bad = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 1e-2)
        if bad.any():
            raise InputError.of(
                [f"category_id {leaf_ids[i]!r}, name {taxonomy.nodes[leaf_ids[i]].name!r}" for i in np.flatnonzero(bad)],
                heading="table taxonomy: nodes that the encoder makes no vector of (expected a unit vector of each):",
            )
        names = tuple(taxonomy.nodes[id_].name for id_ in ids)
        return cls(tuple(ids), names, parents_M, tuple(families), leaves, vectors, prototypes)

    def scores(self, vectors_ND: np.ndarray, example_of: Sequence[str | None] = ()) -> np.ndarray:
        """Cosine of each leaf for float64 unit vectors, [L, N]; see :meth:`label` for ``example_of``."""
        scores_LN = self.vectors.astype(np.float64) @ vectors_ND.T
        if self.prototypes is not None:
            for item, id_ in enumerate(example_of):
                if id_ is not None:
                    places, moved = self.prototypes.without(id_, vectors_ND[item])
                    scores_LN[places, item] = moved.astype(np.float32).astype(np.float64) @ vectors_ND[item]
        return scores_LN.round(DECIMALS)

    def log_paths(self, scores_LN: np.ndarray, temperature: float) -> np.ndarray:
        """Log of P(the item is of the node), [M, N]: of a leaf by softmax over all leaves, of an inner node what lies below.

        A softmax over siblings at each level instead, an inner node scored by its own vector or by the best below it, finds
        fewer leaves: .842 to .845 of the sample, .305 to .313 of BigBasket by MiniLM's vectors.
        """
        logits_LN = scores_LN / temperature
        paths_MN = np.empty((len(self.ids), scores_LN.shape[1]))
        paths_MN[self.leaves] = logits_LN - logsumexp(logits_LN, axis=0)
        for parent, start, end in reversed(self.families[1:]):
            paths_MN[parent] = logsumexp(paths_MN[start:end], axis=0)
        return paths_MN

    def label(
        self,
        vectors_ND: np.ndarray,
        temperature: float,
        min_step_probability: float,
        example_of: Sequence[str | None] = (),
    ) -> list[CategoryLabel]:
        """The path of each item.

        The way to the most probable leaf, if each step on it is at least ``min_step_probability`` probable given the one
        before; else the most probable child is taken from the root down as long as it is so probable. The search is exact:
        the scores of all leaves come from one matrix product, so a beam would save nothing and could lose the best path.

        Args:
            vectors_ND: Float64 unit vectors.
            temperature: Of the softmax over the leaves.
            min_step_probability: Least probability of a step.
            example_of: Of each item the id of the node that its text is an example of, None for most; empty for all. It is
                scored without itself.
        """
        labels: list[CategoryLabel] = []
        children = {parent: (start, end) for parent, start, end in self.families}
        for start in range(0, len(vectors_ND), _CHUNK):
            scores_LN = self.scores(vectors_ND[start : start + _CHUNK], example_of[start : start + _CHUNK])
            # Rounded, so that the order of summation cannot decide between equal nodes.
            paths_MN = np.exp(self.log_paths(scores_LN, temperature)).round(9)
            best_N = self.leaves[scores_LN.argmax(axis=0)]
            for item, leaf in enumerate(best_N):
                kept = self.way(int(leaf))
                if (_steps(paths_MN[kept, item]) < min_step_probability).any():
                    kept = _descent(paths_MN[:, item], children, min_step_probability)
                labels.append(self._label(kept, paths_MN[kept, item], children) if kept else no_category(LOW_PROBABILITY))
        return labels

    def _label(self, kept: list[int], paths: np.ndarray, children: _Children) -> CategoryLabel:
        return CategoryLabel(
            category_id=self.ids[kept[-1]],
            path_ids=[self.ids[node] for node in kept],
            path=[self.names[node] for node in kept],
            probabilities=np.minimum.accumulate(paths).round(DECIMALS).tolist(),
            stopped=UNCERTAIN_BELOW if kept[-1] in children else LEAF,
        )

    def way(self, node: int) -> list[int]:
        """Positions from the root down to ``node``."""
        way = [node]
        while self.parents[way[-1]] >= 0:
            way.append(int(self.parents[way[-1]]))
        return way[::-1]


def _descent(paths_M: np.ndarray, children: _Children, min_step_probability: float) -> list[int]:
    """From the root down to the most probable child each time, while the step is probable enough."""
    kept: list[int] = []
    node, above = -1, 1.0
    while node in children:
        start, end = children[node]
        node = start + int(paths_M[start:end].argmax())
        if paths_M[node] < min_step_probability * above:
            break
        kept.append(node)
        above = paths_M[node]
    return kept


def _steps(paths: np.ndarray) -> np.ndarray:
    """From the probabilities of a path down to each level, each step's given the one before."""
    above = np.concatenate([[1.0], paths[:-1]])
    return np.divide(paths, above, out=np.zeros_like(paths), where=above > 0)
