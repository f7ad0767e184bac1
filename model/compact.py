"""Train only the table rows that a dataset can reach: the others' gradient is zero, and so is what Adam makes of it.

Home Depot's words reach 48 thousand of 131 thousand rows; gradient, moments and all-reduce shrink with them.
"""

# R rows of the full table, C rows that are reached

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from etl.tokenizer import TokenTable
from model.encoder import Encoder


def compact(full: Encoder, table: TokenTable) -> tuple[Encoder, TokenTable, np.ndarray]:
    """The encoder over the rows that ``table`` uses, the table in their numbering, and those rows [C]."""
    used, features = np.unique(table.features, return_inverse=True)
    small = Encoder(replace(full.config, rows=max(len(used), 1)))
    index = torch.from_numpy(used)
    state = full.state_dict()
    by_row = row_parameters(full)
    small.load_state_dict({name: value[index] if name in by_row else value for name, value in state.items()})
    return small, TokenTable(ids=table.ids, offsets=table.offsets, features=features.reshape(-1).astype(np.int64)), used


@torch.no_grad()
def expand(full: Encoder, trained: Mapping[str, torch.Tensor], used: np.ndarray | None) -> Encoder:
    """``full`` with the state ``trained`` of the encoder over its rows ``used``, or of itself if that is None.

    Rows out of the training's reach stay as they were drawn.
    """
    target, by_row = full.state_dict(), row_parameters(full)
    for name, value in trained.items():
        if used is not None and name in by_row:
            target[name][torch.from_numpy(used)] = value.to(target[name])
        else:
            target[name].copy_(value)
    return full


def row_parameters(encoder: Encoder) -> set[str]:
    """Names of the parameters with one entry per row of the table."""
    names = ("word_embeddings.weight", "feature_weights", "token_weights")
    return {name for name, _ in encoder.named_parameters() if name.removeprefix("embeddings.") in names}
