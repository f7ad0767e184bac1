"""The trainer of sentence-transformers, as a process that takes its steps when it is asked to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.speed.pacing import Paced
from benchmarks.speed.peers import THEIRS, require_peers
from benchmarks.speed.training_data import WORDPIECE
from model.presets import PRESETS

LONGEST = 100
"""Tokens."""


def theirs(directory: Path, **changes: Any) -> Paced:
    """sentence-transformers' trainer on what :func:`benchmarks.speed.training_data.write_for_others` wrote.

    Raises:
        InputError: its environment is not there.
    """
    require_peers()
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
