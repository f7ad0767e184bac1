"""BERT's WordPiece: a vocabulary of pieces that is learnt from the shop's own texts, in the file that BERTs have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from etl.durable import read_json
from etl.text_rules import text_rules
from etl.tokenizer_spec import TokenizerSpec, save_spec

TOKENIZER_FILE = "tokenizer.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

T = TypeVar("T")


class WordPieceTokenizer:
    """BERT's WordPiece, trained on the shop's own text by the ``tokenizers`` library, or taken over from a BERT.

    In ``tokenizer.json`` the text normaliser stands before the tokenizer's own (:mod:`etl.text_rules`), so that the file
    alone gives any reader the same ids. Here Python's does that work, in a tenth of the time.
    """

    def __init__(self, spec: TokenizerSpec, tokenizer: HuggingFaceTokenizer) -> None:
        self.spec = spec
        self.normalise = spec.normalise
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = True  # "[SEP]" in a title is three tokens, not the end of it

    @classmethod
    def train(cls, spec: TokenizerSpec, texts: Iterable[str]) -> WordPieceTokenizer:
        """Learn a vocabulary of at most ``spec.rows`` pieces from raw texts: the same one from the same texts."""
        learner, normal = _bert({}), [spec.normalise(text) for text in texts]
        # The library numbers inner letters as a hash map brings them, and breaks ties between pairs by number: the same
        # texts gave another vocabulary each time. Special pieces it numbers as they are given.
        special = [*SPECIAL, *_inner_letters(learner, normal)]
        trainer = trainers.WordPieceTrainer(vocab_size=spec.rows, special_tokens=special, show_progress=False)
        learner.train_from_iterator(normal, trainer)
        tokenizer = _bert(learner.get_vocab())
        tokenizer.add_special_tokens(list(SPECIAL))
        tokenizer.decoder = decoders.WordPiece()
        places = {piece: place for place, piece in enumerate(SPECIAL)}
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", places["[SEP]"]), ("[CLS]", places["[CLS]"]))
        return cls(spec, tokenizer)

    def ids(self, text: str, side: Literal["query", "title"]) -> np.ndarray:
        """Token ids of a raw text with [CLS] and [SEP], int64."""
        found = self.tokenizer.encode(self.normalise(text)).ids
        return np.array(cut_to(found, self.spec.limit(side)), dtype=np.int64)

    def tokens(self, text: str, side: Literal["query", "title"]) -> list[str]:
        return [str(self.tokenizer.id_to_token(int(i))) for i in self.ids(text, side)]

    def save(self, directory: Path) -> None:
        """Write the spec and ``tokenizer.json``; without the text normaliser where rules cannot express its options."""
        save_spec(self.spec, directory)
        content = json.loads(self.tokenizer.to_str())
        if not self.spec.simplified_chinese:
            steps = [json.loads(text_rules(self.normalise).__getstate__()), content["normalizer"]]
            content["normalizer"] = {"type": "Sequence", "normalizers": [step for step in steps if step]}
        (directory / TOKENIZER_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, spec: TokenizerSpec, directory: Path) -> WordPieceTokenizer:
        """What :meth:`save` wrote."""
        content = read_json(directory / TOKENIZER_FILE)
        if not spec.simplified_chinese:
            content["normalizer"] = next(iter(content["normalizer"]["normalizers"][1:]), None)
        return cls(spec, HuggingFaceTokenizer.from_str(json.dumps(content)))


def cut_to(tokens: list[T], limit: int) -> list[T]:
    """At most ``limit`` tokens, [SEP] the last of them."""
    return tokens if len(tokens) <= limit else [*tokens[: limit - 1], tokens[-1]]


def _bert(vocabulary: dict[str, int]) -> HuggingFaceTokenizer:
    tokenizer = HuggingFaceTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _inner_letters(tokenizer: HuggingFaceTokenizer, texts: Iterable[str]) -> list[str]:
    """``##x`` of each letter that stands within a word, in order."""
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    words_ = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    return sorted({f"##{letter}" for word in words_ for letter in word[1:]})
