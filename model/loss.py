"""Symmetric InfoNCE (van den Oord et al. 2018) over the negatives of all ranks, with the gradient of one process.

Let L = sum_i w_i l_i / sum_i w_i be the loss of one process on the joined batch, l_i the mean of row i's losses as a query
and as a title. Rank r computes, against all columns, only its own rows: L_r = W sum_{i in r} w_i l_i / sum_i w_i for W
ranks.

* Value: mean_r L_r = L.
* Gradient: let e_s be the embeddings that rank s computed and J_s their Jacobian. The gather's backward pass hands rank s
  the sum over all ranks, sum_r dL_r/de_s; so rank s's parameter gradient is g_s = J_s^T sum_r dL_r/de_s, and what
  DeepSpeed makes of it, mean_s g_s = 1/W sum_s J_s^T sum_r dL_r/de_s = sum_s J_s^T dL/de_s, is dL/dtheta.

Without autograd through the gather the direction is wrong (25% relative error on two ranks), and Adam hides it.

With s_ij the logit of row i and column j and N_i = log sum_j exp s_ij over the negatives of i, the cross entropy of a
positive p against them is log(1 + exp(N_i - s_ip)). So positives of a row never stand in each other's denominators, and a
row with several has the mean of theirs (decoupled multi-positives: Khosla et al. 2020, "Supervised contrastive learning",
L_out; Yeh et al. 2022, "Decoupled contrastive learning").

With Matryoshka dimensions l_i is the mean of this over the prefixes of the vectors and the whole; they are cut after the
gather, so nothing of the above changes.
"""

# B rows of this rank, G rows of all ranks, C columns (G, and hard negatives), D embedding

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from etl.errors import InputError
from model.known import KnownPairs
from model.matches import Matches, equal_ids
from model.matryoshka import prefix
from model.ranks import Ranks, gather
from model.tiled_cross_entropy import Excluded, Tile, held_cross_entropy, tiled_cross_entropy

NO_QUERY = np.iinfo(np.int64).max
"""Query group of a hard negative: it answers none. That a query's hash is this very number is one in 10^19."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What the loss knows of the rows of a batch, beside their embeddings."""

    query_group: np.ndarray
    item_group: np.ndarray
    weight: np.ndarray
    query_logp: np.ndarray
    item_logp: np.ndarray

    def __len__(self) -> int:
        return len(self.query_group)


NO_ITEM = np.iinfo(np.int64).max
"""Item group of a hard negative that is none: ranks bring equally many, and not every pair has one."""


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """Titles that were mined: further columns for the queries of all ranks.

    They are not corrected for how often a batch shows them: nobody drew them from the log.
    """

    titles: torch.Tensor
    """[H, D] unit vectors of this rank's."""
    item_group: np.ndarray
    """[H]; NO_ITEM is no negative of anybody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Which contrastive loss."""

    logq: float = 0.0
    """Share of the log-sampling-probability taken off each column's logit (Yi et al. 2019); 0 is off."""
    multi_positives: bool = False
    """Whether rows of the same query or the same item, on any rank, are positives; else they are only no negatives."""
    masks: bool = True
    """Whether rows of the same query, of the same item and pairs known to be clicked are no negatives. Without, only a
    row's own column is none: as in most public code, and here to measure what the masks are worth."""
    margin: float | None = None
    """A column whose cosine exceeds that of the row's own by more than this is taken for a false negative."""
    matryoshka: tuple[int, ...] = ()
    """Numbers of first coordinates that count as vectors of their own, beside the whole (:mod:`model.matryoshka`)."""
    tile: Tile = field(default_factory=Tile)

    def __post_init__(self) -> None:
        if self.multi_positives and not self.masks:
            raise InputError("masks are off, but with multi_positives the other positives of a row must be no negatives")


