"""A real bundle for tests that need vectors, not quality."""

from __future__ import annotations

from pathlib import Path

import torch

from etl.text import normalise
from etl.tokenizer import WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.warehouse import Warehouse
from model.bundle import CHAMPION, set_alias, write_bundle
from model.encoder import Encoder
from model.presets import EncoderConfig
from tests.rows import DS


def promote_untrained_bundle(root: Path) -> str:
    """A bundle of random word vectors becomes the champion; returns its id."""
    torch.manual_seed(1)
    tokenizer = WordHashTokenizer(TokenizerSpec(rows=2**12, normaliser=normalise.hash))
    encoder = Encoder(EncoderConfig(rows=2**12, dim=32))
    path = write_bundle(root / "bundles", encoder, tokenizer, ds=DS, metrics={"heldout": {}}, lineage={})
    set_alias(Warehouse(root), CHAMPION, path)
    return path.name
