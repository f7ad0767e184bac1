"""Symmetric InfoNCE (van den Oord et al. 2018) over the negatives of all ranks, with the gradient of one process.

Let L = sum_i w_i l_i / sum_i w_i be the loss of one process on the joined batch, l_i the mean of row i's two cross
entropies. Rank r computes, against all columns, only its own rows: L_r = W sum_{i in r} w_i l_i / sum_i w_i, for W ranks.

* Value: mean_r L_r = L.
* Gradient: let e_s be the embeddings that rank s computed and J_s their Jacobian. The gather's backward pass hands rank s
  the sum over all ranks, sum_r dL_r/de_s; so rank s's parameter gradient is g_s = J_s^T sum_r dL_r/de_s, and what
  DeepSpeed makes of it, mean_s g_s = 1/W sum_s J_s^T sum_r dL_r/de_s = sum_s J_s^T dL/de_s, is dL/dtheta.

Without autograd through the gather the direction is wrong (25% relative error on two ranks), and Adam hides it.
"""

# B rows of this rank, G rows of all ranks, D embedding

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.known import KnownPairs

TILE = 2048
"""Rows of logits that are held at once; more are computed again in the backward pass (108 MB for 1,111 MB at 8,192 rows)."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers in the default process group; one alone needs no group."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class Rows:
    """What the loss knows of the rows of a batch, beside their embeddings."""

    query_group: np.ndarray
    item_group: np.ndarray
    weight: np.ndarray
    query_logp: np.ndarray
    item_logp: np.ndarray

    def __len__(self) -> int:
        return len(self.query_group)


class _Gather(torch.autograd.Function):
    """All ranks' rows in the order of ranks; backwards, each rank gets the sum of all ranks' gradients of its rows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks, ctx.rows = ranks, x.shape[0]
        gathered = x.new_empty((ranks.world * x.shape[0], *x.shape[1:]))
        dist.all_gather_into_tensor(gathered, x.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        # gloo has no reduce-scatter for every type; the sum of all is W times the traffic, of a small matrix.
        grad = grads[0].contiguous()
        if dist.get_backend() == "nccl":
            out = grad.new_empty((ctx.rows, *grad.shape[1:]))
            dist.reduce_scatter_tensor(out, grad)
            return out, None
        dist.all_reduce(grad)
        return grad[ctx.ranks.rank * ctx.rows : (ctx.ranks.rank + 1) * ctx.rows], None


def gather(x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """[B, ...] -> [G, ...], differentiable; every rank must bring the same number of rows."""
    return x if ranks.world == 1 else _Gather.apply(x, ranks)


def gather_rows(rows: Rows, ranks: Ranks, device: torch.device) -> Rows:
    """Ids and weights of the rows of all ranks, on the host."""
    if ranks.world == 1:
        return rows
    ids = torch.from_numpy(np.stack([rows.query_group, rows.item_group], axis=1)).to(device)
    values = torch.from_numpy(np.stack([rows.weight, rows.query_logp, rows.item_logp], axis=1)).to(device)
    columns = (*gather(ids, ranks).cpu().numpy().T, *gather(values, ranks).cpu().numpy().T)
    return Rows(*columns)


def false_negatives(rows: Rows, all_rows: Rows, start: int, known: KnownPairs | None) -> tuple[np.ndarray, np.ndarray]:
    """Which columns are no negatives of a row: same query, same item, or a pair known to have been clicked.

    Args:
        rows: The B rows of this rank, which are rows ``start`` to ``start + B`` of all.
        all_rows: The G rows of all ranks.
        start: See above.
        known: The clicked pairs.

    Returns:
        bool [B, G] for query -> titles, and bool [B, G] for title -> queries; a row's own column is never in them.
    """
    same = rows.query_group[:, None] == all_rows.query_group[None, :]
    same |= rows.item_group[:, None] == all_rows.item_group[None, :]
    titles, queries = same, same.copy()
    if known is not None:
        titles = titles | known.matrix(rows.query_group, all_rows.item_group)
        queries = queries | known.matrix(all_rows.query_group, rows.item_group).T
    own = np.arange(len(rows))
    titles[own, start + own] = queries[own, start + own] = False
    return titles, queries


def contrastive_loss(
    query_BD: torch.Tensor,
    title_BD: torch.Tensor,
    rows: Rows,
    *,
    tau: float,
    ranks: Ranks,
    known: KnownPairs | None = None,
    logq: float = 0.0,
    tile: int = TILE,
) -> torch.Tensor:
    """Unit vectors of this rank's rows -> L_r of the module's docstring, a scalar.

    Args:
        query_BD: Queries.
        title_BD: Titles; row i belongs to query i.
        rows: Their ids and weights.
        tau: Temperature.
        ranks: Who takes part.
        known: Clicked pairs, which are masked.
        logq: Share of the log-sampling-probability taken off each column's logit (Yi et al. 2019); 0 is off.
        tile: Rows of logits that are held at once.
    """
    if query_BD.dtype in (torch.bfloat16, torch.float16):
        query_BD, title_BD = query_BD.float(), title_BD.float()
    both_G2D = gather(torch.stack([query_BD, title_BD], dim=1), ranks)
    query_GD, title_GD = both_G2D.unbind(dim=1)
    all_rows = gather_rows(rows, ranks, query_BD.device)
    start = ranks.rank * len(rows)
    masks = [torch.from_numpy(m).to(query_BD.device) for m in false_negatives(rows, all_rows, start, known)]

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(query_BD)

    sides = (
        (query_BD, title_GD, masks[0], tensor(-logq * all_rows.item_logp)),
        (title_BD, query_GD, masks[1], tensor(-logq * all_rows.query_logp)),
    )
    losses_B = sum((_cross_entropy(x, y, mask, bias, start, tau, tile) for x, y, mask, bias in sides), start=0.0) / 2
    # W / sum over all ranks, so that DeepSpeed's mean over ranks is the weighted mean over all rows.
    return (losses_B * tensor(rows.weight)).sum() * (ranks.world / float(all_rows.weight.sum()))


def _cross_entropy(
    x_BD: torch.Tensor, y_GD: torch.Tensor, mask_BG: torch.Tensor, bias_G: torch.Tensor, start: int, tau: float, tile: int
) -> torch.Tensor:
    """[B] cross entropies of rows whose own columns are ``start``, ``start + 1``, …, tile by tile."""
    parts = []
    for first in range(0, len(x_BD), tile):
        rows = slice(first, first + tile)
        own = torch.arange(start + first, start + first + len(x_BD[rows]), device=x_BD.device)
        arguments = (x_BD[rows], y_GD, mask_BG[rows], bias_G, own, tau)
        parts.append(_tile(*arguments) if len(x_BD) <= tile else checkpoint(_tile, *arguments, use_reentrant=False))
    return torch.cat(parts)


def _tile(
    x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor, own: torch.Tensor, tau: float
) -> torch.Tensor:
    logits = torch.addmm(bias, x, y.T, alpha=1 / tau)
    return F.cross_entropy(logits.masked_fill(mask, -torch.inf), own, reduction="none")
