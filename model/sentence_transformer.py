"""Any bundle as a SentenceTransformer, in a process that has this package: word-hashed ones have no other way.

sentence-transformers is imported by the call; no job needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from model.bundle import Bundle, load_bundle
from model.packing import PackedTexts, offsets_of, pack, tokenised

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def as_sentence_transformer(path: Path, device: str = "cpu") -> SentenceTransformer:
    """The verified bundle at ``path`` as a model of sentence-transformers with one module, ours.

    ``encode_query`` cuts texts at the queries' length limit, all else at the titles'.

    Raises:
        InputError: the bundle is damaged, or of another version of this package.
    """
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(modules=[BundleModule(load_bundle(path, device))], device=device)


class BundleModule(nn.Module):
    """Tokenizer and encoder of a bundle behind the interface of sentence-transformers' modules."""

    forward_kwargs = frozenset({"task"})
    """Arguments of ``encode`` that sentence-transformers hands on."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.bundle, self.encoder = bundle, bundle.encoder

    @property
    def max_seq_length(self) -> int:
        return self.bundle.tokenizer.spec.max_title_tokens

    def get_embedding_dimension(self) -> int:
        return self.bundle.dim

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, task: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """N raw texts -> ``texts``, packed."""
        raw = [(prompt or "") + text for text in inputs]
        rows, table = tokenised(self.bundle.tokenizer, raw, "query" if task == "query" else "title")
        return {"texts": pack(np.concatenate(rows), offsets_of(rows), table)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds ``sentence_embedding``, [N, D] unit vectors."""
        texts: PackedTexts = features["texts"]
        device = next(self.encoder.parameters()).device
        return features | {"sentence_embedding": self.encoder(texts.to(device))}
