"""The text that stands for an item, its identity, and why some items have none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from etl.contracts import MAX_TITLE_CHARACTERS
from etl.text import normalise, words

if TYPE_CHECKING:  # `label "TITLE"` answers without Spark
    from pyspark.sql import DataFrame

NO_TEXT, TOO_LONG, NOT_ENCODABLE = "no_text", "too_long", "not_encodable"
"""Why an item has no vector: not a single word, more than MAX_TITLE_CHARACTERS normalised, or the encoder failed on it."""


class ProductText(NamedTuple):
    """``text`` is normalised, and None where ``reason`` says why it cannot be encoded."""

    text_hash: str
    text: str | None
    reason: str | None


def product_text(title: str | None) -> ProductText:
    """What of a raw title is encoded; titles that differ only in what the normaliser drops share a hash."""
    text = normalise(title or "")
    text_hash = hashlib.sha256(text.encode()).hexdigest()[:32]
    if len(text) > MAX_TITLE_CHARACTERS:
        return ProductText(text_hash, None, TOO_LONG)
    if not words(text):
        return ProductText(text_hash, None, NO_TEXT)
    return ProductText(text_hash, text, None)


def with_texts(catalogue: DataFrame) -> DataFrame:
    """CATALOGUE -> item_id, title, text_hash, text, reason: one row per item, as :func:`product_text` says."""
    schema = "item_id string, title string, text_hash string, text string, reason string"
    return catalogue.select("item_id", "title").mapInArrow(_with_texts, schema)


def _with_texts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        texts = [product_text(title) for title in batch.column("title").to_pylist()]
        made = [pa.array([text[i] for text in texts], pa.string()) for i in range(3)]
        yield pa.RecordBatch.from_arrays([*batch.columns, *made], [*batch.schema.names, *ProductText._fields])