class Contrast(NamedTuple):
    """The loss, what it left out, and what it is of."""

    loss: torch.Tensor
    """L_r of the module's docstring, a scalar."""
    false_negatives: float
    """Share of the columns, beside each row's own, that are no negatives of this rank's rows (whole vectors)."""
    queries: torch.Tensor
    """[B, D] of this rank, detached."""
    titles: torch.Tensor
    """[B, D] of this rank, detached."""
    tau: float


def contrastive_loss(
    query_BD: torch.Tensor,
    title_BD: torch.Tensor,
    rows: Rows,
    *,
    tau: float | torch.Tensor,
    ranks: Ranks,
    known: KnownPairs | None = None,
    config: LossConfig = LossConfig(),
    hard: HardNegatives | None = None,
) -> Contrast:
    """Unit vectors of this rank's rows -> their share of the loss.

    Args:
        query_BD: Queries.
        title_BD: Titles; row i belongs to query i.
        rows: Their ids and weights.
        tau: Temperature; a tensor [1] if it is learned.
        ranks: Who takes part; all bring the same number of rows and of hard negatives.
        known: Clicked pairs, which are no negatives.
        config: Which loss.
        hard: Further negatives of the queries.
    """
    if query_BD.dtype in (torch.bfloat16, torch.float16):
        query_BD, title_BD = query_BD.float(), title_BD.float()
    query_GD, title_GD = gather(query_BD, ranks), gather(title_BD, ranks)
    all_rows = gather_rows(rows, ranks, query_BD.device)
    titles = _Columns(title_GD, all_rows.query_group, all_rows.item_group, all_rows.item_logp)
    if hard is not None:
        titles = titles.with_hard(hard, ranks)
    queries = _Columns(query_GD, all_rows.query_group, all_rows.item_group, all_rows.query_logp)
    nothing = np.zeros(0, dtype=np.int64)
    known = known or KnownPairs(nothing, nothing)
    clicked = known.matches(rows.query_group, titles.item_group)
    # One rank's titles as rows and queries as columns are its similarity the other way round.
    alone = ranks.world == 1 and hard is None
    asked = (clicked if alone else known.matches(all_rows.query_group, rows.item_group)).transposed(len(all_rows))
    start = ranks.rank * len(rows)
    as_query = _Side.of(rows, titles, clicked, start, config)
    as_title = _Side.of(rows, queries, asked, start, config, as_query.mask if alone else None)
    scale = 1 / torch.as_tensor(tau, dtype=query_BD.dtype, device=query_BD.device).reshape(1)
    sizes, each_B = (*config.matryoshka, query_BD.shape[1]), []
    for dim in sizes:
        of_queries, left_out, logits = as_query.losses(prefix(query_BD, dim), scale, dim)
        of_titles, left_out_too, _ = as_title.losses(prefix(title_BD, dim), scale, dim, logits if alone else None)
        each_B += [of_queries, of_titles]
    weight_B = torch.from_numpy(rows.weight).to(query_BD)
    # W / sum over all ranks, so that DeepSpeed's mean over ranks is the weighted mean over all rows.
    loss = (torch.stack(each_B).mean(dim=0) * weight_B).sum() * (ranks.world / float(all_rows.weight.sum()))
    columns = len(rows) * (len(titles.item_group) + len(queries.item_group) - 2)
    left_out_share = (float(left_out + left_out_too) - 2 * len(rows)) / max(columns, 1)
    return Contrast(loss, left_out_share, query_BD.detach(), title_BD.detach(), float(1 / scale.detach()))


