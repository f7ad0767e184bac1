"""Texts of a batch laid end to end, with each distinct token's features once: nothing is padded."""

# N texts, T tokens in all of them, U distinct tokens, F features of those

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from etl.errors import InputError
from etl.tokenizer import Tokenizer, TokenTable, WordHashTokenizer


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


def places_of(ids: np.ndarray, table: TokenTable) -> np.ndarray:
    """Token ids [T] -> their places in ``table`` [T].

    Raises:
        InputError: an id is not in the table: it belongs to another dataset.
    """
    # Arrow hashes: sorting 14 million ids for np.unique took 1.2 s, this takes .15 s.
    encoded = pa.array(ids, pa.int64()).dictionary_encode()
    distinct = encoded.dictionary.to_numpy()
    places = np.asarray(np.searchsorted(table.ids, distinct))
    # Not np.isin, which sorts the whole table each time: 76 ms of 10^6 tokens.
    known = table.ids[np.minimum(places, len(table.ids) - 1)] == distinct if len(table.ids) else distinct != distinct
    missing = distinct[~known]
    if len(missing):
        raise InputError(
            f"{len(missing)} token ids are not in the token table (first: {missing[0]}): "
            "texts and tokens.parquet are of different datasets; run `labeller dataset` again"
        )
    return places.astype(np.int32)[encoded.indices.to_numpy()]


def pack(ids: np.ndarray, offsets: np.ndarray, table: TokenTable | None) -> PackedTexts:
    """Token ids [T] with text offsets [N + 1]; without a table an id is its own only feature.

    Raises:
        InputError: an id is not in the table: it belongs to another dataset.
    """
    return pack_places(ids if table is None else places_of(ids, table), offsets, table)


def pack_places(places: np.ndarray, offsets: np.ndarray, table: TokenTable | None) -> PackedTexts:
    """Places in the token table [T], which :func:`places_of` found, with text offsets [N + 1]; without a table, ids."""
    distinct, tokens = np.unique(places, return_inverse=True)
    if table is None:
        features, feature_offsets = distinct.astype(np.int64), np.arange(len(distinct) + 1)
    else:
        features, feature_offsets = take(table.offsets, table.features, distinct)
    return PackedTexts(
        features=torch.from_numpy(features),
        feature_offsets=torch.from_numpy(feature_offsets),
        tokens=torch.from_numpy(tokens.reshape(-1).astype(np.int64)),
        offsets=torch.from_numpy(np.asarray(offsets, dtype=np.int64)),
        lengths=np.diff(offsets),
    )


def tokenised(
    tokenizer: Tokenizer, texts: Sequence[str], side: Literal["query", "title"]
) -> tuple[list[np.ndarray], TokenTable | None]:
    """Token ids of each raw text, and the table that they belong to."""
    if not isinstance(tokenizer, WordHashTokenizer):
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
