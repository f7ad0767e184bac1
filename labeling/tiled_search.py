"""Exact top-k by inner product where bf16 is multiplied faster than fp32: bf16 finds who may belong to it, float64 decides.

A product is at most ``m`` off in bf16. If the maxima of k groups of rows are at least t, so are k rows, and the k best have
t - m in truth, t - 2m in bf16: only rows above that are scored exactly, and none of the k best is below.
"""

# N queries, F rows, D embedding, G groups of M rows, P pairs of a query and a group, or a row, that are looked at again

from __future__ import annotations

import numpy as np
import torch

_GROUP = 32  # rows of which one maximum is kept: to find the k-th of F / 32 values costs little beside the product
_QUERIES = 64  # at a time: their bf16 products with 10^5 rows are 13 MB
_PAIRS = 65_536  # that are scored exactly at a time, 134 MB at 256 dimensions: were all rows alike, there would be millions
_ROUNDING = 2.0**-8  # of a number to bf16, relative: 8 bits of significand
_ADDING = 2.0**-23  # of one addition or product in float32, and as much again to spare


class TiledSearch:
    """The rows to search in, float32 [F, D], beside their bf16 copies."""

    def __init__(self, rows_FD: np.ndarray) -> None:
        self.rows_FD = np.ascontiguousarray(rows_FD, dtype=np.float32)
        full = torch.from_numpy(self.rows_FD)
        padded = torch.cat([full, full[-1:].expand(-len(full) % _GROUP, -1)])  # by a row, whose maximum is a true one
        # Members of a group lie F / 32 apart, so that a maximum over them is one over long contiguous vectors.
        self._half_FD = padded.bfloat16().view(-1, _GROUP, full.shape[1]).transpose(0, 1).reshape(len(padded), -1)
        self._off, self._longest = _off(rows_FD).max(), np.linalg.norm(rows_FD.astype(np.float64), axis=1).max()

    def nearest(self, queries_ND: np.ndarray, k: int) -> np.ndarray:
        """Places [N, k] of the rows nearest to each float32 query, best first, ties by place; k is F at most."""
        parts = [self._nearest(queries_ND[at : at + _QUERIES], k) for at in range(0, len(queries_ND), _QUERIES)]
        return np.concatenate([np.empty((0, k), dtype=np.int64), *parts])

    @torch.inference_mode()
    def _nearest(self, queries_ND: np.ndarray, k: int) -> np.ndarray:
        scores_NMG = self._products(queries_ND)
        best_NG = scores_NMG.amax(dim=1).float()
        floor_N = torch.full((len(queries_ND),), -torch.inf)  # of fewer groups than k, any row may belong to the k best
        if k <= best_NG.shape[1]:
            floor_N = best_NG.topk(k).values[:, -1] - torch.from_numpy(2 * self.margin(queries_ND)).float()
        queries_P, groups_P = (best_NG >= floor_N[:, None]).nonzero(as_tuple=True)
        which, members = (scores_NMG[queries_P, :, groups_P] >= floor_N[queries_P, None]).nonzero(as_tuple=True)
        queries, rows = queries_P[which].numpy(), (groups_P[which] * _GROUP + members).numpy()
        real = rows < len(self.rows_FD)
        return self._best(queries_ND, queries[real], rows[real], k)

    def _products(self, queries_ND: np.ndarray) -> torch.Tensor:
        """[N, M, G] in bf16: of the M members of each group."""
        queries = torch.from_numpy(np.ascontiguousarray(queries_ND, dtype=np.float32)).bfloat16()
        return (queries @ self._half_FD.T).view(len(queries), _GROUP, -1)

    def approximate(self, queries_ND: np.ndarray) -> np.ndarray:
        """[N, F]: the products in bf16."""
        products = self._products(queries_ND).transpose(1, 2).flatten(1)
        return products[:, : len(self.rows_FD)].float().numpy()

    def margin(self, queries_ND: np.ndarray) -> np.ndarray:
        """[N]: how far a bf16 product of each query may be off.

        q v - q' v' = (q - q') v + q' (v - v'), each by Cauchy and Schwarz; then D additions, and the rounding of the sum.
        """
        lengths_N = np.linalg.norm(queries_ND.astype(np.float64), axis=1)
        off_N = _off(queries_ND)
        longest_N = (lengths_N + off_N) * (self._longest + self._off)
        inputs_N = off_N * self._longest + (lengths_N + off_N) * self._off
        return inputs_N + longest_N * (_ROUNDING + queries_ND.shape[1] * _ADDING) * (1 + _ROUNDING)

    def _best(self, queries_ND: np.ndarray, queries: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
        """Of pairs (query, row) that hold the k best of each query: those."""
        scores_P = np.empty(len(rows))
        for at in range(0, len(rows), _PAIRS):
            part = slice(at, at + _PAIRS)
            scores_P[part] = np.einsum("pd,pd->p", queries_ND[queries[part]], self.rows_FD[rows[part]], dtype=np.float64)
        order = np.lexsort((rows, -scores_P, queries))
        starts = np.searchsorted(queries[order], np.arange(len(queries_ND)))
        return rows[order[starts[:, None] + np.arange(k)]]


def _off(rows_ND: np.ndarray) -> np.ndarray:
    """[N] float64: how far each row is from its bf16 copy."""
    halves = torch.from_numpy(np.ascontiguousarray(rows_ND, dtype=np.float32)).bfloat16().float().numpy()
    return np.linalg.norm(rows_ND.astype(np.float64) - halves, axis=1)
