"""An encoder as an ONNX graph over one padded batch: what an online service runs without torch."""

# B texts, L tokens of the longest, F features of all tokens, D embedding, H hidden, A heads

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from etl.errors import InputError
from model.bert import Layer, SelfAttention
from model.encoder import Encoder
from model.online import INPUTS, OUTPUT, Batch

OPSET = 18
"""Of 2022: what it needs above others is ScatterND that adds, and LayerNormalization as one operation."""

_MASKED = -1e9  # not -inf: a text without tokens would be 0/0

# All sizes are different and above 1, of which torch.export would make constants.
_EXAMPLE = Batch(np.zeros(4, np.int64), np.array([0, 0, 1, 3]), np.array([[1, 1, 0], [1, 0, 0]]))


class PaddedEncoder(nn.Module):
    """The weights and the vectors of an :class:`model.encoder.Encoder`, by operations that ONNX has."""

    rows: torch.Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        rows = encoder.embeddings.word_embeddings.weight.detach()
        if self.config.feature_weights:  # they do not change any more
            rows = rows * encoder.embeddings.feature_weights.detach().exp()[:, None]
        self.register_buffer("rows", rows)

    def forward(self, features_F: torch.Tensor, feature_tokens_F: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """[B, D] unit vectors of a :class:`model.online.Batch`; a text without tokens gets the zero vector."""

        def sums(values_FD: torch.Tensor) -> torch.Tensor:
            """[B, L, D]: over the features of each token; zero where there is none."""
            empty = values_FD.new_zeros(mask_BL.shape[0] * mask_BL.shape[1], values_FD.shape[1])
            return empty.index_put((feature_tokens_F,), values_FD, accumulate=True).unflatten(0, mask_BL.shape)

        counts_BL1 = sums(self.rows.new_ones(features_F.shape)[:, None]).clamp(min=1.0)
        words_BLD = sums(F.embedding(features_F, self.rows)) / counts_BL1
        if not self.config.bag:
            pooled_BH = self._transform(words_BLD, mask_BL)
            return F.normalize(self.encoder.head(pooled_BH) if self.config.head else pooled_BH, dim=-1)
        weighted_BLD = words_BLD
        if self.config.token_weights:
            weights_F1 = F.embedding(features_F, self.encoder.embeddings.token_weights[:, None])
            weighted_BLD = words_BLD * (sums(weights_F1) / counts_BL1).exp()
        bag_BD = F.normalize(weighted_BLD.sum(dim=1), dim=-1)
        if not self.config.layers:
            return bag_BD
        return F.normalize(bag_BD + self.encoder.projection(self._transform(words_BLD, mask_BL)), dim=-1)

    def _transform(self, words_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """[B, H]: mean over the first ``positions`` tokens of each text of the last layer."""
        words_BLD, mask_BL = words_BLD[:, : self.config.positions], mask_BL[:, : self.config.positions]
        parts = self.encoder.embeddings
        x_BLH = parts.projection(words_BLD) if self.config.bag else words_BLD
        positions_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
        x_BLH = parts.LayerNorm(x_BLH + parts.position_embeddings(positions_L) + parts.token_type_embeddings.weight[0])
        shown_BL = mask_BL.to(x_BLH.dtype)
        hidden_B11L = ((1.0 - shown_BL) * _MASKED)[:, None, None]
        for layer in self.encoder.encoder.layer:
            x_BLH = _block(cast(Layer, layer), x_BLH, hidden_B11L)
        return (x_BLH * shown_BL[:, :, None]).sum(dim=1) / shown_BL.sum(dim=1, keepdim=True).clamp(min=1.0)


def write_graph(encoder: Encoder, file: Path) -> None:
    """Lay the graph of ``encoder`` down at ``file``, its weights beside it as ``<file>.data``; batch sizes are free.

    The same encoder makes the same bytes.

    Raises:
        InputError: what torch's exporter needs is not installed.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter wants it, and says so by a traceback only)
    except ModuleNotFoundError:
        raise InputError("the package onnxscript is not installed: `pip install onnxscript`, or `make setup`") from None
    feature, text, token = (torch.export.Dim(name) for name in ("features", "texts", "tokens"))
    program = torch.onnx.export(
        PaddedEncoder(encoder).eval(),
        tuple(map(torch.from_numpy, _EXAMPLE)),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_shapes=({0: feature}, {0: feature}, {0: text, 1: token}),
        verbose=False,
    )
    assert program is not None  # only a dry run has none
    graph = program.model.graph
    used = set()
    for node in graph:
        node.metadata_props.clear()  # stack traces with the paths of this machine
        used |= {value.name for value in node.inputs if value is not None}
    for name in graph.initializers.keys() - used:  # the table as it was before it was multiplied by the weights
        del graph.initializers[name]
    program.save(str(file), external_data=True)


def _block(layer: Layer, x_BLH: torch.Tensor, hidden_B11L: torch.Tensor) -> torch.Tensor:
    x_BLH = layer.attention.output(_attend(layer.attention.self, x_BLH, hidden_B11L), x_BLH)
    return layer.output(layer.intermediate(x_BLH), x_BLH)


def _attend(own: SelfAttention, x_BLH: torch.Tensor, hidden_B11L: torch.Tensor) -> torch.Tensor:
    q, k, v = (f(x_BLH).unflatten(2, (own.heads, -1)).transpose(1, 2) for f in (own.query, own.key, own.value))
    scores_BALL = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + hidden_B11L
    return (torch.softmax(scores_BALL, dim=-1) @ v).transpose(1, 2).flatten(2)
