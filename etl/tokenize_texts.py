"""Tokenise the texts of DataFrames: each distinct text once, by the tokenizer that the bundle will carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from etl.dataset import encode_ids
from etl.text import Normaliser, cut_words, join, words
from etl.tokenizer import HashedTokenizer, Tokenizer, load_tokenizer, token_id
from etl.tokenizer_spec import SPEC_FILE
from etl.wordpiece import TOKENIZER_FILE

Batches = Iterable[pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class Tokenise:
    """A saved tokenizer as the content of its files, so that it travels to any worker and is loaded once there."""

    files: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, directory: Path) -> Tokenise:
        """The tokenizer that was saved in ``directory``."""
        paths = [directory / name for name in (SPEC_FILE, TOKENIZER_FILE)]
        return cls(tuple((path.name, path.read_text(encoding="utf-8")) for path in paths if path.exists()))

    @property
    def tokenizer(self) -> Tokenizer:
        return _loaded(self.files)

    def encode(self, text: str, side: Literal["query", "title"]) -> bytes:
        """Token ids of a raw text as the dataset stores them."""
        tokenizer = self.tokenizer
        return encode_ids(tokenizer.ids(text, side), "int64" if isinstance(tokenizer, HashedTokenizer) else "uint32")

    def ids(self, side: Literal["query", "title"], into: str) -> Callable[[DataFrame], DataFrame]:
        """Adds the token ids of the column ``text``, binary."""

        def transform(frame: DataFrame) -> DataFrame:
            def batches(found: Batches) -> Iterator[pa.RecordBatch]:
                for batch in found:
                    values = [self.encode(text, side) for text in batch.column("text").to_pylist()]
                    yield _with(batch, {into: pa.array(values, pa.binary())})

            return frame.mapInArrow(batches, _plus(frame, StructField(into, BinaryType())))

        return transform

    def cut_titles(self, frame: DataFrame) -> DataFrame:
        """Replaces query_text and title_text by ``title_cut``, token ids, and ``cut``, its text.

        Where no word of the query stands in the title, or no other does, they are empty and null.
        """

        def batches(found: Batches) -> Iterator[pa.RecordBatch]:
            for batch in found:
                pairs = zip(batch.column("query_text").to_pylist(), batch.column("title_text").to_pylist(), strict=True)
                cut = [cut_title(query, title, self.tokenizer.normalise) for query, title in pairs]
                values = [b"" if text is None else self.encode(text, "title") for text in cut]
                added = {"title_cut": pa.array(values, pa.binary()), "cut": pa.array(cut, pa.string())}
                yield _with(batch, added).select(kept)

        schema = _plus(frame, StructField("title_cut", BinaryType()), StructField("cut", StringType()))
        kept = [name for name in schema.names if name not in ("query_text", "title_text")]
        return frame.mapInArrow(batches, StructType([schema[name] for name in kept]))

    def token_features(self, frame: DataFrame) -> DataFrame:
        """(text, side) -> (id, features): the tokens in them; distinct within a batch only."""

        def batches(found: Batches) -> Iterator[pa.RecordBatch]:
            tokenizer = self.tokenizer
            assert isinstance(tokenizer, HashedTokenizer)
            for batch in found:
                texts = zip(batch.column("text").to_pylist(), batch.column("side").to_pylist(), strict=True)
                tokens = {token: None for text, side in texts for token in tokenizer.tokens(text, side)}
                features = [np.array(tokenizer.features(token), dtype="<u4").tobytes() for token in tokens]
                ids = pa.array(map(token_id, tokens), pa.int64())
                yield pa.RecordBatch.from_arrays([ids, pa.array(features, pa.binary())], names=["id", "features"])

        return frame.mapInArrow(batches, "id bigint, features binary")


def cut_title(query: str, title: str, normalise: Normaliser) -> str | None:
    """The words of a title without those of the query (both raw), or None if that changes nothing or leaves nothing."""
    normal = normalise(title)
    cut = cut_words(normal, normalise(query))
    return cut if cut and cut != join(words(normal)) else None


@lru_cache(maxsize=1)
def _loaded(files: tuple[tuple[str, str], ...]) -> Tokenizer:
    with TemporaryDirectory() as directory:
        for name, content in files:
            (Path(directory) / name).write_text(content, encoding="utf-8")
        return load_tokenizer(Path(directory))


def _with(batch: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    names = [*batch.schema.names, *columns]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns.values()], names=names)


def _plus(frame: DataFrame, *fields: StructField) -> StructType:
    return StructType([*frame.schema.fields, *fields])
