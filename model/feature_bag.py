"""Bags of table rows, each row times e to its weight, whose backward pass is again a bag and nothing is added twice.

x_u = 1/n_u sum_{f in u} e^{w_f} T_f, so dL/dT_f = e^{w_f} sum_{u with f} 1/n_u dL/dx_u: the bag over the transposed list.
And dL/dw_f = T_f . dL/dT_f, a product for each row, not for each time that it occurs. Of 2,208 words with 25,130 features,
10,751 of 48,279 rows, torch's own embedding_bag with per_sample_weights takes half as long again on one core.
"""

# U bags, F features in them, C rows of the table, V of them used, D embedding

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F


def feature_bag(
    table_CD: torch.Tensor,
    weights_C: torch.Tensor | None,
    features_F: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    """[U, D]: the mean of each bag's rows, each times e to its weight; differentiable in table and weights.

    Args:
        table_CD: Rows.
        weights_C: Of each row; none: all are 0.
        features_F: Rows of the bags, end to end, int64.
        offsets: [U + 1] where each bag begins among them, int64.
    """
    return _FeatureBag.apply(table_CD, weights_C, features_F, offsets)


class _FeatureBag(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table_CD: torch.Tensor,
        weights_C: torch.Tensor | None,
        features_F: torch.Tensor,
        offsets: torch.Tensor,
    ) -> torch.Tensor:
        counts = offsets.diff()
        scale_F = (1.0 / counts.to(table_CD.dtype)).repeat_interleave(counts)
        if weights_C is not None:
            scale_F *= weights_C[features_F].exp()
        ctx.save_for_backward(table_CD, features_F, counts, scale_F)
        return _weighted_sums(table_CD, features_F, offsets, scale_F)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        table_CD, features_F, counts, scale_F = ctx.saved_tensors
        order = _order(features_F)
        bag_F = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)[order]
        rows_V, uses_V = features_F[order].unique_consecutive(return_counts=True)
        grad_VD = _weighted_sums(grads[0].contiguous(), bag_F, F.pad(uses_V.cumsum(0), (1, 0)), scale_F[order])
        weights_grad = None
        if ctx.needs_input_grad[1]:
            # index_select: [] takes three times as long on the CPU.
            products_V = table_CD.index_select(0, rows_V).mul_(grad_VD).sum(dim=1)
            weights_grad = table_CD.new_zeros(len(table_CD)).index_copy_(0, rows_V, products_V)
        table_grad = torch.zeros_like(table_CD).index_copy_(0, rows_V, grad_VD)
        return table_grad, weights_grad, None, None


def _weighted_sums(rows: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(index, rows, offsets, mode="sum", per_sample_weights=scale, include_last_offset=True)


def _order(features_F: torch.Tensor) -> torch.Tensor:
    """[F] their stable order; on the CPU by numpy's radix sort of 16 bits each, .2 ms of 25,130 where torch takes 1.3."""
    if features_F.is_cuda:
        return features_F.argsort(stable=True)
    features = features_F.numpy()
    order = features.astype(np.uint16).argsort(kind="stable")
    high = (features >> 16).astype(np.uint16)
    return torch.from_numpy(order[high[order].argsort(kind="stable")] if high.any() else order)
