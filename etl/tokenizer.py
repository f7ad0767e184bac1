"""Texts to token ids: hashed words (DSSM's letter n-grams), WordPiece, or both in one, behind one interface.

A text is a sequence of tokens, a token a bag of *features* (rows of the encoder's embedding table):

* word hashing: a token is a word (for scripts without spaces: a character with its two successors), its id
  the 64-bit hash of that word, its features the hashed letter n-grams (Huang et al. 2013, "Learning Deep
  Structured Semantic Models", section 3.2; for CJK: the character, its bigram and trigram) and the word itself;
* WordPiece: a token is a piece, its id the row in the vocabulary and its only feature;
* both: a token is a piece in its word, its id the 64-bit hash of the two, its features the piece's row and, in the
  rows after the vocabulary's, the word's hashed n-grams (as fastText adds a word's n-grams to its own vector:
  Bojanowski et al. 2017, "Enriching word vectors with subword information").

Datasets store token ids; which features a hashed id has travels beside them (:class:`TokenTable`), so that a word is
hashed once in a night, not once in an occurrence.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from etl.durable import read_json
from etl.errors import InputError
from etl.text import Normaliser, is_cjk, word_spans, words
from etl.tokenizer_spec import SPEC_FILE, TokenizerSpec, read_spec, require_installed_normaliser, save_spec
from etl.wordpiece import TOKENIZER_FILE, WordPieceTokenizer, cut_to


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Features of each distinct token, as CSR: ``features[offsets[i]:offsets[i + 1]]`` belong to ``ids[i]``.

    ``ids`` (int64) ascend; ``features`` are int64 rows of the embedding table.
    """

    ids: np.ndarray
    offsets: np.ndarray
    features: np.ndarray


class HashedTokenizer(ABC):
    """A token is a string, its id the hash of that, its features a function of it."""

    spec: TokenizerSpec
    normalise: Normaliser

    @abstractmethod
    def tokens(self, text: str, side: Literal["query", "title"]) -> list[str]:
        """The tokens of a raw text, as strings, cut at the side's limit."""

    @abstractmethod
    def features(self, token: str) -> list[int]:
        """Rows of the embedding table that make up a token."""

    @abstractmethod
    def save(self, directory: Path) -> None: ...

    def ids(self, text: str, side: Literal["query", "title"]) -> np.ndarray:
        """Token ids of a raw text, int64."""
        return np.fromiter(map(token_id, self.tokens(text, side)), dtype=np.int64)


class WordHashTokenizer(HashedTokenizer):
    """Stateless: needs no vocabulary, and a misspelt or unseen word still shares most of its n-grams."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self.normalise = spec.normalise

    def tokens(self, text: str, side: Literal["query", "title"]) -> list[str]:
        return words_in_context(words(self.normalise(text))[: self.spec.limit(side)])

    def features(self, token: str) -> list[int]:
        if is_cjk(token):
            grams = [token[:n] for n in range(1, len(token) + 1)]
        else:
            marked = f"^{token}$"
            grams = [marked] + [marked[i : i + n] for n in self.spec.ngrams for i in range(len(marked) - n + 1)]
        return [zlib.crc32(gram.encode()) % self.spec.rows for gram in dict.fromkeys(grams)]

    def save(self, directory: Path) -> None:
        save_spec(self.spec, directory)


class BothTokenizer(HashedTokenizer):
    """WordPiece's sequence, in which each piece also has the hashed n-grams of the word that it lies in.

    The vocabulary says what a piece is beside other pieces of a frequent word, the n-grams hold a misspelt or unseen
    word, of which WordPiece leaves crumbs or [UNK], near its like.
    """

    def __init__(self, spec: TokenizerSpec, tokenizer: HuggingFaceTokenizer) -> None:
        """Of a vocabulary that fits into ``spec.pieces`` rows.

        Raises:
            InputError: it does not, or no row is left for the n-grams.
        """
        size = tokenizer.get_vocab_size()
        if not size <= spec.pieces < spec.rows:
            raise InputError(
                f"a vocabulary of {size} pieces in {spec.pieces} of {spec.rows} rows (expected vocabulary <= pieces < "
                "rows): raise rows, or lower pieces and train the vocabulary again"
            )
        self.spec = spec
        self.normalise = spec.normalise
        self.tokenizer = tokenizer
        self._words = WordHashTokenizer(replace(spec, kind="wordhash", rows=spec.rows - spec.pieces))

    @classmethod
    def train(cls, spec: TokenizerSpec, texts: Iterable[str]) -> BothTokenizer:
        """Learn a vocabulary of at most ``spec.pieces`` pieces from raw texts."""
        return cls(spec, WordPieceTokenizer.train(replace(spec, kind="wordpiece", rows=spec.pieces), texts).tokenizer)

    def tokens(self, text: str, side: Literal["query", "title"]) -> list[str]:
        """Each piece, and after a space each word that it touches.

        There may be none ([CLS], punctuation) or several: WordPiece parts "5.5mm" in other places than
        :func:`etl.text.words`, and leaves kana and hangul together.
        """
        normal = self.normalise(text)
        found, spans = self.tokenizer.encode(normal), word_spans(normal)
        in_context = words_in_context([normal[start:stop] for start, stop in spans])
        tokens, first = [], 0
        for piece, (start, stop) in zip(found.tokens, found.offsets, strict=True):
            while first < len(spans) and spans[first][1] <= start:
                first += 1
            last = first
            while last < len(spans) and spans[last][0] < stop:
                last += 1
            tokens.append(" ".join([piece, *in_context[first:last]]))
        return cut_to(tokens, self.spec.limit(side))

    def features(self, token: str) -> list[int]:
        piece, *touched = token.split(" ")
        row = self.tokenizer.token_to_id(piece)
        assert row is not None, f"{piece!r} is no piece of the vocabulary"
        grams = [self.spec.pieces + gram for word in touched for gram in self._words.features(word)]
        return [row, *dict.fromkeys(grams)]

    def save(self, directory: Path) -> None:
        save_spec(self.spec, directory)
        self.tokenizer.save(str(directory / TOKENIZER_FILE))


Tokenizer = WordHashTokenizer | WordPieceTokenizer | BothTokenizer


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer that was saved in ``directory``.

    Raises:
        InputError: it belongs to another text normaliser than the installed one.
    """
    spec = read_spec(directory)
    require_installed_normaliser(spec, directory)
    if spec.kind == "wordhash":
        return WordHashTokenizer(spec)
    if spec.kind == "wordpiece":
        return WordPieceTokenizer.load(spec, directory)
    return BothTokenizer(spec, HuggingFaceTokenizer.from_str(json.dumps(read_json(directory / TOKENIZER_FILE))))


def tokenizer_hash(directory: Path) -> str:
    """Identity of a saved tokenizer: spec and, for WordPiece, vocabulary."""
    digest = hashlib.sha256()
    for name in (SPEC_FILE, TOKENIZER_FILE):
        if (directory / name).exists():
            digest.update((directory / name).read_bytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=2**18)
def token_id(token: str) -> int:
    """64-bit id of a token: the same in every process, on every machine."""
    # Words repeat: of those in a title nine in ten are in the cache.
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little", signed=True)


def words_in_context(found: Sequence[str]) -> list[str]:
    """Words as they are hashed: a character of a script without spaces with its two successors."""
    return ["".join(_cjk_run(found, i)) if is_cjk(word) else word for i, word in enumerate(found)]


def _cjk_run(found: Sequence[str], start: int) -> list[str]:
    run = [found[start]]
    for word in found[start + 1 : start + 3]:
        if not is_cjk(word):
            break
        run.append(word)
    return run
