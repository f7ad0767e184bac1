"""What a tokenizer is made with, saved beside it: datasets and bundles say by it which ids mean the same."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from etl.durable import read_json
from etl.errors import InputError, OtherContract
from etl.text import Normaliser

SPEC_FILE = "tokenizer_spec.json"

TokenKind = Literal["wordhash", "wordpiece", "both"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSpec:
    """All that decides which ids and features a text has; hashed into datasets and bundles."""

    kind: TokenKind = "wordhash"
    rows: int = 2**17
    """Rows of the whole embedding table: hash buckets, or the size of the WordPiece vocabulary, or both together."""
    pieces: int = 0
    """Rows of those, the first ones, that are kept for the WordPiece vocabulary (kind ``both`` only)."""
    ngrams: tuple[int, ...] = (3, 4)
    """Lengths of letter n-grams (word hashing only)."""
    max_query_tokens: int = 32
    max_title_tokens: int = 100
    normaliser: str = ""
    """Hash of the text normaliser, see :attr:`etl.text.Normaliser.hash`."""
    simplified_chinese: bool = False
    """Option of the text normaliser."""
    product_text: str = "{title}"
    """Which text stands for an item, see :class:`etl.product_template.ProductTemplate`; tokenizers get it rendered."""

    @property
    def normalise(self) -> Normaliser:
        return Normaliser(simplified=self.simplified_chinese)

    @property
    def hashed(self) -> bool:
        """Whether ids are hashes, which a :class:`etl.tokenizer.TokenTable` has the features of; else rows of the table."""
        return self.kind != "wordpiece"

    def limit(self, side: Literal["query", "title"]) -> int:
        return self.max_query_tokens if side == "query" else self.max_title_tokens


def require_installed_normaliser(spec: TokenizerSpec, directory: Path) -> None:
    """Refuse a tokenizer whose text normaliser does not behave as the installed one.

    Raises:
        OtherContract: so it is.
    """
    if spec.normaliser != spec.normalise.hash:
        raise OtherContract(
            f"{directory}: made with text normaliser {spec.normaliser}, installed is {spec.normalise.hash}, Unicode "
            f"{unicodedata.unidata_version}: install the versions of this package and of Python that made it, or train again"
        )


def read_spec(directory: Path) -> TokenizerSpec:
    """What the tokenizer saved in ``directory`` was made with, whether it can be used here or not.

    Raises:
        InputError: there is none, or it is cut or otherwise damaged.
        OtherContract: it has fields that this version does not know.
    """
    path = directory / SPEC_FILE
    if not path.is_file():
        raise InputError(f"{directory} holds no tokenizer (expected {SPEC_FILE}): is it a dataset or a bundle?")
    raw = read_json(path, cure="copy the dataset or bundle it is of again, or make that again")
    if unknown := sorted(raw.keys() - TokenizerSpec.__dataclass_fields__):
        raise OtherContract(f"{path} has unknown fields {unknown}: a newer version of this package made it, install that")
    return TokenizerSpec(**{**raw, "ngrams": tuple(raw["ngrams"])})


def save_spec(spec: TokenizerSpec, directory: Path) -> None:
    """Leave it in ``directory``, for :func:`read_spec`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SPEC_FILE).write_text(json.dumps(asdict(spec), indent=2, sort_keys=True) + "\n", encoding="utf-8")
