"""Settings of the job that makes the dataset: tokenizer, lengths, and how the rows are laid down for the ranks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from etl.config import SparkJobConfig
from etl.text_config import TextConfig
from etl.tokenizer_spec import TokenizerSpec, TokenKind


class DatasetConfig(TextConfig, SparkJobConfig):
    """Settings of the job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "text", "dataset")

    tokenizer: TokenKind = "wordhash"
    """Hashed words with their letter n-grams, WordPiece trained on the window's texts, or both added up."""

    rows: Annotated[int, Field(ge=64)] = 2**17
    """Rows of the encoder's embedding table: hash buckets, the size of the WordPiece vocabulary (30522 is BERT's), or
    both together."""

    pieces: Annotated[int, Field(ge=32)] = 30_000
    """Of these rows, those of the WordPiece vocabulary (both only); the rest are hash buckets."""

    ngrams: tuple[int, ...] = (3, 4)
    """Lengths of the letter n-grams of hashed words."""

    max_query_tokens: Annotated[int, Field(ge=1)] = 32
    """Tokens of a query that are used."""

    max_title_tokens: Annotated[int, Field(ge=1)] = 100
    """Tokens of a title that are used."""

    wordpiece_texts: Annotated[int, Field(ge=1)] = 1_000_000
    """Texts, drawn by hash, from which WordPiece is trained."""

    tokenizer_from: str = ""
    """Take the tokenizer of the champion ("champion", once there is one), of a directory that holds one (a bundle, a
    dataset), or of a Hugging Face BERT, instead of a new one."""

    ranks: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Training ranks that the rows are dealt to equally; any number that divides it will do as well."""

    files_per_rank: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Files of each rank in either Petastorm part."""

    row_group_mb: Annotated[int, Field(ge=1)] = 16
    """Largest row group, MiB: what a training rank reads and shuffles at once."""

    @model_validator(mode="after")
    def _leaves_buckets(self) -> Self:
        if self.tokenizer == "both" and self.pieces >= self.rows:
            raise ValueError(f"pieces = {self.pieces} leaves none of rows = {self.rows} to the hashed n-grams: raise rows")
        return self

    def spec(self) -> TokenizerSpec:
        return TokenizerSpec(
            kind=self.tokenizer,
            rows=self.rows,
            pieces=self.pieces if self.tokenizer == "both" else 0,
            ngrams=tuple(self.ngrams),
            max_query_tokens=self.max_query_tokens,
            max_title_tokens=self.max_title_tokens,
            normaliser=self.normaliser.hash,
            simplified_chinese=self.simplified_chinese,
            product_text=self.product_text,
        )
