"""This process among the others of a training, and rows gathered from all of them with their gradient."""

# B rows of this rank, G rows of all ranks

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers in the default process group; one alone needs no group."""

    rank: int = 0
    world: int = 1


class _Gather(torch.autograd.Function):
    """All ranks' rows in the order of ranks; backwards, each rank gets the sum of all ranks' gradients of its rows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks, ctx.rows = ranks, x.shape[0]
        gathered = x.new_empty((ranks.world * x.shape[0], *x.shape[1:]))
        dist.all_gather_single(gathered, x.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        # gloo has no reduce-scatter for every type; the sum of all is W times the traffic, of a small matrix.
        grad = grads[0].contiguous()
        if dist.get_backend() == "nccl":
            out = grad.new_empty((ctx.rows, *grad.shape[1:]))
            dist.reduce_scatter_single(out, grad)
            return out, None
        dist.all_reduce(grad)
        # A copy: a part of it would keep the whole alive.
        return grad[ctx.ranks.rank * ctx.rows : (ctx.ranks.rank + 1) * ctx.rows].clone(), None


def gather(x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """[B, ...] -> [G, ...], differentiable; every rank must bring the same number of rows."""
    return x if ranks.world == 1 else _Gather.apply(x, ranks)
