"""Bundles for tests that need vectors, not quality, or no more than that one is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from etl.text import Normaliser, normalise
from etl.tokenizer import WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.warehouse import Warehouse
from model.bundle import CHAMPION, FORMAT, set_alias, write_bundle
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


def bare_bundle(root: Path, name: str, form: int = FORMAT, encoder: Any = None, **settings: Any) -> None:
    """Of a bundle no more than what is looked at to say whether training is due."""
    directory = root / "bundles" / name
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"format": form}))
    (directory / "encoder.json").write_text(json.dumps(encoder or {}))
    normaliser = Normaliser(simplified=settings.get("simplified_chinese", False)).hash
    WordHashTokenizer(TokenizerSpec(**{"normaliser": normaliser} | settings)).save(directory)
