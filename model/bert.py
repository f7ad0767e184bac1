"""BERT's block (Devlin et al. 2019) on packed texts: same layout and parameter names as Hugging Face's, no padding."""

# T tokens of all texts, H hidden, A heads, L length of a group, N texts in it

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.presets import EncoderConfig

Groups = Sequence[tuple[int, int]]
"""(length, number of texts): how the tokens, sorted by the length of their text, fall into rectangles."""


class SelfAttention(nn.Module):
    """Attention inside each text."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)

    def forward(self, x_TH: torch.Tensor, groups: Groups) -> torch.Tensor:
        """[T, H] -> [T, H].

        Texts are short: bmm over groups of equal length takes two thirds of the time of
        scaled_dot_product_attention on a CPU, and there is nothing to mask.
        """
        q_TH = self.query(x_TH) * (x_TH.shape[1] // self.heads) ** -0.5
        k_TH, v_TH = self.key(x_TH), self.value(x_TH)
        parts = []
        sizes = [length * count for length, count in groups]
        # Of split and not of a slice, whose gradient is as large as the whole: 46 groups of those were a fifth of the step.
        for (length, count), *own in zip(groups, *(y.split(sizes) for y in (q_TH, k_TH, v_TH)), strict=True):
            q, k, v = (self._heads(y, length) for y in own)
            attention = F.dropout(torch.softmax(q @ k.transpose(-1, -2), dim=-1), self.dropout, self.training)
            parts.append((attention @ v).transpose(1, 2).reshape(length * count, -1))
        return torch.cat(parts)

    def _heads(self, y_TH: torch.Tensor, length: int) -> torch.Tensor:
        """[N * L, H] -> [N, A, L, H / A]."""
        return y_TH.view(-1, length, self.heads, y_TH.shape[1] // self.heads).transpose(1, 2)


class Output(nn.Module):
    """Dense, dropout, residual, LayerNorm: the end of both halves of a block."""

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden)
        self.LayerNorm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, y: torch.Tensor, x_TH: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(x_TH + F.dropout(self.dense(y), self.dropout, self.training))


class Attention(nn.Module):
    """First half of a block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden)

    def forward(self, x_TH: torch.Tensor, groups: Groups) -> torch.Tensor:
        return self.output(self.self(x_TH, groups), x_TH)


class Intermediate(nn.Module):
    """The wide layer of the second half."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.ffn)

    def forward(self, x_TH: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.dense(x_TH))


class Layer(nn.Module):
    """One post-LayerNorm block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.ffn)

    def forward(self, x_TH: torch.Tensor, groups: Groups) -> torch.Tensor:
        x_TH = self.attention(x_TH, groups)
        return self.output(self.intermediate(x_TH), x_TH)


class Layers(nn.Module):
    """The stack; with ``checkpointing`` only the input of each block is kept for the backward pass."""

    checkpointing: bool = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x_TH: torch.Tensor, groups: Groups) -> torch.Tensor:
        for layer in self.layer:
            if self.checkpointing and torch.is_grad_enabled():
                x_TH = checkpoint(layer, x_TH, groups, use_reentrant=False)
            else:
                x_TH = layer(x_TH, groups)
        return x_TH
