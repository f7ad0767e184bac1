"""What a larger bundle thinks of a batch's similarities, as a second loss for a smaller one.

For each row the Kullback-Leibler divergence of the student's softmax over the batch's columns from the teacher's, both at
the training's temperature, as a query and as a title (Hinton et al. 2015; over in-batch similarities as in RocketQAv2, Ren
et al. 2021). Unlike the clicks, the teacher says of every column how near it is, so nothing is masked. It sees the texts as
the student does, with what dropout of words and features leaves of them. Rows are shared out over ranks as in
:mod:`model.loss`, by which value and gradient are those of one process.
"""

# B rows of this rank, G rows of all ranks, D embedding of the student, E of the teacher

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from etl.dataset import Manifest
from etl.errors import InputError
from etl.tokenizer import TokenTable, tokenizer_hash
from model.bundle import load_bundle
from model.compact import compact
from model.encoder import Encoder
from model.loss import Contrast
from model.packing import PackedTexts
from model.ranks import Ranks, gather

HELD = 2**23
"""Similarities that are held at once, of the student and of the teacher each: 34 MB in fp32."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained encoder, over the rows that the student is trained on."""

    encoder: Encoder
    bundle_id: str
    weight: float

    @classmethod
    def of(cls, directory: str, manifest: Manifest, weight: float, table: TokenTable | None, device: str) -> Teacher | None:
        """The bundle under ``directory``; None if that is empty.

        Raises:
            InputError: it is no bundle, is damaged, or has another tokenizer than the dataset.
        """
        if not directory:
            return None
        bundle = load_bundle(Path(directory).expanduser())
        if tokenizer_hash(bundle.path) != manifest.tokenizer:
            raise InputError(
                f"distil_from is {directory}, whose tokenizer is not that of the dataset of {manifest.ds} (expected the "
                f"same): build the dataset with `labeller dataset --tokenizer-from {directory}`"
            )
        encoder = bundle.encoder if table is None else compact(bundle.encoder, table)[0]
        return cls(encoder.to(device).eval().requires_grad_(False), bundle.id, weight)

    @torch.no_grad()
    def vectors(self, texts: PackedTexts, rows: int, at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors [rows, E] of the queries and of the titles of a batch; hard negatives behind them are left out.

        Args:
            texts: Packed, ``rows`` queries first, then as many titles.
            rows: How many.
            at_once: Texts that are encoded together; 0: all.
        """
        device = next(self.encoder.parameters()).device
        pairs = texts.parts(2 * rows)[0] if len(texts) > 2 * rows else texts
        parts = pairs.parts(at_once) if at_once else [pairs]
        return torch.cat([self.encoder(part.to(device)) for part in parts]).split(rows)


def distilled(
    found: Contrast,
    query_BD: torch.Tensor,
    title_BD: torch.Tensor,
    teacher: Teacher,
    texts: PackedTexts,
    tau: torch.Tensor,
    ranks: Ranks,
    at_once: int = 0,
) -> Contrast:
    """``found`` with the teacher's loss added to it.

    Similarities are computed for some rows at a time, and again in the backward pass: no more than ``HELD`` are ever there.

    Args:
        found: Loss of the clicks.
        query_BD: The student's vectors of this rank's queries.
        title_BD: Of its titles.
        teacher: Who says what they should be near to.
        texts: The batch's, queries first, then titles.
        tau: [1], of both softmaxes; it is not learned from the teacher.
        ranks: Who takes part.
        at_once: Texts that the teacher encodes together; 0: all.
    """
    if query_BD.dtype in (torch.bfloat16, torch.float16):
        query_BD, title_BD = query_BD.float(), title_BD.float()
    query_BE, title_BE = (x.to(query_BD.dtype) for x in teacher.vectors(texts, len(query_BD), at_once))
    total = query_BD.new_zeros(())
    for (x_BD, y_BD), (x_BE, y_BE) in (
        ((query_BD, title_BD), (query_BE, title_BE)),
        ((title_BD, query_BD), (title_BE, query_BE)),
    ):
        y_GD, y_GE = gather(y_BD, ranks), gather(y_BE, ranks)
        rows = max(1, HELD // len(y_GD))
        for x_RD, x_RE in zip(x_BD.split(rows), x_BE.split(rows), strict=True):
            total = total + checkpoint(_divergence, x_RD, y_GD, x_RE, y_GE, tau.detach(), use_reentrant=False)
    return found._replace(loss=found.loss + teacher.weight * total / (2 * len(query_BD)))


def _divergence(
    x_RD: torch.Tensor, y_GD: torch.Tensor, x_RE: torch.Tensor, y_GE: torch.Tensor, tau: torch.Tensor
) -> torch.Tensor:
    """Sum over rows of the divergence of the student's softmax from the teacher's."""
    learnt_RG, wanted_RG = ((x @ y.T / tau).log_softmax(dim=1) for x, y in ((x_RD, y_GD), (x_RE, y_GE)))
    return F.kl_div(learnt_RG, wanted_RG, reduction="sum", log_target=True)
