"""Vectors of many texts, each the same to the last bit whatever other texts are encoded beside it."""

# N texts, T tokens of a call, D embedding

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from etl.tokenizer import TokenTable
from model.encoder import Encoder
from model.packing import offsets_of, pack

log = logging.getLogger(__name__)

CALL_TOKENS = {"cpu": 512, "cuda": 16_384}
"""Tokens of one call of the layers: enough to keep a core or a card busy, few enough that the last, filled up call costs
little."""

_MULTIPLE = 8
_BAG_TOKENS = 16_384  # a bag computes each text for itself; this bounds memory only
_FILLING = 16  # tokens of a text that only fills up a call: short ones cost no attention to speak of

_Calls = Callable[[np.ndarray, int], Iterator[tuple[np.ndarray, list[np.ndarray]]]]
"""Which of the texts, and about how many tokens a call -> of each call the texts, and these with what fills it up."""


@torch.inference_mode()
def embed(
    encoder: Encoder,
    rows: Sequence[np.ndarray],
    table: TokenTable | None,
    device: str = "cpu",
    advance: Callable[[int], None] | None = None,
    halved: Callable[[], None] | None = None,
) -> np.ndarray:
    """Token ids of N texts -> float32 [N, D] unit vectors; a text without tokens gets the zero vector.

    How a matrix product is split up depends on its shape, and with it the last bits of every row. So the layers are called
    with shapes that do not depend on the texts, filled up with copies: a text that is encoded again years later, alone,
    gets the vector that it had.

    A call for which the device has not the memory is made again as calls of half its tokens, down to one text alone. Those
    are other shapes, and the vectors equal to 1e-6: on an AVX2 core to the last bit down to 16 tokens, below to 1.2e-7.

    Args:
        encoder: On ``device``, in evaluation mode afterwards.
        rows: int64 ids of each text.
        table: Features of the tokens; None if an id is its own only feature.
        device: ``cpu``, ``cuda`` or ``cuda:0``.
        advance: Is told after each call how many tokens it took, see :func:`model.progress.advancing`.
        halved: Is called for each call that was halved.

    Raises:
        torch.OutOfMemoryError: not even one text alone fits into the memory.
    """
    encoder = encoder.to(device).eval()
    out = np.zeros((len(rows), encoder.config.dim), dtype=np.float32)
    kind = device.partition(":")[0]
    cut = np.minimum([len(row) for row in rows], encoder.config.positions).astype(np.int64)
    calls: _Calls
    if not encoder.config.layers:
        calls, tokens = partial(_any_lengths, rows), _BAG_TOKENS
    elif kind == "cpu":
        piece = min(_FILLING, encoder.config.positions)
        calls, tokens = partial(_mixed_lengths, rows, cut, piece), max(CALL_TOKENS[kind], encoder.config.positions)
    else:
        calls, tokens = partial(_equal_lengths, rows, cut), CALL_TOKENS[kind]

    def encode(which: np.ndarray, tokens: int) -> None:
        for chosen, texts in calls(which, tokens):
            vectors = None
            try:
                vectors = encoder(pack(np.concatenate(texts), offsets_of(texts), table).to(device)).float().cpu().numpy()
            except RuntimeError as error:
                if not out_of_memory(error) or (len(chosen) == 1 and tokens <= max(len(rows[chosen[0]]), 1)):
                    raise
            if vectors is None:  # after the error is gone, which holds on to what the call had allocated
                log.debug("out of memory in a call of %d texts, %d tokens: halved", len(chosen), tokens)
                if halved is not None:
                    halved()
                if kind == "cuda":
                    torch.cuda.empty_cache()
                encode(chosen, max(tokens // 2, 1))
                continue
            out[chosen] = vectors[: len(chosen)]
            if advance is not None:
                advance(sum(len(rows[i]) for i in chosen))

    encode(np.arange(len(rows)), tokens)
    return out


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device lacked memory: torch's own error, cuBLAS' and the driver's, and that of torch's CPU allocator."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in said for sign in ("out of memory", "ALLOC_FAILED", "can't allocate memory")
    )


def _mixed_lengths(
    rows: Sequence[np.ndarray], cut: np.ndarray, piece: int, which: np.ndarray, tokens: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Calls of ``tokens`` tokens and a number of texts that goes with it, whatever lengths these have, shortest first.

    All products over tokens and over texts then have one shape, and attention is one product a text (in_groups).
    """
    most = max(tokens // 4, 1)
    order = which[np.argsort(cut[which], kind="stable")]
    order = order[cut[order] > 0]
    start = 0
    while start < len(order):
        ends = np.cumsum(cut[order[start : start + most]])
        chosen = order[start : start + max(int(np.searchsorted(ends, tokens, side="right")), 1)]
        start += len(chosen)
        rest = max(tokens - int(cut[chosen].sum()), 0)
        filling = [np.full(min(piece, rest - done), rows[chosen[0]][0]) for done in range(0, rest, piece)]
        empty = [rows[chosen[0]][:0]] * (most + -(-tokens // piece) - len(chosen) - len(filling))
        yield chosen, [*(rows[i] for i in chosen), *filling, *empty]


def _equal_lengths(
    rows: Sequence[np.ndarray], cut: np.ndarray, which: np.ndarray, tokens: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Calls of texts of one length, filled up with copies to the number that goes with that length.

    For a GPU, whose libraries choose the kernel of a batched product by the size of the batch too.
    """
    for length in np.unique(cut[which][cut[which] > 0]).tolist():
        size = max(tokens // length, 1)
        size -= size % _MULTIPLE if size > _MULTIPLE else 0
        found = which[cut[which] == length]
        for start in range(0, len(found), size):
            chosen = found[start : start + size]
            yield chosen, [rows[i] for i in chosen] + [rows[chosen[0]]] * (size - len(chosen))


def _any_lengths(
    rows: Sequence[np.ndarray], which: np.ndarray, tokens: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Calls of about ``tokens`` tokens, shortest texts first."""
    lengths = np.array([len(rows[i]) for i in which], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    call = np.cumsum(lengths[order] + 1) // tokens
    for part in np.split(order, np.flatnonzero(np.diff(call)) + 1) if len(order) else ():
        yield which[part], [rows[which[i]] for i in part]
