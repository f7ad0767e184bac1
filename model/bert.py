"""BERT's block (Devlin et al. 2019) on packed texts: same layout and parameter names as Hugging Face's, no padding."""

# T tokens of all texts, H hidden

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import Layout, attention
from model.presets import EncoderConfig


class SelfAttention(nn.Module):
    """Attention inside each text."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)

    def forward(self, x_TH: torch.Tensor, layout: Layout) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        q, k, v = (f(x_TH).unflatten(1, (self.heads, -1)) for f in (self.query, self.key, self.value))
        return attention(q, k, v, layout, self.dropout if self.training else 0.0).flatten(1)


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

    def forward(self, x_TH: torch.Tensor, layout: Layout) -> torch.Tensor:
        return self.output(self.self(x_TH, layout), x_TH)


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

    def forward(self, x_TH: torch.Tensor, layout: Layout) -> torch.Tensor:
        x_TH = self.attention(x_TH, layout)
        return self.output(self.intermediate(x_TH), x_TH)


class Layers(nn.Module):
    """The stack; with ``checkpointing`` only the input of each block is kept for the backward pass."""

    checkpointing: bool = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x_TH: torch.Tensor, layout: Layout) -> torch.Tensor:
        for layer in self.layer:
            if self.checkpointing and torch.is_grad_enabled():
                x_TH = checkpoint(layer, x_TH, layout, use_reentrant=False)
            else:
                x_TH = layer(x_TH, layout)
        return x_TH
