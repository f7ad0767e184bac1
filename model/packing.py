"""Texts of a batch laid end to end, with each distinct token's features once: nothing is padded."""

# N texts, T tokens in all of them, U distinct tokens, F features of those

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from etl.errors import InputError
from etl.tokenizer import HashedTokenizer, Tokenizer, TokenTable
from model.augment import thinned


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """N texts for one forward pass; token ``t`` of a text is the bag ``tokens[t]`` of features."""

    features: torch.Tensor
    """[F] int64: rows of the embedding table."""
    feature_offsets: torch.Tensor
    """[U + 1] int64: where each distinct token's features begin."""
    tokens: torch.Tensor
    """[T] int64: distinct token of each position."""
    offsets: torch.Tensor
    """[N + 1] int64: where each text begins."""
    lengths: np.ndarray
    """[N] int64 on the host: tokens of each text; grouping by it must not wait for a GPU."""

    def __len__(self) -> int:
        return len(self.lengths)

    def parts(self, most: int) -> list[PackedTexts]:
        """The same texts in parts of ``most``, each with the features of its own tokens; on the host."""
        tokens, offsets = self.tokens.numpy(), self.offsets.numpy()
        table = (self.feature_offsets.numpy(), self.features.numpy())
        found = []
        for start in range(0, len(self), most):
            stop = min(start + most, len(self))
            distinct, own = np.unique(tokens[offsets[start] : offsets[stop]], return_inverse=True)
            features, feature_offsets = take(*table, distinct)
            found.append(
                PackedTexts(
                    features=torch.from_numpy(features),
                    feature_offsets=torch.from_numpy(feature_offsets),
                    tokens=torch.from_numpy(own.reshape(-1)),
                    offsets=torch.from_numpy(offsets[start : stop + 1] - offsets[start]),
                    lengths=self.lengths[start:stop],
                )
            )
        return found

    def without_features(self, share: float, draw: np.random.Generator) -> PackedTexts:
        """The same texts with a random ``share`` of each distinct token's features left out, never all; on the host."""
        features, offsets = thinned(self.features.numpy(), self.feature_offsets.numpy(), share, draw=draw)
        return replace(self, features=torch.from_numpy(features), feature_offsets=torch.from_numpy(offsets))

    def to(self, device: torch.device | str) -> PackedTexts:
        return PackedTexts(
            features=self.features.to(device, non_blocking=True),
            feature_offsets=self.feature_offsets.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
            offsets=self.offsets.to(device, non_blocking=True),
            lengths=self.lengths,
        )


def take(offsets: np.ndarray, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a CSR: their values end to end, and their offsets [len(rows) + 1]."""
    lengths = offsets[rows + 1] - offsets[rows]
    taken = np.concatenate([[0], np.cumsum(lengths)])
    index = np.repeat(offsets[rows] - taken[:-1], lengths) + np.arange(taken[-1])
    return values[index], taken


def pack(ids: np.ndarray, offsets: np.ndarray, table: TokenTable | None) -> PackedTexts:
    """Token ids [T] with text offsets [N + 1]; without a table an id is its own only feature.

    Raises:
        InputError: an id is not in the table: it belongs to another dataset.
    """
    distinct, tokens = np.unique(ids, return_inverse=True)
    return _packed(distinct if table is None else _places(distinct, table), tokens.reshape(-1), offsets, table)


class Packer:
    """:func:`pack` for batch after batch of one dataset: what it keeps in memory saves sorting and searching each batch."""

    def __init__(self, table: TokenTable | None, ids: int = 0) -> None:
        """For the tokens of ``table``, or, without one, for token ids below ``ids``."""
        self.table = table
        self.scratch = np.empty(ids if table is None else len(table.ids), dtype=np.int32)
        # Ids are hashes, so their low bits are a hash too; with 8 to 16 slots a token, 3 to 6% of the
        # tokens lose theirs by calculation (1 - e^-load, halved) and are searched for.
        self.slots = np.zeros(2 ** (8 * len(self.scratch)).bit_length(), dtype=np.int32)
        if table is not None:
            self.slots[table.ids & (len(self.slots) - 1)] = np.arange(len(table.ids))

    def pack(self, ids: np.ndarray, offsets: np.ndarray) -> PackedTexts:
        """As :func:`pack`."""
        places = ids if self.table is None else self._places(ids, self.table)
        order = np.arange(len(places), dtype=np.int32)
        self.scratch[places] = order  # of equal places one stays, whichever
        distinct = np.sort(places[self.scratch[places] == order])
        self.scratch[distinct] = np.arange(len(distinct))
        return _packed(distinct, self.scratch[places], offsets, self.table)

    def _places(self, ids: np.ndarray, table: TokenTable) -> np.ndarray:
        if not len(table.ids):
            return _places(ids, table)
        places = self.slots[ids & (len(self.slots) - 1)]
        lost = np.flatnonzero(table.ids[places] != ids)
        places[lost] = _places(ids[lost], table)
        return places


def _places(ids: np.ndarray, table: TokenTable) -> np.ndarray:
    """Where each id stands in the table."""
    places = np.asarray(np.searchsorted(table.ids, ids))
    # Not np.isin, which sorts the whole table each time: 76 ms of 10^6 tokens.
    known = table.ids[np.minimum(places, len(table.ids) - 1)] == ids if len(table.ids) else ids != ids
    missing = np.unique(ids[~known])
    if len(missing):
        raise InputError(
            f"{len(missing)} token ids are not in the token table (first: {missing[0]}): "
            "texts and tokens.parquet are of different datasets; run `labeller dataset` again"
        )
    return places


def _packed(places: np.ndarray, tokens: np.ndarray, offsets: np.ndarray, table: TokenTable | None) -> PackedTexts:
    """Of distinct places [U] in the table (without one: ids), and which of them each position [T] shows."""
    if table is None:
        features, feature_offsets = places.astype(np.int64), np.arange(len(places) + 1)
    else:
        features, feature_offsets = take(table.offsets, table.features, places)
    return PackedTexts(
        features=torch.from_numpy(features),
        feature_offsets=torch.from_numpy(feature_offsets),
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        offsets=torch.from_numpy(np.asarray(offsets, dtype=np.int64)),
        lengths=np.diff(offsets),
    )


def tokenised(
    tokenizer: Tokenizer, texts: Sequence[str], side: Literal["query", "title"]
) -> tuple[list[np.ndarray], TokenTable | None]:
    """Token ids of each raw text, and the table that they belong to."""
    if not isinstance(tokenizer, HashedTokenizer):
        return [tokenizer.ids(text, side) for text in texts], None
    # The string of a token is its identity here: hashing each to 64 bits would be work for nothing.
    index: dict[str, int] = {}
    rows = [
        np.fromiter((index.setdefault(t, len(index)) for t in tokenizer.tokens(text, side)), dtype=np.int64)
        for text in texts
    ]
    bags = [np.array(tokenizer.features(token), dtype=np.int64) for token in index]
    features = np.concatenate([*bags, np.zeros(0, np.int64)])
    return rows, TokenTable(ids=np.arange(len(bags)), offsets=offsets_of(bags), features=features)


def offsets_of(rows: Sequence[np.ndarray]) -> np.ndarray:
    """[len(rows) + 1] int64: where each row begins once they are laid end to end."""
    return np.cumsum([0, *map(len, rows)], dtype=np.int64)
