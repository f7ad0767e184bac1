"""What is compared with and lives in an environment of its own, `make benchmarks-setup`: where it is, and its trainer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.speed.pacing import Paced
from benchmarks.speed.training_data import WORDPIECE
from etl.errors import InputError
from model.presets import PRESETS

PEERS = Path(".venv-benchmarks")
"""In the checkout."""
THEIRS = PEERS / "bin" / "python"
LONGEST = 100
"""Tokens."""


def theirs(directory: Path, **changes: Any) -> Paced:
    """sentence-transformers' trainer on what :func:`benchmarks.speed.training_data.write_for_others` wrote.

    Raises:
        InputError: its environment is not there.
    """
    if not THEIRS.is_file():
        raise InputError(f"{THEIRS} is not there: run `make benchmarks-setup`, and this from the root of the checkout")
    config, tau = PRESETS["published"].encoder, PRESETS["published"].tau
    bert = {
        "vocab_size": WORDPIECE.rows,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn,
        "max_position_embeddings": LONGEST,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }
    task = {
        "directory": str(directory),
        "model": "bert",
        "loss": "plain",
        "bert": bert,
        "dim": PRESETS["bag"].encoder.dim,
        "lr": 2e-4,
        "warmup": 0.05,
        "tau": tau,
        "bf16": False,
        "longest": LONGEST,
        "mini_batch": 32,
        "device": "cpu",
    }
    worker = Path(__file__).with_name("sentence_transformers_worker.py")
    return Paced([str(THEIRS), str(worker)], task | changes, os.environ)
