"""Start a training from the weights of a Hugging Face BERT checkpoint, or of a bundle."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from etl.bert_tokenizer import bert_tokenizer
from etl.durable import read_json
from etl.errors import InputError
from etl.tokenizer import load_tokenizer, tokenizer_hash
from etl.tokenizer_spec import SPEC_FILE
from etl.wordpiece import WordPieceTokenizer
from model.bert_config import encoder_config
from model.bundle import verify
from model.bundle_files import CONFIG_FILE, WEIGHTS_FILE
from model.bundle_layout import BERT_CONFIG_FILE, HEAD, load_weights
from model.encoder import Encoder
from model.presets import PRESETS, EncoderConfig

T = TypeVar("T")

PREFIX = "bert."
"""Of the names in a checkpoint that has more than the encoder."""

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""As checkpoints of 2018 call them, and bert-base-uncased to this day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """A directory of weights that was looked at, not loaded yet."""

    directory: Path
    config: EncoderConfig
    """Of the encoder that the weights fit."""
    ours: bool
    """Whether it is a bundle."""
    digest: str
    """Identity: SHA-256 of the weights, or the id of the bundle."""
    licence: str = ""
    """As the checkpoint's own card names it, or for a bundle that of what it started from; empty: it does not say."""

    @classmethod
    def read(cls, directory: Path) -> Pretrained:
        """Look at a directory.

        Raises:
            InputError: no such directory, no BERT and no bundle there, a damaged bundle, a checkpoint that is a pickle,
                tensors missing or of an unexpected shape; all problems of one kind are listed.
        """
        if not directory.is_dir():
            raise InputError(f"there is no directory {directory} to start from (init_from): check the path")
        if (directory / CONFIG_FILE).is_file():
            config = EncoderConfig.from_json(read_json(directory / CONFIG_FILE))
            manifest = verify(directory)
            licence = manifest["lineage"].get("init", {}).get("licence", "")
            return cls(directory=directory, config=config, ours=True, digest=manifest["id"], licence=licence)
        raw = read_json(directory / BERT_CONFIG_FILE, "is no checkpoint of BERT and no bundle")
        config = encoder_config(raw, directory / BERT_CONFIG_FILE)
        weights = directory / WEIGHTS_FILE
        if not weights.is_file():
            raise InputError(_without_weights(directory))
        _require_shapes(weights, config)
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(directory=directory, config=config, ours=False, digest=digest, licence=_licence(directory))

    def require_fit(self, encoder: EncoderConfig, dataset: Path, longest: int) -> None:
        """Refuse to train ``encoder`` on ``dataset``, whose longest text has ``longest`` tokens, from these weights.

        Raises:
            InputError: the dataset has another tokenizer, so that its ids mean something else here; its texts are too long;
                or the encoder is another than that of the weights (a head may come anew), all differences are listed.
        """
        self._require_tokenizer(dataset, longest)
        mine, wanted = self.config.to_json(), encoder.to_json()
        mine["matryoshka"] = wanted["matryoshka"]  # which changes no parameter
        if not self.config.bag and not self.config.head:
            mine["dim"] = wanted["dim"]
        problems = [f"{key} is {mine[key]!r}, wanted is {wanted[key]!r}" for key in wanted if mine[key] != wanted[key]]
        if problems:
            like = [name for name, preset in PRESETS.items() if _alike(preset.encoder, self.config)]
            preset = f"its preset ({' or '.join(like)})" if like else "its preset"
            heading = f"the encoder of {self.directory} is not the one to train; choose {preset} and leave dim out:"
            raise InputError.of(problems, heading=heading)

    def _require_tokenizer(self, dataset: Path, longest: int) -> None:
        cure = f"build the dataset with `labeller dataset --tokenizer-from {self.directory}`"
        theirs = load_tokenizer(dataset)
        if (self.directory / SPEC_FILE).is_file():
            same = tokenizer_hash(self.directory) == tokenizer_hash(dataset)
        else:
            same = isinstance(theirs, WordPieceTokenizer) and _pieces(self.directory, theirs) == theirs.tokenizer.to_str()
        if not same:
            raise InputError(f"{dataset} was not made with the tokenizer of {self.directory}: {cure}")
        if theirs.spec.rows > self.config.rows:
            raise InputError(
                f"{self.directory}: its tokenizer has {theirs.spec.rows} ids, its table {self.config.rows} rows: "
                "they do not belong together"
            )
        if longest > self.config.positions:
            raise InputError(
                f"{self.directory} takes {self.config.positions} tokens, the dataset's texts have up to {longest}: "
                f"{cure} --max-title-tokens {self.config.positions}"
            )

    @torch.no_grad()
    def load_into(self, encoder: Encoder) -> None:
        """Overwrite every parameter but a fresh head."""
        weights = (
            load_weights(self.directory, self.config) if self.ours else _named(load_file(self.directory / WEIGHTS_FILE))
        )
        for name, value in encoder.state_dict().items():
            if name != HEAD or self.config.head:
                value.copy_(weights[name])


def _licence(directory: Path) -> str:
    """What the head of a checkpoint's README.md, its card by Hugging Face's custom, names."""
    card = directory / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace").split("---")[1:2] if card.is_file() else []
    found = re.search(r"^license:\s*(\S+)\s*$", head[0], re.MULTILINE) if head else None
    return found[1] if found else ""


def _alike(preset: EncoderConfig, config: EncoderConfig) -> bool:
    """Whether an encoder may be of a preset, whatever its table's size and the lengths of its dataset's texts."""
    return replace(preset, rows=0, positions=0, dim=0, matryoshka=()) == replace(
        config, rows=0, positions=0, dim=0, matryoshka=()
    )


def _pieces(directory: Path, theirs: WordPieceTokenizer) -> str:
    return bert_tokenizer(directory, theirs.spec).tokenizer.to_str()


def _without_weights(directory: Path) -> str:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in directory.glob(pattern))
    if not pickles:
        return f"{directory} has no {WEIGHTS_FILE}: copy the checkpoint again, in one file"
    return (
        f"{directory} has its weights as {', '.join(pickles)}, a pickle, which runs code when it is opened, and no "
        f"{WEIGHTS_FILE}: if you trust it, convert it once with transformers, "
        "AutoModel.from_pretrained(DIR).save_pretrained(NEW), and copy the tokenizer's files along"
    )


def _require_shapes(file: Path, config: EncoderConfig) -> None:
    try:
        with safe_open(file, framework="pt") as opened:
            found = _named({name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file} cannot be read: {error}: copy it again") from error
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in Encoder(config).state_dict().items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    if problems:
        raise InputError.of(problems, heading=f"{file} does not hold the BERT that {BERT_CONFIG_FILE} beside it describes:")


def _named(tensors: Mapping[str, T]) -> dict[str, T]:
    """By the names of our encoder; poolers and heads of other tasks keep theirs, which no one asks for."""
    found = {}
    for name, value in tensors.items():
        short = name.removeprefix(PREFIX)
        for old, new in OLD_NAMES.items():
            short = short.replace(old, new)
        found[short] = value
    return found
