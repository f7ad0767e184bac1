"""The catalogue of a day: one row an item, and titles that can be used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from etl.contracts import CATALOGUE, MAX_TITLE_CHARACTERS
from etl.errors import MAX_SHOWN, InputError
from etl.inputs import read_day
from etl.text import normalise, words
from etl.warehouse import Warehouse


def read_catalogue(spark: SparkSession, warehouse: Warehouse, ds: dt.date) -> DataFrame:
    """CATALOGUE of one day, unique in item_id; bytes of titles that are no UTF-8 become U+FFFD.

    Raises:
        InputError: as :func:`etl.inputs.read_day`; an item_id that is null or occurs twice.
    """
    items = read_day(spark, warehouse, CATALOGUE, ds)
    wrong = F.col("item_id").isNull() | (F.col("count") > 1)
    found = items.groupBy("item_id").count().where(wrong).orderBy("item_id").limit(MAX_SHOWN + 1).collect()
    problems = [
        f"column item_id is null in {row['count']} rows (expected an id in each)"
        if row["item_id"] is None
        else f"column item_id holds {row['item_id']!r} {row['count']} times (expected once): drop the other rows"
        for row in found
    ]
    if problems:
        raise InputError.of(problems, heading=f"table catalogue cannot be used, ds={ds}:")
    return items.withColumn("title", F.make_valid_utf8("title"))


def with_title_id(items: DataFrame) -> DataFrame:
    """Adds ``normal``, the normalised title, and ``title_id``, its xxhash64; null where it is too long or has no word."""
    usable = F.when(F.length("title") <= MAX_TITLE_CHARACTERS, F.col("title"))
    normal = items.withColumn("_usable", usable).transform(with_normal_form("_usable", "_normal")).drop("_usable")
    text = F.when(F.col("_normal") != "", F.col("_normal"))
    return normal.withColumns({"normal": text, "title_id": F.when(text.isNotNull(), F.xxhash64(text))}).drop("_normal")


def with_normal_form(column: str, into: str) -> Callable[[DataFrame], DataFrame]:
    """Adds the normalised text of ``column``: empty if it has no word, null if the text is null."""

    def transform(frame: DataFrame) -> DataFrame:
        def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in found:
                texts = [None if text is None else normal_form(text) for text in batch.column(column).to_pylist()]
                arrays = [*batch.columns, pa.array(texts, pa.string())]
                yield pa.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, into])

        return frame.mapInArrow(batches, StructType([*frame.schema.fields, StructField(into, StringType())]))

    return transform


def normal_form(text: str) -> str:
    """The normalised text, or nothing if no word is left in it."""
    normal = normalise(text)
    return normal if words(normal) else ""
