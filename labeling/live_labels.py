"""The live rows: the model's labels of a day with people's overrides, and the one commit that makes them live."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
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
from etl.warehouse import Warehouse
from labeling.categories import LEAF
from labeling.overrides import CATEGORY_TYPE, OVERRIDES_SCHEMA, TERMS_TYPE

log = logging.getLogger(__name__)

NO_VOCABULARY, NO_TAXONOMY = "no_vocabulary", "no_taxonomy"
"""Reasons in a warehouse that declares one of them absent."""

LABEL_COLUMNS = tuple(
    name for name in LABELS_CURRENT.names if name not in {"item_id", "ds", "title", *(column.name for column in LINEAGE)}
)
"""What a change is a change of: another run, day or spelling of a title alone leaves a live row as it is."""


def current_labels(
    catalogue: DataFrame, labels: Mapping[Table, DataFrame], overrides: DataFrame | None, lineage: Mapping[str, str]
) -> DataFrame:
    """Staged labels of the day, its CATALOGUE and overrides -> LABELS_CURRENT: one row for each item."""
    rows = catalogue.select("ds", "item_id", "title")
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
        .withColumns({name: F.lit(value) for name, value in stamps.items()})
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


def merge(labels: DataFrame, spark: SparkSession, warehouse: Warehouse, metadata: Mapping[str, Any]) -> dict[str, int]:
    """One commit that makes ``labels`` the live ones, or none if they are; returns the rows changed."""
    path = warehouse.table(LABELS_CURRENT)
    tables.ensure(spark, path, LABELS_CURRENT)
    with ExitStack() as held:
        return _merged(hold(labels, held), spark, path, metadata)


def _merged(labels: DataFrame, spark: SparkSession, path: str, metadata: Mapping[str, Any]) -> dict[str, int]:
    live = tables.read(spark, path, LABELS_CURRENT)
    if labels.alias("new").join(live.alias("old"), on="item_id", how="full").where(_differs()).isEmpty():
        log.info("%s is the same already: no commit", LABELS_CURRENT.name)
        return {"inserted": 0, "updated": 0, "deleted": 0}
    change = (
        DeltaTable.forPath(spark, path)
        .alias("old")
        .merge(labels.alias("new"), "old.item_id = new.item_id")
        .whenMatchedUpdateAll(condition=_differs())
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


def _differs() -> Column:
    """Null-safe, so that a label that appears or goes is a change too; an item on one side only differs by its source."""
    same = [F.col(f"old.{name}").eqNullSafe(F.col(f"new.{name}")) for name in LABEL_COLUMNS]
    return ~reduce(and_, same)
