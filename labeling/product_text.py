"""The text that stands for an item, its identity, and why some items have none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from etl.contracts import MAX_TITLE_CHARACTERS
from etl.text import Normaliser, words

if TYPE_CHECKING:  # `label "TITLE"` answers without Spark
    from pyspark.sql import DataFrame

NO_TEXT, TOO_LONG, NOT_ENCODABLE = "no_text", "too_long", "not_encodable"
"""Why an item has no vector: not a single word, more than MAX_TITLE_CHARACTERS normalised, or the encoder failed on it."""


class ProductText(NamedTuple):
    """``text`` is normalised, and None where ``reason`` says why it cannot be encoded."""

    text_hash: str
    text: str | None
    reason: str | None


def product_text(raw: str | None, normaliser: Normaliser) -> ProductText:
    """What of a raw product text is encoded; those that differ only in what the normaliser drops share a hash."""
    text = normaliser(raw or "")
    text_hash = hashlib.sha256(text.encode()).hexdigest()[:32]
    if len(text) > MAX_TITLE_CHARACTERS:
        return ProductText(text_hash, None, TOO_LONG)
    if not words(text):
        return ProductText(text_hash, None, NO_TEXT)
    return ProductText(text_hash, text, None)


def with_texts(normaliser: Normaliser) -> Callable[[DataFrame], DataFrame]:
    """Rows item_id, title, text (raw) -> item_id, title, text_hash, text, reason, one for one; see :func:`product_text`."""

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in found:
            texts = [product_text(raw, normaliser) for raw in batch.column("text").to_pylist()]
            made = [pa.array([text[i] for text in texts], pa.string()) for i in range(3)]
            kept = [batch.column(name) for name in ("item_id", "title")]
            yield pa.RecordBatch.from_arrays([*kept, *made], ["item_id", "title", *ProductText._fields])

    def transform(catalogue: DataFrame) -> DataFrame:
        schema = "item_id string, title string, text_hash string, text string, reason string"
        return catalogue.select("item_id", "title", "text").mapInArrow(batches, schema)

    return transform
