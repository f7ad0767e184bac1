"""What encodes texts, and unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Encode = Callable[[Sequence[str]], np.ndarray]
"""Raw texts -> float32 unit vectors [len(texts), D], with the query side's limits."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., D] divided by their lengths; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
