"""Attention inside each text of a packed batch: torch's variable-length kernel on a GPU, else groups of equal length."""

# T tokens of all texts, A heads, D width of a head, L length of a group, N texts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

Groups = Sequence[tuple[int, int]]
"""(length, number of texts): how the tokens, sorted by the length of their text, fall into rectangles."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which of the tokens belong together; texts without tokens have no place in it."""

    groups: Groups
    offsets: torch.Tensor
    """[N + 1] int32 beside the tokens: where each text begins."""

    @classmethod
    def of(cls, groups: Groups, device: torch.device) -> Layout:
        lengths = np.repeat([length for length, _ in groups], [count for _, count in groups])
        offsets = np.cumsum([0, *lengths], dtype=np.int32)
        return cls(groups, torch.from_numpy(offsets).to(device, non_blocking=True))


def attention(q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, layout: Layout, dropout: float) -> torch.Tensor:
    """[T, A, D] each -> [T, A, D], with the probabilities dropped out at the rate ``dropout``."""
    if not dropout and has_kernel(q_TAD.device, q_TAD.dtype, q_TAD.shape[2]):
        # Not above: it brings torch's whole compiler with it, 2 s of CPU in every process that only ever uses the other way.
        from torch.nn.attention.varlen import varlen_attn

        longest = layout.groups[-1][0]
        found = varlen_attn(q_TAD, k_TAD, v_TAD, layout.offsets, layout.offsets, longest, longest)
        assert isinstance(found, torch.Tensor)  # a pair only if more is asked for
        return found
    return in_groups(q_TAD, k_TAD, v_TAD, layout.groups, dropout)


def has_kernel(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether ``varlen_attn`` (FlashAttention) takes such heads: half precision on a GPU since Ampere, without dropout."""
    fits = dtype in (torch.float16, torch.bfloat16) and width % 8 == 0 and width <= 256
    return device.type == "cuda" and fits and torch.cuda.get_device_capability(device) >= (8, 0)


def in_groups(
    q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, groups: Groups, dropout: float = 0.0
) -> torch.Tensor:
    """The same by batched matrix products over texts of equal length.

    Texts are short: on a CPU this takes two thirds of the time of scaled_dot_product_attention; there is nothing to mask.
    """
    q_TAD, parts = q_TAD * q_TAD.shape[2] ** -0.5, []
    sizes = [length * count for length, count in groups]
    # Of split and not of a slice, whose gradient is as large as the whole: 46 groups of those were a fifth of the step.
    for (length, count), *own in zip(groups, *(y.split(sizes) for y in (q_TAD, k_TAD, v_TAD)), strict=True):
        q, k, v = (y.view(count, length, *y.shape[1:]).transpose(1, 2) for y in own)  # [N, A, L, D] each
        # matmul copies these anyway, but for a single text, whose product then has other last bits than beside others.
        q, k, v = q.contiguous(), k.transpose(-1, -2).contiguous(), v.contiguous()
        probabilities = F.dropout(torch.softmax(q @ k, dim=-1), dropout)
        parts.append((probabilities @ v).transpose(1, 2).reshape(length * count, *v_TAD.shape[1:]))
    return torch.cat(parts)
