"""The live rows: the model's labels of a day with people's overrides, and the one commit that makes them live."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import reduce
from operator import and_
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LABELS_CURRENT, LINEAGE, OVERRIDES, Table
from etl.session import hold
from etl.table_lock import table_lock
from etl.text import Normaliser
from etl.warehouse import Warehouse
from labeling.categories import LEAF
from labeling.overrides import CATEGORY_TYPE, OVERRIDES_SCHEMA, TERMS_TYPE
from labeling.product_text import with_texts

log = logging.getLogger(__name__)

NO_VOCABULARY, NO_TAXONOMY = "no_vocabulary", "no_taxonomy"
"""Reasons in a warehouse that declares one of them absent."""

LABEL_COLUMNS = tuple(
    name for name in LABELS_CURRENT.names if name not in {"item_id", "ds", "title", *(column.name for column in LINEAGE)}
)
"""What a change is a change of, and the text that was labelled, so that a live row has the title that its item has: another
run, day or spelling of a title alone leaves it as it is."""


def current_labels(
    catalogue: DataFrame,
    labels: Mapping[Table, DataFrame],
    overrides: DataFrame | None,
    lineage: Mapping[str, str],
    normaliser: Normaliser,
) -> DataFrame:
    """Staged labels of the day, its CATALOGUE and overrides -> LABELS_CURRENT: one row for each item.

    Args:
        catalogue: Items of the day with their product text.
        labels: Rows of the label tables of the day.
        overrides: Rows of OVERRIDES_SCHEMA, or None.
        lineage: Columns LINEAGE of ``labels``.
        normaliser: That of the bundle.
    """
    texts = catalogue.transform(with_texts(normaliser)).select("item_id", "text_hash")
    rows = catalogue.select("ds", "item_id", "title").join(texts, on="item_id", how="left")
    if ITEM_TERMS in labels:
        rows = rows.join(as_term_lists(labels[ITEM_TERMS]), on="item_id", how="left")
    else:
        rows = rows.withColumns({"model_terms": F.array().cast(TERMS_TYPE), "model_reason": F.lit(NO_VOCABULARY)})
    if ITEM_CATEGORIES in labels:
        rows = rows.join(as_one_category(labels[ITEM_CATEGORIES]), on="item_id", how="left")
    else:
        none = F.struct(*map(F.lit, (None, None, None, NO_TAXONOMY))).cast(CATEGORY_TYPE)
        rows = rows.withColumn("model_category", none)
    inputs = json.loads(lineage["inputs"])
    if overrides is None:
        overrides = catalogue.sparkSession.createDataFrame([], OVERRIDES_SCHEMA)
    else:
        inputs[OVERRIDES.name] = tables.content_version(overrides)
    stamps = {**lineage, "inputs": json.dumps(inputs, sort_keys=True)}
    return (
        rows.join(overrides, on="item_id", how="left")
        .transform(with_labels)
        .withColumns({name: F.lit(value).cast("string") for name, value in stamps.items()})
        .select(*LABELS_CURRENT.names)
    )


def as_term_lists(rows: DataFrame) -> DataFrame:
    """ITEM_TERMS -> item_id, model_terms (best first), model_reason."""
    term = F.when(F.col("rank") > 0, F.struct("rank", "term_id", "term", "score", "probability"))
    ranked = F.sort_array(F.collect_list(term))
    without_rank = F.transform(
        ranked, lambda t: F.struct(*(t[name] for name in ("term_id", "term", "score", "probability")))
    )
    return rows.groupBy("item_id").agg(
        without_rank.cast(TERMS_TYPE).alias("model_terms"), F.max("reason").alias("model_reason")
    )


def as_one_category(rows: DataFrame) -> DataFrame:
    """ITEM_CATEGORIES -> item_id, model_category."""
    path = F.when(F.size("path") > 0, F.concat_ws(" > ", "path"))
    reason = F.when(F.col("stopped") != LEAF, F.col("stopped"))
    return rows.select(
        "item_id", F.struct("category_id", path, "probability", reason).cast(CATEGORY_TYPE).alias("model_category")
    )


def with_labels(rows: DataFrame) -> DataFrame:
    """Adds the label columns of LABELS_CURRENT: a person's where there is one, else the model's."""
    by_person = {"term": F.col("override_terms").isNotNull(), "category": F.col("override_category").isNotNull()}
    sources = {f"{what}_source": F.when(is_set, "override").otherwise("model") for what, is_set in by_person.items()}
    rows = rows.withColumns(
        sources
        | {
            "terms": F.coalesce("override_terms", "model_terms"),
            "category": F.coalesce("override_category", "model_category"),
            "term_reason": F.when(~by_person["term"], F.col("model_reason")),
        }
    )
    best = F.get("terms", F.lit(0))
    return rows.withColumns(
        {
            "term": best["term"],
            "term_probability": best["probability"],
            "category_id": F.col("category.category_id"),
            "category_path": F.col("category.category_path"),
            "category_probability": F.col("category.probability"),
            "category_reason": F.col("category.reason"),
        }
    )


def merge(
    labels: DataFrame,
    spark: SparkSession,
    warehouse: Warehouse,
    metadata: Mapping[str, Any],
    *,
    columns: Sequence[str] = LABEL_COLUMNS,
    unless_same: bool = True,
) -> dict[str, int]:
    """One commit that makes ``labels`` the live ones; returns the rows changed.

    Args:
        labels: Rows of LABELS_CURRENT, one for each item.
        spark: The session.
        warehouse: Where the table lies.
        metadata: What the commit carries.
        columns: Those in which a row has to differ to be written.
        unless_same: Whether there is no commit where no row differs; else one that only says whose labels these are.
    """
    path = warehouse.table(LABELS_CURRENT)
    tables.ensure(spark, path, LABELS_CURRENT)
    with ExitStack() as held:
        held.enter_context(table_lock(spark, path))
        labels = hold(labels, held)
        if differing(tables.read(spark, path, LABELS_CURRENT), labels, columns).isEmpty():
            if not unless_same:
                _confirm(spark, path, metadata)
            log.info("%s is the same already%s", LABELS_CURRENT.name, ": no commit" if unless_same else "")
            return {"inserted": 0, "updated": 0, "deleted": 0}
        return _merged(labels, spark, path, metadata, columns)


def differing(live: DataFrame, labels: DataFrame, columns: Sequence[str] = LABEL_COLUMNS) -> DataFrame:
    """LABELS_CURRENT, before and after -> the items whose rows differ, as columns of ``old`` and of ``new``."""
    return live.alias("old").join(labels.alias("new"), on="item_id", how="full").where(_differs(columns))


def _merged(
    labels: DataFrame, spark: SparkSession, path: str, metadata: Mapping[str, Any], columns: Sequence[str]
) -> dict[str, int]:
    change = (
        DeltaTable.forPath(spark, path)
        .alias("old")
        .merge(labels.alias("new"), "old.item_id = new.item_id")
        .whenMatchedUpdateAll(condition=_differs(columns))
        .whenNotMatchedInsertAll()
        .whenNotMatchedBySourceDelete()
    )
    entry = tables.execute_merge(change, path, metadata)
    if entry is None:
        raise tables.WriteError(f"{LABELS_CURRENT.name}: the merge made no new version, though rows differ")
    landed, sent = tables.read(spark, path, LABELS_CURRENT, version=entry["version"]).count(), labels.count()
    if landed != sent:
        raise tables.WriteError(
            f"{LABELS_CURRENT.name} version {entry['version']}: {landed} rows are live, {sent} were sent"
        )
    metrics = entry["operationMetrics"]
    return {name: int(metrics[f"numTargetRows{name.capitalize()}"]) for name in ("inserted", "updated", "deleted")}


def _confirm(spark: SparkSession, path: str, metadata: Mapping[str, Any]) -> None:
    """A commit without rows: Delta makes none of a merge that changes nothing, and the log has to say what is live."""
    with tables.commit_metadata(metadata) as token:
        spark.sql(f"ALTER TABLE {tables.sql_name(path)} SET TBLPROPERTIES ('labeller.confirmed' = '{token}')")
    if tables.commit_of(spark, path, token) is None:
        raise tables.WriteError(f"{LABELS_CURRENT.name}: no commit says that the labels of {metadata['run_id']} are live")


def _differs(columns: Sequence[str]) -> Column:
    """Null-safe, so that a label that appears or goes is a change too; an item on one side only differs by its source."""
    same = [F.col(f"old.{name}").eqNullSafe(F.col(f"new.{name}")) for name in columns]
    return ~reduce(and_, same)
