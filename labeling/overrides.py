"""Labels set by people, as they hold at the end of a day."""

from __future__ import annotations

import datetime as dt
import logging

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.contracts import OVERRIDES
from etl.inputs import read_input
from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

TERMS_TYPE = "array<struct<term_id: string, term: string, score: double, probability: double>>"
CATEGORY_TYPE = "struct<category_id: string, category_path: string, probability: double, reason: string>"
"""A person's decision has neither score nor probability, nor a reason to stop."""

OVERRIDES_SCHEMA = f"item_id string, override_terms {TERMS_TYPE}, override_category {CATEGORY_TYPE}"


def read_overrides(
    spark: SparkSession, warehouse: Warehouse, ds: dt.date, vocabulary: Vocabulary | None, taxonomy: Taxonomy | None
) -> DataFrame | None:
    """Rows of OVERRIDES_SCHEMA: one per item with a valid override; None if the warehouse has no such table.

    An override holds from ``at`` until ``until`` and is judged at the end of ``ds`` (UTC). Several terms of an item stand
    together, newest first, each once whoever set it; of several categories the newest counts. One that names no active term
    and no category is one bad row of many: it is counted in the log and the model's label stays.

    Raises:
        InputError: the table does not fit its contract.
    """
    if not warehouse.has(OVERRIDES):
        return None
    end = F.lit(dt.datetime.combine(ds + dt.timedelta(days=1), dt.time(), dt.UTC))
    given = read_input(spark, warehouse, OVERRIDES)
    broken = given.where("item_id IS NULL OR what IS NULL OR value IS NULL OR at IS NULL").count()
    if broken:
        log.warning("overrides: %d rows lack item_id, what, value or at, and are left out", broken)
    valid = given.where((F.col("at") < end) & (F.col("until").isNull() | (F.col("until") >= end)))
    latest = valid.groupBy("item_id", "what", "value").agg(F.max("at").alias("at"))  # two people may agree
    known = latest.join(F.broadcast(_labels(spark, vocabulary, taxonomy)), on=["what", "value"], how="inner")
    rows, usable = latest.count(), known.count()
    log.info("overrides: %d hold on ds=%s, %d of them name an active term or a category", rows, ds, usable)
    if usable < rows:
        log.warning("overrides: %d name no active term and no category, and are left out", rows - usable)
    # Newest first, ties by id.
    newest_first = F.struct((-F.unix_micros("at")).alias("age"), F.col("value").alias("id"), F.col("label"))
    terms = F.sort_array(F.collect_list(F.when(F.col("what") == "term", newest_first)))
    category = F.min(F.when(F.col("what") == "category", newest_first))
    by_item = known.groupBy("item_id").agg(terms.alias("terms"), category.alias("category"))
    return by_item.select(
        "item_id",
        F.when(F.size("terms") > 0, F.transform("terms", lambda t: F.struct(t["id"], t["label"], F.lit(None), F.lit(None))))
        .cast(TERMS_TYPE)
        .alias("override_terms"),
        F.when(
            F.col("category").isNotNull(),
            F.struct(F.col("category.id"), F.col("category.label"), F.lit(None), F.lit(None)),
        )
        .cast(CATEGORY_TYPE)
        .alias("override_category"),
    )


def _labels(spark: SparkSession, vocabulary: Vocabulary | None, taxonomy: Taxonomy | None) -> DataFrame:
    rows = [("term", term.term_id, term.term) for term in vocabulary.terms] if vocabulary else []
    if taxonomy:
        rows += [("category", id_, " > ".join(node.name for node in taxonomy.path(id_))) for id_ in taxonomy.nodes]
    return spark.createDataFrame(rows, "what string, value string, label string")
