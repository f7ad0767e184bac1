"""The first coordinates of a vector as a shorter vector of their own.

Kusupati et al. 2022, "Matryoshka representation learning": trained with the loss of each prefix beside that of the whole.
"""

# N texts, D embedding

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from etl.errors import InputError


def prefix(x_ND: torch.Tensor, dim: int) -> torch.Tensor:
    """[N, D] unit vectors -> [N, dim] unit vectors of their first coordinates."""
    return x_ND if dim == x_ND.shape[1] else F.normalize(x_ND[:, :dim], dim=-1)


def shortened(vectors_ND: np.ndarray, dim: int, trained: Sequence[int]) -> np.ndarray:
    """float32 [N, D] unit vectors -> float32 [N, dim] unit vectors of their first coordinates; zero stays zero.

    Args:
        vectors_ND: Of an encoder.
        dim: Coordinates to keep: one of ``trained``, or D.
        trained: Dimensions that the encoder was trained to be cut to.

    Raises:
        InputError: ``dim`` is none of these: the first coordinates alone mean nothing there.
    """
    if dim not in (*trained, vectors_ND.shape[1]):
        expected = ", ".join(map(str, (*trained, vectors_ND.shape[1])))
        raise InputError(
            f"vectors of {dim} dimensions: the encoder was trained for {expected}; ask for one of these, or train with "
            f"--matryoshka {dim}"
        )
    return prefix(torch.from_numpy(vectors_ND), dim).numpy()
