"""Which exact search a process takes for its terms, chosen by looking at the machine; all give the same terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

Nearest = Callable[[np.ndarray, int], np.ndarray]
"""Float32 unit vectors [N, D] and k -> places [N, k] of the rows nearest to each."""

LARGE = 50_000
"""Rows from which bf16 is taken: of fewer, finding the groups costs more than the smaller product saves."""


def nearest_in(rows_FD: np.ndarray) -> Nearest:
    """By faiss on the GPU that Spark gave to this task, by bf16 products with AMX, or by faiss on the CPU.

    A GPU that was not given to this task is another's.
    """
    gpu = _task_gpu() if faiss.get_num_gpus() else None
    if gpu is None and len(rows_FD) >= LARGE:
        # Not above: with them comes torch, and what only reads labels does without.
        from labeling.tiled_search import TiledSearch
        from model.precision import has_amx

        if has_amx():
            return TiledSearch(rows_FD).nearest
    # faiss 1.15 takes a product of matrices from 128,000 numbers on: fewer than 500 vectors, 256 wide, went through the
    # index one by one, ten times as slowly.
    faiss.cvar.distance_compute_blas_threshold = 1
    index: Any = faiss.IndexFlatIP(rows_FD.shape[1])
    index.add(np.ascontiguousarray(rows_FD, dtype=np.float32))
    if gpu is not None:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), int(gpu), index)
    return lambda vectors_ND, k: index.search(vectors_ND, k)[1]


def _task_gpu() -> str | None:
    from labeling.encoding import task_gpu  # not above: a service loads the item index, and with it this, without Spark

    return task_gpu()
