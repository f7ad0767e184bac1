"""The texts that stand for a category in the encoder's eyes, and the vector made of them."""

# M nodes of the tree, D embedding

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from etl.taxonomy import Taxonomy
from labeling.term_search import Encode


def node_prompts(taxonomy: Taxonomy, category_id: str) -> tuple[str, ...]:
    """Name, parent and name, whole path: "Sneakers", "Shoes Sneakers", "Fashion > Shoes > Sneakers"; equal ones once.

    A bare name says what shoppers type; the path tells apart nodes of one name under different parents.
    """
    names = [node.name for node in taxonomy.path(category_id)]
    return tuple(dict.fromkeys((names[-1], " ".join(names[-2:]), " > ".join(names))))


def own_vectors(taxonomy: Taxonomy, ids: Sequence[str], encode: Encode) -> np.ndarray:
    """What each of the nodes ``ids`` says of itself, float64 unit vectors [M, D]: the mean of its prompts' vectors."""
    prompts = [node_prompts(taxonomy, id_) for id_ in ids]
    distinct = {text: position for position, text in enumerate(dict.fromkeys(t for texts in prompts for t in texts))}
    encoded = encode(list(distinct)).astype(np.float64)
    return unit(np.stack([encoded[[distinct[text] for text in texts]].mean(axis=0) for texts in prompts]))


class Gathered(NamedTuple):
    """Float64 [M, D] each."""

    vectors: np.ndarray
    """Of each node: unit vectors."""
    below: np.ndarray
    """The sum of its children's; zeros for a leaf."""


def gather(own_MD: np.ndarray, parents: np.ndarray) -> Gathered:
    """From the nodes' own unit vectors, parents first, and the position of each node's parent (-1 for a root).

    A leaf's vector is its own; an inner node's is the mean of its own and the mean of its children's, since what lies
    below says better what it holds than its name does ("Home", "Other").
    """
    vectors_MD = own_MD.copy()
    below_MD = np.zeros_like(own_MD)
    for node in range(len(own_MD) - 1, -1, -1):
        vectors_MD[node] = with_below(own_MD[node], below_MD[node])
        if parents[node] >= 0:
            below_MD[parents[node]] += vectors_MD[node]
    return Gathered(vectors_MD, below_MD)


def with_below(own_D: np.ndarray, below_D: np.ndarray) -> np.ndarray:
    """A node's vector from its own and the sum of its children's."""
    return unit(own_D + unit(below_D)) if below_D.any() else own_D


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., D] divided by their lengths; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
