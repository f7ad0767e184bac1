"""The texts that stand for a category in the encoder's eyes, and the vector made of them."""

# M nodes of the tree, D embedding

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl.taxonomy import Taxonomy
from labeling.vectors import Encode, unit


def node_prompts(taxonomy: Taxonomy, category_id: str) -> tuple[str, ...]:
    """Name, parent and name, whole path: "Sneakers", "Shoes Sneakers", "Fashion > Shoes > Sneakers"; equal ones once.

    A bare name says what shoppers type; the path tells apart nodes of one name under different parents.
    """
    names = [node.name for node in taxonomy.path(category_id)]
    return tuple(dict.fromkeys((names[-1], " ".join(names[-2:]), " > ".join(names))))


def node_vectors(taxonomy: Taxonomy, ids: Sequence[str], encode: Encode) -> np.ndarray:
    """Float64 unit vectors [M, D] of the nodes ``ids``: the mean of their prompts' vectors."""
    prompts = [node_prompts(taxonomy, id_) for id_ in ids]
    distinct = {text: position for position, text in enumerate(dict.fromkeys(t for texts in prompts for t in texts))}
    encoded = encode(list(distinct)).astype(np.float64)
    return unit(np.stack([encoded[[distinct[text] for text in texts]].mean(axis=0) for texts in prompts]))
