"""Cross entropies of rows against many columns, tile by tile: no more than one tile of the similarity is ever held.

The backward pass computes each tile again (as Dao et al. 2022, "FlashAttention", do for softmax). So memory is linear in
the number of columns: the vectors, their gradients, and a tile. Logits of no more than a tile may as well be held, and
their product be shared by both directions: :func:`held_cross_entropy`.
"""

# B rows, C columns, P positives, D embedding; R x K the rows and columns of a tile

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from model.matches import Matches

PART = 16_384
"""Positives whose vectors are held at once: 34 MB at 512 dimensions."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Most rows and columns of the logits that are held at once; 1,024 x 8,192 are 34 MB in fp32."""

    rows: int = 1024
    columns: int = 8192

    def holds(self, rows: int, columns: int) -> bool:
        """Whether logits of that shape are no more than a tile."""
        return rows * columns <= self.rows * self.columns


@dataclass(slots=True)
class Excluded:
    """Which columns are no negatives of a row: same query, same item, a known pair, or one too alike."""

    row_query: torch.Tensor
    """[B] int64: query groups."""
    row_item: torch.Tensor
    """[B] int64: item groups."""
    column_query: torch.Tensor
    """[C] int64."""
    column_item: torch.Tensor
    """[C] int64."""
    known: Matches
    """Rows and columns that are a pair known to have been clicked."""
    limit: torch.Tensor | None = None
    """[B]: cosine above which a column is taken for a false negative; none: however alike."""
    count: torch.Tensor = field(init=False)
    """How many (row, column) the last forward pass left out."""
    _starts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._starts = np.searchsorted(self.known.rows, np.arange(len(self.row_query) + 1))
        self.count = torch.zeros((), dtype=torch.int64, device=self.row_query.device)

    @classmethod
    def only(cls, own: Matches, columns: int, device: torch.device) -> Excluded:
        """Of B rows and so many columns: each row's own of ``own`` [B], and no other."""
        rows, all_columns = torch.from_numpy(own.columns).to(device), torch.arange(columns, device=device)
        nothing = np.zeros(0, dtype=np.int64)
        return cls(rows, rows, all_columns, all_columns, Matches(nothing, nothing))

    def whole_mask(self) -> torch.Tensor:
        """Mask [B, C]."""
        return self.mask(slice(0, len(self.row_query)), slice(0, len(self.column_query)))

    def mask(self, rows: slice, columns: slice) -> torch.Tensor:
        """Mask [R, K], bool: true where the ids say that a column is no negative."""
        found = self.row_query[rows, None] == self.column_query[None, columns]
        found |= self.row_item[rows, None] == self.column_item[None, columns]
        own = slice(self._starts[rows.start], self._starts[rows.stop])
        down, across = self.known.rows[own] - rows.start, self.known.columns[own] - columns.start
        inside = (across >= 0) & (across < found.shape[1])
        found[torch.from_numpy(down[inside]), torch.from_numpy(across[inside])] = True
        return found


def tiled_cross_entropy(
    x_BD: torch.Tensor,
    y_CD: torch.Tensor,
    scale: torch.Tensor,
    bias_C: torch.Tensor,
    positives: Matches,
    excluded: Excluded,
    tile: Tile,
) -> torch.Tensor:
    """[B]: the mean over the positives p of row i of log(1 + exp(N_i - s_ip)), N_i the log-sum-exp over its negatives.

    s_ij = scale x_i . y_j + bias_j. A row without negatives has the loss 0. Differentiable in ``x_BD``, ``y_CD``, ``scale``.

    Args:
        x_BD: Rows.
        y_CD: Columns.
        scale: [1], the inverse of the temperature.
        bias_C: Added to each column's logit.
        positives: At least one for each row.
        excluded: Which columns are no negatives; every positive must be among them.
        tile: How much of the logits is held.
    """
    return _TiledCrossEntropy.apply(x_BD, y_CD, scale, bias_C, positives, excluded, tile)


