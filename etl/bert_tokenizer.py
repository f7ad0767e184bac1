"""The tokenizer of a Hugging Face BERT checkpoint, behind our text normaliser."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from etl.durable import read_json
from etl.errors import InputError
from etl.tokenizer_spec import TokenizerSpec
from etl.wordpiece import TOKENIZER_FILE, WordPieceTokenizer

log = logging.getLogger(__name__)

VOCABULARY_FILE, SETTINGS_FILE = "vocab.txt", "tokenizer_config.json"


def bert_tokenizer(directory: Path, spec: TokenizerSpec) -> WordPieceTokenizer:
    """Its pieces, ids and own normaliser, which sees what ours has left; lengths and text options are those of ``spec``.

    Raises:
        InputError: no such directory; no ``tokenizer.json`` or ``vocab.txt`` there; or it is no WordPiece between [CLS] and
            [SEP].
    """
    if not directory.is_dir():
        raise InputError(f"there is no directory {directory} to take a tokenizer from: check the path")
    if (directory / TOKENIZER_FILE).is_file():
        tokenizer = _read(directory / TOKENIZER_FILE)
    elif (directory / VOCABULARY_FILE).is_file():
        tokenizer = _from_vocabulary(directory)
    else:
        raise InputError(
            f"{directory} holds no tokenizer: expected tokenizer_spec.json (a bundle or a dataset), or {TOKENIZER_FILE} or "
            f"{VOCABULARY_FILE} (a Hugging Face BERT)"
        )
    if not isinstance(tokenizer.model, models.WordPiece):
        raise InputError(f"{directory}: tokenizer of kind {type(tokenizer.model).__name__}, expected WordPiece as BERT's")
    tokenizer.no_padding()
    tokenizer.no_truncation()  # the spec's lengths cut, side by side
    if tokenizer.encode("").tokens != ["[CLS]", "[SEP]"]:
        raise InputError(f"{directory}: a text stands between {tokenizer.encode('').tokens}, expected [CLS] and [SEP]")
    if any(piece.isascii() and piece.isupper() for piece in _pieces(tokenizer)):
        log.warning("%s: the vocabulary has capitals, which our normaliser never leaves: prefer an uncased model", directory)
    rows = max(tokenizer.get_vocab().values()) + 1
    return WordPieceTokenizer(replace(spec, kind="wordpiece", rows=rows), tokenizer)


def _read(file: Path) -> HuggingFaceTokenizer:
    try:
        return HuggingFaceTokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} cannot be read as a tokenizer: {error}") from error


def _from_vocabulary(directory: Path) -> HuggingFaceTokenizer:
    """As ``transformers`` makes it of ``vocab.txt`` and, if it is there, ``tokenizer_config.json``."""
    file = directory / SETTINGS_FILE
    settings: dict[str, Any] = read_json(file) if file.is_file() else {}
    pieces = (directory / VOCABULARY_FILE).read_text(encoding="utf-8").splitlines()
    places = {piece: place for place, piece in enumerate(pieces)}
    if missing := [piece for piece in ("[UNK]", "[CLS]", "[SEP]") if piece not in places]:
        raise InputError(f"{directory / VOCABULARY_FILE} lacks {', '.join(missing)}: it is no vocabulary of BERT")
    tokenizer = HuggingFaceTokenizer(models.WordPiece(places, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", places["[SEP]"]), ("[CLS]", places["[CLS]"]))
    tokenizer.add_special_tokens([piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if piece in places])
    return tokenizer


def _pieces(tokenizer: HuggingFaceTokenizer) -> list[str]:
    return [piece for piece in tokenizer.get_vocab() if not piece.startswith("[")]
