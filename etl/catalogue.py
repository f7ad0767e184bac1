"""The catalogue of a day: one row an item, the text that stands for it, and the identity of that text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from etl import tables
from etl.contracts import CATALOGUE, MAX_TITLE_CHARACTERS
from etl.errors import MAX_SHOWN, InputError
from etl.inputs import read_day
from etl.masking import masked_column
from etl.product_template import ProductTemplate
from etl.text import Normaliser, normalise
from etl.warehouse import Warehouse


def read_catalogue(spark: SparkSession, warehouse: Warehouse, ds: dt.date, template: str = "{title}") -> DataFrame:
    """CATALOGUE of one day, unique in item_id, with ``text``, which ``template`` renders from its columns (raw, or null).

    Bytes that are no UTF-8 become U+FFFD. Every job reads titles here (without Spark: :mod:`labeling.local_tables`), so
    here e-mail addresses and telephone numbers are masked in both, unless the input's settings say otherwise; ``masked``
    says whether anything was.

    Raises:
        InputError: as :func:`etl.inputs.read_day`; an item_id that is null or occurs twice; a column that is not there.
    """
    parsed = ProductTemplate(template)
    items = read_day(
        spark, warehouse, CATALOGUE, ds, further=[name for name in parsed.columns if name not in CATALOGUE.names]
    )
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
    items = items.withColumns({"title": F.make_valid_utf8("title"), "text": F.make_valid_utf8(rendered(parsed))})
    if not warehouse.source(CATALOGUE).mask:
        return items.select(*CATALOGUE.names, "text", F.lit(False).alias("masked"))
    clean = {name: masked_column(F.col(name)) for name in ("title", "text")}
    is_masked = ~(clean["title"].eqNullSafe(F.col("title")) & clean["text"].eqNullSafe(F.col("text")))
    return items.withColumns(clean | {"masked": is_masked}).select(*CATALOGUE.names, "text", "masked")


def catalogue_version(catalogue: DataFrame) -> str:
    """Version of what labels and live rows hold of a day's catalogue, and of the texts that the labels were made of."""
    return tables.content_version(catalogue.select("item_id", "title", "text"))


def rendered(template: ProductTemplate) -> Column:
    """:meth:`etl.product_template.ProductTemplate.render` over columns."""
    values = {name: F.col(name).cast("string") for name in template.columns}
    empty = F.lit("")
    pieces = [F.concat(F.lit(text), F.coalesce(values[name], empty) if name else empty) for text, name in template.parts]
    return F.when(F.coalesce(*values.values()).isNotNull(), F.concat(*pieces))


def with_title_id(items: DataFrame, normaliser: Normaliser = normalise) -> DataFrame:
    """Adds ``normal``, the normalised ``text``, and ``title_id``, its xxhash64; null where it is too long or has no word."""
    usable = F.when(F.length("text") <= MAX_TITLE_CHARACTERS, F.col("text"))
    found = items.withColumn("_usable", usable).transform(with_normal_form("_usable", "_normal", normaliser)).drop("_usable")
    normal = F.when(F.col("_normal") != "", F.col("_normal"))
    return found.withColumns({"normal": normal, "title_id": F.when(normal.isNotNull(), F.xxhash64(normal))}).drop("_normal")


def with_normal_form(column: str, into: str, normaliser: Normaliser) -> Callable[[DataFrame], DataFrame]:
    """Adds the normalised text of ``column``: empty if it has no word, null if the text is null."""

    def transform(frame: DataFrame) -> DataFrame:
        def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in found:
                found_texts = batch.column(column).to_pylist()
                texts = [None if text is None else normaliser.normal_form(text) for text in found_texts]
                arrays = [*batch.columns, pa.array(texts, pa.string())]
                yield pa.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, into])

        return frame.mapInArrow(batches, StructType([*frame.schema.fields, StructField(into, StringType())]))

    return transform