def held_cross_entropy(
    logits_BC: torch.Tensor, bias_C: torch.Tensor, positives: Matches, mask_BC: torch.Tensor
) -> torch.Tensor:
    """[B]: as :func:`tiled_cross_entropy`, of logits before the bias and the mask of all that is no negative.

    Both may be the transpose of those of the other direction. Differentiable in ``logits_BC``.
    """
    return _HeldCrossEntropy.apply(logits_BC, bias_C, positives, mask_BC)


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BD: torch.Tensor,
        y_CD: torch.Tensor,
        scale: torch.Tensor,
        bias_C: torch.Tensor,
        positives: Matches,
        excluded: Excluded,
        tile: Tile,
    ) -> torch.Tensor:
        negatives_B = x_BD.new_full((len(x_BD),), -torch.inf)
        excluded.count.zero_()
        tiles = list(_tiles(len(x_BD), len(y_CD), tile))
        for rows, columns in tiles:
            logits, mask = _logits(x_BD[rows] * scale, y_CD[columns], scale, bias_C[columns], excluded, rows, columns)
            excluded.count += mask.sum()
            negatives_B[rows] = torch.logaddexp(negatives_B[rows], torch.logsumexp(logits, dim=1))
        row_P, column_P = _on(positives, x_BD.device)
        logits_P = bias_C[column_P]
        for part in _parts(len(row_P)):
            logits_P[part] += (x_BD[row_P[part]] * y_CD[column_P[part]]).sum(dim=1) * scale
        losses_B, slope_P = _losses(logits_P, negatives_B, row_P)
        ctx.save_for_backward(x_BD, y_CD, scale, bias_C, negatives_B, row_P, column_P, slope_P)
        ctx.excluded, ctx.tiles = excluded, tiles
        return losses_B

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_BD, y_CD, scale, bias_C, negatives_B, row_P, column_P, slope_P = ctx.saved_tensors
        slope_P = slope_P * grads[0][row_P]
        slope_B = x_BD.new_zeros(len(x_BD)).index_add_(0, row_P, slope_P)
        x_grad, y_grad = torch.zeros_like(x_BD), torch.zeros_like(y_CD, memory_format=torch.contiguous_format)
        negatives_B = negatives_B.masked_fill(negatives_B == -torch.inf, 0.0)  # e^(-inf - 0) is 0, as it should be
        for rows, columns in ctx.tiles:
            scaled, y = x_BD[rows] * scale, y_CD[columns]
            logits, _ = _logits(scaled, y, scale, bias_C[columns], ctx.excluded, rows, columns)
            share = (logits - negatives_B[rows, None]).exp_().mul_(slope_B[rows, None])
            x_grad[rows].addmm_(share, y)
            y_grad[columns].addmm_(share.T, scaled)
        for part in _parts(len(row_P)):
            x_grad.index_add_(0, row_P[part], y_CD[column_P[part]] * -slope_P[part, None])
            y_grad.index_add_(0, column_P[part], x_BD[row_P[part]] * (-slope_P[part] * scale)[:, None])
        scale_grad = (x_BD * x_grad).sum().reshape(1) if ctx.needs_input_grad[2] else None
        return x_grad.mul_(scale), y_grad, scale_grad, None, None, None, None


class _HeldCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_BC: torch.Tensor, bias_C: torch.Tensor, positives: Matches, mask_BC: torch.Tensor
    ) -> torch.Tensor:
        row_P, column_P = _on(positives, logits_BC.device)
        biased_BC = logits_BC + bias_C
        logits_P = biased_BC[row_P, column_P]
        biased_BC.masked_fill_(mask_BC, -torch.inf)
        peak_B = biased_BC.amax(dim=1)
        peak_B = peak_B.masked_fill_(peak_B == -torch.inf, 0.0)  # a row without negatives
        shares_BC = biased_BC.sub_(peak_B[:, None]).exp_()
        total_B = shares_BC.sum(dim=1)
        losses_B, slope_P = _losses(logits_P, total_B.log() + peak_B, row_P)
        ctx.save_for_backward(shares_BC, total_B, row_P, column_P, slope_P)
        return losses_B

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        shares_BC, total_B, row_P, column_P, slope_P = ctx.saved_tensors
        slope_P = slope_P * grads[0][row_P]
        slope_B = torch.zeros_like(total_B).index_add_(0, row_P, slope_P)
        logits_grad = shares_BC * (slope_B / total_B.masked_fill(total_B == 0, 1.0))[:, None]
        logits_grad[row_P, column_P] = -slope_P  # where its share is 0: a positive is no negative
        return logits_grad, None, None, None


def _parts(positives: int) -> Iterator[slice]:
    """Of one query's rows each is a positive of each: their vectors are never all there at once."""
    return (slice(start, start + PART) for start in range(0, positives, PART))


def _on(positives: Matches, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [P] and columns [P]."""
    return torch.from_numpy(positives.rows).to(device), torch.from_numpy(positives.columns).to(device)


def _losses(logits_P: torch.Tensor, negatives_B: torch.Tensor, row_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss [B] over each row's positives, and how much it rises with the negatives beside each of them [P]."""
    share_P = 1 / torch.bincount(row_P, minlength=len(negatives_B)).to(logits_P)[row_P]
    behind_P = negatives_B[row_P] - logits_P
    losses_P = F.softplus(behind_P, threshold=50.0) * share_P  # e^-50 is nothing in float64 too
    return torch.zeros_like(negatives_B).index_add_(0, row_P, losses_P), share_P * behind_P.sigmoid()


def _logits(
    scaled_RD: torch.Tensor,
    y_KD: torch.Tensor,
    scale: torch.Tensor,
    bias_K: torch.Tensor,
    excluded: Excluded,
    rows: slice,
    columns: slice,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[R, K] logits, -inf where a column is no negative, and that mask."""
    mask, logits = excluded.mask(rows, columns), scaled_RD @ y_KD.T
    if excluded.limit is not None:
        mask |= logits > excluded.limit[rows, None] * scale
    return logits.add_(bias_K).masked_fill_(mask, -torch.inf), mask


def _tiles(rows: int, columns: int, tile: Tile) -> Iterator[tuple[slice, slice]]:
    for top in range(0, rows, tile.rows):
        for left in range(0, columns, tile.columns):
            yield slice(top, min(top + tile.rows, rows)), slice(left, min(left + tile.columns, columns))
