"""Our encoder's sizes as Hugging Face's ``config.json`` of a BERT, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.errors import InputError
from model.presets import EncoderConfig

SIZES = {
    "vocab_size": "rows",
    "num_hidden_layers": "layers",
    "hidden_size": "hidden",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn",
    "max_position_embeddings": "positions",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
"""Their names and ours."""

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")

FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What our encoder has no choice in; all but the first may be left out, these are the defaults."""


def bert_config(config: EncoderConfig) -> dict[str, Any]:
    """``config.json`` of an encoder that is a BERT; [PAD] is row 0, its attention is masked."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    more = {"architectures": ["BertModel"], "pad_token_id": 0}
    return {**FIXED, **sizes, **more, "dtype": "float32"}


def encoder_config(raw: Mapping[str, Any], file: Path) -> EncoderConfig:
    """The encoder that has the sizes of a BERT's ``config.json``.

    Raises:
        InputError: it is no BERT, or one of a kind that our encoder is not; all reasons are listed.
    """
    if raw.get("model_type") != "bert":
        raise InputError(f"{file}: model_type is {raw.get('model_type')!r}, expected 'bert': choose a checkpoint of BERT")
    problems = [f"{key} is {raw[key]!r}, expected {value!r}" for key, value in FIXED.items() if raw.get(key, value) != value]
    needed = [theirs for theirs in SIZES if theirs not in ("layer_norm_eps", *DROPOUTS)]
    problems += [f"{key} is missing" for key in needed if key not in raw]
    if problems:
        raise InputError.of(problems, heading=f"{file} is of a BERT that this encoder cannot be:")
    sizes = {ours: raw[theirs] for theirs, ours in SIZES.items() if theirs in raw}
    return EncoderConfig(**sizes, dim=sizes["hidden"], tokens="wordpiece", bag=False, feature_weights=False)
