"""What a larger bundle thinks of a batch's similarities, as a second loss for a smaller one.

For each row the Kullback-Leibler divergence of the student's softmax over the batch's columns from the teacher's, both at
the training's temperature, as a query and as a title (Hinton et al. 2015; over in-batch similarities as in RocketQAv2, Ren
et al. 2021). Unlike the clicks, the teacher says of every column how near it is, so nothing is masked. Rows are shared out
over ranks as in :mod:`model.loss`, by which value and gradient are those of one process.
"""

# B rows of this rank, G rows of all ranks, D embedding of the student, E of the teacher

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from etl.dataset import Manifest
from etl.errors import InputError
from etl.tokenizer import TokenTable, tokenizer_hash
from model.bundle import load_bundle
from model.compact import compact
from model.encoder import Encoder
from model.loss import Contrast
from model.packing import PackedTexts
from model.ranks import Ranks, gather


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
    def vectors(self, texts: PackedTexts) -> torch.Tensor:
        """[N, E] unit vectors of packed texts."""
        device = next(self.encoder.parameters()).device
        return self.encoder(texts.to(device))


def distilled(
    found: Contrast,
    query_BD: torch.Tensor,
    title_BD: torch.Tensor,
    teacher: Teacher,
    texts: PackedTexts,
    tau: torch.Tensor,
    ranks: Ranks,
) -> Contrast:
    """``found`` with the teacher's loss added to it; ``texts`` are the batch's, queries first, then titles."""
    if query_BD.dtype in (torch.bfloat16, torch.float16):
        query_BD, title_BD = query_BD.float(), title_BD.float()
    query_BE, title_BE = teacher.vectors(texts)[: 2 * len(query_BD)].to(query_BD.dtype).split(len(query_BD))
    losses_B = torch.zeros_like(query_BD[:, 0])
    for (x_BD, y_BD), (x_BE, y_BE) in (
        ((query_BD, title_BD), (query_BE, title_BE)),
        ((title_BD, query_BD), (title_BE, query_BE)),
    ):
        learnt_BG = (x_BD @ gather(y_BD, ranks).T / tau).log_softmax(dim=1)
        wanted_BG = (x_BE @ gather(y_BE, ranks).T / tau.detach()).log_softmax(dim=1)
        losses_B = losses_B + F.kl_div(learnt_BG, wanted_BG, reduction="none", log_target=True).sum(dim=1) / 2
    return found._replace(loss=found.loss + teacher.weight * losses_B.mean())