def gather_rows(rows: Rows, ranks: Ranks, device: torch.device) -> Rows:
    """Ids and weights of the rows of all ranks, on the host."""
    if ranks.world == 1:
        return rows
    ids = torch.from_numpy(np.stack([rows.query_group, rows.item_group], axis=1)).to(device)
    values = torch.from_numpy(np.stack([rows.weight, rows.query_logp, rows.item_logp], axis=1)).to(device)
    columns = (*gather(ids, ranks).cpu().numpy().T, *gather(values, ranks).cpu().numpy().T)
    return Rows(*columns)


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the rows of one side are compared with."""

    vectors: torch.Tensor
    """[C, D]."""
    query_group: np.ndarray
    item_group: np.ndarray
    logp: np.ndarray

    def with_hard(self, hard: HardNegatives, ranks: Ranks) -> _Columns:
        """These columns, then the hard negatives of all ranks."""
        device = self.vectors.device
        vectors = gather(hard.titles.to(self.vectors.dtype), ranks)
        items = gather(torch.from_numpy(hard.item_group).to(device), ranks).cpu().numpy()
        return _Columns(
            torch.cat([self.vectors, vectors]),
            np.concatenate([self.query_group, np.full(len(items), NO_QUERY)]),
            np.concatenate([self.item_group, items]),
            np.concatenate([self.logp, np.zeros(len(items))]),
        )


@dataclass(frozen=True, slots=True)
class _Side:
    """One direction: the rows of this rank, as queries or as titles, against their columns."""

    columns: _Columns
    bias: torch.Tensor
    """[C]: added to each column's logit."""
    positives: Matches
    excluded: Excluded
    mask: torch.Tensor | None
    """[B, C] of ``excluded``, where a tile holds it."""
    start: int
    """Column of row 0's own; the others' follow."""
    config: LossConfig

    @classmethod
    def of(
        cls,
        rows: Rows,
        columns: _Columns,
        known: Matches,
        start: int,
        config: LossConfig,
        other_way: torch.Tensor | None = None,
    ) -> _Side:
        """Of those rows; ``other_way`` is the mask [C, B] of the same pairs, if there is one."""
        device, own, count = columns.vectors.device, np.arange(len(rows)), len(columns.vectors)
        bias = torch.zeros(count) if not config.logq else torch.from_numpy(-config.logq * columns.logp)
        bias[torch.from_numpy(columns.item_group == NO_ITEM)] = -torch.inf
        positives = Matches(own, start + own)
        if config.masks:
            excluded = Excluded(
                row_query=torch.from_numpy(rows.query_group).to(device),
                row_item=torch.from_numpy(rows.item_group).to(device),
                column_query=torch.from_numpy(columns.query_group).to(device),
                column_item=torch.from_numpy(columns.item_group).to(device),
                known=known,
            )
        else:
            excluded = Excluded.only(positives, count, device)
        if config.multi_positives:
            positives = equal_ids(rows.query_group, columns.query_group)
            positives = positives.union(equal_ids(rows.item_group, columns.item_group), count)
        mask = None
        if config.tile.holds(len(rows), count):
            mask = excluded.whole_mask() if other_way is None else other_way.T
        return cls(columns, bias.to(columns.vectors), positives, excluded, mask, start, config)

    def losses(
        self, x_BD: torch.Tensor, scale: torch.Tensor, dim: int, other_way: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Losses [B] by the first ``dim`` coordinates, how many columns are no negatives, and the logits [B, C] if held.

        Args:
            x_BD: Rows, their first ``dim`` coordinates.
            scale: [1], the inverse of the temperature.
            dim: Coordinates.
            other_way: Logits [C, B] of the same pairs, if they are held.
        """
        y_CD, limit_B = prefix(self.columns.vectors, dim), None
        if self.config.margin is not None:
            limit_B = (x_BD * y_CD[self.start : self.start + len(x_BD)]).sum(dim=1).detach() + self.config.margin
        if self.mask is None:
            excluded = replace(self.excluded, limit=limit_B)
            losses = tiled_cross_entropy(x_BD, y_CD, scale, self.bias, self.positives, excluded, self.config.tile)
            return losses, excluded.count, None
        logits_BC = (x_BD * scale) @ y_CD.T if other_way is None else other_way.T
        mask_BC = self.mask if limit_B is None else self.mask | (logits_BC > limit_B[:, None] * scale)
        return held_cross_entropy(logits_BC, self.bias, self.positives, mask_BC), mask_BC.sum(), logits_BC
