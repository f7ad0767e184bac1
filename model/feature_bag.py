"""Bags of table rows, each row times e to its weight, whose backward pass is again a bag and nothing is added twice.

With V the rows that a batch uses, x_u = 1/n_u sum_{f in u} e^{w_f} V_f. So dL/dV_f = e^{w_f} sum_{u with f} 1/n_u dL/dx_u, the bag
over the transposed list, written straight into the dense gradient, and dL/dw_f = V_f . dL/dV_f: no product of each
occurrence with its bag's gradient. Of 2,208 words with 25,130 features over 48,279 rows forward and back take 8 ms on one
core, torch's own embedding_bag with per_sample_weights 12.
"""

# U bags, F features in them, C rows of the table, D embedding

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def feature_bag(
    table_CD: torch.Tensor, weights_C: torch.Tensor | None, features_F: torch.Tensor, offsets: torch.Tensor
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
        ctx: Any, table_CD: torch.Tensor, weights_C: torch.Tensor | None, features_F: torch.Tensor, offsets: torch.Tensor
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
        order = features_F.argsort(stable=True)
        bag_F = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)[order]
        uses_C = features_F.bincount(minlength=len(table_CD))
        rows_V = uses_C.nonzero()[:, 0]
        grad_VD = _weighted_sums(grads[0].contiguous(), bag_F, F.pad(uses_C[rows_V].cumsum(0), (1, 0)), scale_F[order])
        weights_grad = None
        if ctx.needs_input_grad[1]:
            # index_select: [] takes three times as long on the CPU.
            products_V = table_CD.index_select(0, rows_V).mul_(grad_VD).sum(dim=1)
            weights_grad = table_CD.new_zeros(len(table_CD)).index_copy_(0, rows_V, products_V)
        return torch.zeros_like(table_CD).index_copy_(0, rows_V, grad_VD), weights_grad, None, None


def _weighted_sums(rows: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(index, rows, offsets, mode="sum", per_sample_weights=scale, include_last_offset=True)
