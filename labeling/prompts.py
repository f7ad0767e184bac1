"""The texts that stand for a category in the encoder's eyes, and the vector made of them."""

# M nodes of the tree, D embedding

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl.taxonomy import Taxonomy
from labeling.term_search import Encode


def node_prompts(taxonomy: Taxonomy, category_id: str) -> tuple[str, ...]:
    """Name, parent and name, whole path: "Sneakers", "Shoes Sneakers", "Fashion > Shoes > Sneakers"; equal ones once.

    A bare name says what shoppers type; the path tells apart nodes of one name under different parents.
    """
    names = [node.name for node in taxonomy.path(category_id)]
    return tuple(dict.fromkeys((names[-1], " ".join(names[-2:]), " > ".join(names))))


def node_vectors(taxonomy: Taxonomy, ids: Sequence[str], parents: np.ndarray, encode: Encode) -> np.ndarray:
    """Unit vectors float32 [M, D] of the nodes ``ids``, which stand parents first.

    A node's own vector is the mean of its prompts' vectors; an inner node's is the mean of its own and the mean of its
    children's, since what lies below says better what it holds than its name does ("Home", "Other").

    Args:
        taxonomy: The tree.
        ids: Its nodes, each after its parent.
        parents: int64 [M], position of each node's parent, -1 for a root.
        encode: The encoder.
    """
    prompts = [node_prompts(taxonomy, id_) for id_ in ids]
    distinct = {text: position for position, text in enumerate(dict.fromkeys(t for texts in prompts for t in texts))}
    encoded = encode(list(distinct)).astype(np.float64)
    own_MD = _unit(np.stack([encoded[[distinct[text] for text in texts]].mean(axis=0) for texts in prompts]))
    vectors_MD = own_MD.copy()
    below_MD = np.zeros_like(own_MD)
    for node in range(len(ids) - 1, -1, -1):
        if below_MD[node].any():
            vectors_MD[node] = _unit(own_MD[node] + _unit(below_MD[node]))
        if parents[node] >= 0:
            below_MD[parents[node]] += vectors_MD[node]
    return vectors_MD.astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
