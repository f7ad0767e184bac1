"""How an encoder lies in a directory: weights, ``encoder.json`` and, for a BERT, all that sentence-transformers reads.

See docs/decisions/bundle.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from etl.durable import read_json, write_json
from etl.tokenizer_spec import TokenizerSpec
from model.bert_config import bert_config
from model.bundle_files import CONFIG_FILE, WEIGHTS_FILE
from model.encoder import Encoder
from model.presets import EncoderConfig

BERT_CONFIG_FILE = "config.json"
HEAD, HEAD_FILE = "head.weight", "2_Dense/model.safetensors"


def opens_plainly(config: EncoderConfig, spec: TokenizerSpec) -> bool:
    """Whether sentence-transformers opens the directory with nothing of ours installed, to the same vectors."""
    return config.is_bert and not spec.simplified_chinese


def save_encoder(directory: Path, encoder: Encoder, spec: TokenizerSpec) -> None:
    """Lay ``encoder`` down, whose tokenizer has ``spec``, as float32."""
    weights = {name: value.detach().cpu().float().contiguous() for name, value in encoder.state_dict().items()}
    if encoder.config.head:
        (directory / HEAD_FILE).parent.mkdir()
        _save({"linear.weight": weights.pop(HEAD)}, directory / HEAD_FILE)
    _save(weights, directory / WEIGHTS_FILE, metadata={"format": "pt"})  # transformers asks for the word
    write_json(directory / CONFIG_FILE, encoder.config.to_json())
    if opens_plainly(encoder.config, spec):
        # Of another directory sentence-transformers finds nothing to open, rather than something like it.
        write_json(directory / BERT_CONFIG_FILE, bert_config(encoder.config))
        for name, content in _module_files(encoder.config, spec.max_title_tokens).items():
            (directory / name).parent.mkdir(exist_ok=True)
            write_json(directory / name, content)


def load_encoder(directory: Path) -> Encoder:
    """What :func:`save_encoder` laid down, on the CPU."""
    with torch.device("meta"):  # drawing 33 million random weights to overwrite them took a second
        encoder = Encoder(EncoderConfig.from_json(read_json(directory / CONFIG_FILE)))
    encoder.load_state_dict(load_weights(directory, encoder.config), assign=True)
    return encoder


def load_weights(directory: Path, config: EncoderConfig) -> dict[str, torch.Tensor]:
    weights = load_file(directory / WEIGHTS_FILE)
    if config.head:
        weights[HEAD] = load_file(directory / HEAD_FILE)["linear.weight"]
    return weights


def _save(weights: dict[str, torch.Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """As safetensors, readable by whoever may read the directory."""
    save_file(weights, file, metadata=metadata)
    file.chmod(0o644)  # 0o600 otherwise, but executors may label as another user than the ranks trained


def _module_files(config: EncoderConfig, max_tokens: int) -> dict[str, Any]:
    """Files of sentence-transformers: Transformer, mean pooling, the head if there is one, unit length.

    The module names are those that every version since the first opens.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "3_Normalize")]
    files: dict[str, Any] = {
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "cosine"},
        "tokenizer_config.json": _tokenizer_settings(max_tokens),
        "1_Pooling/config.json": {"word_embedding_dimension": config.hidden, "pooling_mode_mean_tokens": True},
        "3_Normalize/config.json": {},  # an empty directory would not survive a copy to an object store
    }
    if config.head:
        modules.insert(2, ("Dense", "2_Dense"))
        sizes = {"in_features": config.hidden, "out_features": config.dim, "bias": False}
        files["2_Dense/config.json"] = sizes | {"activation_function": "torch.nn.modules.linear.Identity"}
    files["modules.json"] = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
        for n, (name, path) in enumerate(modules)
    ]
    return files


def _tokenizer_settings(max_tokens: int) -> dict[str, Any]:
    """``tokenizer_config.json``: take ``tokenizer.json`` as it is; BertTokenizer would put its own normaliser in."""
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_tokens}
    return {**settings, "split_special_tokens": True, "clean_up_tokenization_spaces": False, **special}
