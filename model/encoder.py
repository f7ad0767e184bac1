"""The one encoder of queries, titles, terms and categories: word vectors -> bag and/or Transformer -> unit vector."""

# N texts, T tokens in all of them, U distinct tokens, F features of those, D embedding, H hidden

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from model.attention import Groups, Layout
from model.bert import Layers
from model.feature_bag import feature_bag
from model.packing import PackedTexts
from model.presets import EncoderConfig


class Embeddings(nn.Module):
    """Words from features; for the Transformer also positions and BERT's LayerNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.rows, config.width)
        if config.feature_weights:
            self.feature_weights = nn.Parameter(torch.zeros(config.rows))
        if config.token_weights:
            self.token_weights = nn.Parameter(torch.zeros(config.rows))
        if config.layers:
            if config.bag:
                self.projection = nn.Linear(config.dim, config.hidden)
            self.position_embeddings = nn.Embedding(config.positions, config.hidden)
            self.token_type_embeddings = nn.Embedding(2, config.hidden)
            self.LayerNorm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)

    def words(self, packed: PackedTexts) -> torch.Tensor:
        """[U, D]: each distinct token as the mean of its features, each times e to its weight."""
        weights = self.feature_weights if self.config.feature_weights else None
        return feature_bag(self.word_embeddings.weight, weights, packed.features, packed.feature_offsets)

    def importance(self, packed: PackedTexts) -> torch.Tensor | None:
        """[U]: what each distinct token weighs in its texts, e to the mean of its features' weights; None: all weigh 1."""
        if not self.config.token_weights:
            return None
        mean = F.embedding_bag(
            packed.features, self.token_weights[:, None], packed.feature_offsets, mode="mean", include_last_offset=True
        )
        return mean[:, 0].exp()

    def sequence(self, words_UD: torch.Tensor, tokens_T: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        """[T, H]: the Transformer's input."""
        if not self.config.bag:
            x_TH = F.embedding(tokens_T, words_UD)
        elif self.training:
            x_TH = F.embedding(tokens_T, self.projection(words_UD))
        else:
            # Twice the work, but of a shape that does not depend on which other texts share words (model/inference.py).
            x_TH = self.projection(F.embedding(tokens_T, words_UD))
        x_TH = x_TH + self.position_embeddings(positions_T) + self.token_type_embeddings.weight[0]
        return F.dropout(self.LayerNorm(x_TH), self.config.dropout, self.training)


class Encoder(nn.Module):
    """Texts to unit vectors.

    The bag is a weighted sum of word vectors. A Transformer beside it adds through ``projection``, which starts
    at zero: training starts from the bag and may stay there, where the layers have nothing to add. While
    ``layers_on`` is false they are not computed; as long as ``projection`` is zero that changes no vector.
    """

    layers_on: bool = True

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        if config.layers:
            self.encoder = Layers(config)
            if config.bag:
                self.projection = nn.Linear(config.hidden, config.dim, bias=False)
        if config.head:
            self.head = nn.Linear(config.hidden, config.dim, bias=False)
        self.apply(self._initialise)
        if config.bag:
            nn.init.normal_(self.embeddings.word_embeddings.weight, std=config.dim**-0.5)
            if config.layers:
                # A fresh word is .3 long: so projected it is as large as BERT's positions are at the start (.02).
                nn.init.normal_(self.embeddings.projection.weight, std=0.07)
                nn.init.zeros_(self.projection.weight)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, packed: PackedTexts) -> torch.Tensor:
        """N packed texts -> [N, D] unit vectors; a text without tokens gets the zero vector."""
        words_UD = self.embeddings.words(packed)
        if not self.config.layers or not self.layers_on:
            return F.normalize(self._bag(words_UD, packed), dim=-1)
        pooled_NH = self._transform(words_UD, packed)
        if not self.config.bag:
            return F.normalize(self.head(pooled_NH) if self.config.head else pooled_NH, dim=-1)
        bag_ND = F.normalize(self._bag(words_UD, packed), dim=-1)
        return F.normalize(bag_ND + self.projection(pooled_NH), dim=-1)

    def _bag(self, words_UD: torch.Tensor, packed: PackedTexts) -> torch.Tensor:
        """[N, D]: weighted sum of the words of each text."""
        importance = self.embeddings.importance(packed)
        if importance is not None:
            words_UD = words_UD * importance[:, None]
        return F.embedding_bag(packed.tokens, words_UD, packed.offsets, mode="sum", include_last_offset=True)

    def _transform(self, words_UD: torch.Tensor, packed: PackedTexts) -> torch.Tensor:
        """[N, H]: mean over each text of the last layer."""
        order, index, positions, groups = by_length(packed.lengths, self.config.positions)
        device = words_UD.device
        tokens_T = packed.tokens[torch.from_numpy(index).to(device)]
        x_TH = self.embeddings.sequence(words_UD, tokens_T, torch.from_numpy(positions).to(device))
        x_TH = self.encoder(x_TH, Layout.of(groups, device)) if groups else x_TH
        parts = [x_TH.new_zeros(len(packed) - sum(count for _, count in groups), x_TH.shape[1])]
        for (length, count), own in zip(groups, x_TH.split([length * count for length, count in groups]), strict=True):
            parts.append(own.view(count, length, -1).mean(dim=1))
        return torch.cat(parts)[torch.from_numpy(np.argsort(order)).to(device)]


def by_length(lengths: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Groups]:
    """Order in which texts of equal length lie together, shortest first.

    Returns:
        order [N] of the texts; index [T] of their tokens in that order, texts without tokens left out; position [T] of
        each token in its text; and (length, count) of each group.
    """
    cut = np.minimum(lengths, limit)
    order = np.argsort(cut, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]
    taken = cut[order]
    positions = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    index = np.repeat(starts, taken) + positions
    found, counts = np.unique(taken, return_counts=True)
    groups = [(int(length), int(count)) for length, count in zip(found, counts, strict=True) if length]
    return order, index, positions, groups
