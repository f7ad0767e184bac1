"""Vectors of many texts, each the same to the last bit whatever other texts are encoded beside it."""

# N texts, D embedding

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from etl.tokenizer import TokenTable
from model.encoder import Encoder
from model.packing import offsets_of, pack

CALL_TOKENS = {"cpu": 512, "cuda": 16_384}
"""Tokens of one call of the layers: enough to keep a core or a card busy, few enough that the last, padded call of each
length costs little."""

_MULTIPLE = 8
_BAG_TOKENS = 16_384  # a bag computes each text for itself; this bounds memory only


@torch.inference_mode()
def embed(
    encoder: Encoder,
    rows: Sequence[np.ndarray],
    table: TokenTable | None,
    device: str = "cpu",
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Token ids of N texts -> float32 [N, D] unit vectors; a text without tokens gets the zero vector.

    How a matrix product is split up depends on its shape, and with it the last bits of every row. So the layers are
    called with texts of one length at a time and a number of them that depends on that length alone, filled up with
    copies: a text that is encoded again years later, alone, gets the vector that it had.

    Args:
        encoder: On ``device``, in evaluation mode afterwards.
        rows: int64 ids of each text.
        table: Features of the tokens; None if an id is its own only feature.
        device: ``cpu``, ``cuda`` or ``cuda:0``.
        advance: Is told after each call how many tokens it took, see :func:`model.progress.advancing`.
    """
    encoder = encoder.to(device).eval()
    out = np.zeros((len(rows), encoder.config.dim), dtype=np.float32)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    if encoder.config.layers:
        calls = _equal_lengths(np.minimum(lengths, encoder.config.positions), CALL_TOKENS[device.partition(":")[0]])
    else:
        calls = _any_lengths(lengths)
    for chosen, filled in calls:
        texts = [rows[i] for i in filled]
        packed = pack(np.concatenate(texts), offsets_of(texts), table).to(device)
        out[chosen] = encoder(packed).float().cpu().numpy()[: len(chosen)]
        if advance is not None:
            advance(int(lengths[chosen].sum()))
    return out


def _equal_lengths(lengths: np.ndarray, tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Texts of one length, and the same filled up to the number that goes with that length."""
    for length in np.unique(lengths[lengths > 0]).tolist():
        size = max(tokens // length // _MULTIPLE, 1) * _MULTIPLE
        found = np.flatnonzero(lengths == length)
        for start in range(0, len(found), size):
            chosen = found[start : start + size]
            yield chosen, np.concatenate([chosen, np.full(size - len(chosen), chosen[0])])


def _any_lengths(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = np.argsort(lengths, kind="stable")
    call = np.cumsum(lengths[order] + 1) // _BAG_TOKENS
    for chosen in np.split(order, np.flatnonzero(np.diff(call)) + 1) if len(order) else ():
        yield chosen, chosen
