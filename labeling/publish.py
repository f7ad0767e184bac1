"""Make the audited labels of a day live: staging -> ITEM_TERMS, ITEM_CATEGORIES, then one commit to LABELS_CURRENT."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config, tables
from etl.catalogue import read_catalogue
from etl.config import SparkJobConfig
from etl.contracts import (
    CATALOGUE,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    LABELS_CURRENT,
    LINEAGE,
    OVERRIDES,
    QUALITY,
    RUNS,
    Table,
)
from etl.errors import GateRefused, InputError
from etl.job import run_job
from etl.runs import record_stage
from etl.session import start_session
from etl.taxonomy import Taxonomy, load_taxonomy
from etl.vocabulary import Vocabulary, load_vocabulary
from etl.warehouse import Warehouse, is_delta
from labeling.audit import halves, staged, staged_run
from labeling.categories import LEAF
from labeling.overrides import CATEGORY_TYPE, OVERRIDES_SCHEMA, TERMS_TYPE, read_overrides
from labeling.predict import catalogue_version

log = logging.getLogger(__name__)

STAGE = "publish"

NO_VOCABULARY, NO_TAXONOMY = "no_vocabulary", "no_taxonomy"
"""Reasons in a warehouse that declares one of them absent."""

LABEL_COLUMNS = tuple(
    name for name in LABELS_CURRENT.names if name not in {"item_id", "ds", "title", *(column.name for column in LINEAGE)}
)
"""What a change is a change of: another run, day or spelling of a title alone leaves a live row as it is."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the rows to publish were made from; ``columns`` are those of LINEAGE, ``inputs`` is the last of them, read."""

    columns: Mapping[str, str]
    inputs: Mapping[str, str]
    vocabulary: Vocabulary | None
    taxonomy: Taxonomy | None


class PublishConfig(SparkJobConfig):
    """Settings of the publishing job: there is nothing to choose."""


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(PublishConfig, "labeller publish", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), PublishConfig, run, argv)


def run(settings: PublishConfig) -> Mapping[str, Any]:
    """Write the history, then make it live unless a newer day is.

    Raises:
        InputError: nothing is staged, it is not what was audited, or its inputs changed since; nothing is written then.
        GateRefused: the audit of the staged run failed.
    """
    started = time.monotonic()
    warehouse = Warehouse.at(settings.root)
    spark = start_session("labeller publish", settings)
    run_id = staged_run(spark, warehouse, settings)
    labels = staged_labels(spark, warehouse, settings)
    require_audit(spark, warehouse, settings.ds, run_id, labels)
    lineage = require_same_inputs(spark, warehouse, settings, labels)
    overrides = read_overrides(spark, warehouse, settings.ds, lineage.vocabulary, lineage.taxonomy)
    metadata = {"stage": STAGE, "ds": settings.ds, **lineage.columns}
    counts: dict[str, int] = {}
    for table, rows in labels.items():
        counts[table.name] = tables.write_slice(rows, warehouse.table(table), table, {"ds": settings.ds}, metadata)
    newest = live_day(spark, warehouse)
    counts["live"] = int(newest is None or settings.ds >= newest)
    if counts["live"]:
        live = current_labels(read_catalogue(spark, warehouse, settings.ds), labels, overrides, lineage.columns)
        counts |= merge(live, spark, warehouse, metadata)
    else:
        log.warning("ds=%s is in the history; %s stays with ds=%s, which is newer", settings.ds, LABELS_CURRENT.name, newest)
    record_stage(
        spark, warehouse, settings.ds, STAGE,
        inputs=lineage.inputs, counts=counts, seconds=time.monotonic() - started, run_id=run_id,
        bundle=lineage.columns["bundle"],
    )  # fmt: skip
    return counts | {"run_id": run_id, "table": warehouse.table(LABELS_CURRENT)}


def staged_labels(spark: SparkSession, warehouse: Warehouse, settings: SparkJobConfig) -> dict[Table, DataFrame]:
    """The staged rows of the day, of one Delta version each: what another run stages meanwhile is not seen."""
    found = {}
    for table in halves(settings):
        version = tables.latest_version(spark, warehouse.staged(table))
        found[table] = staged(spark, warehouse, table, settings.ds, version)
    return found


def require_audit(
    spark: SparkSession, warehouse: Warehouse, ds: dt.date, run_id: str, labels: Mapping[Table, DataFrame]
) -> None:
    """Let exactly these rows through only if their audit is on record and no hard check failed.

    Raises:
        InputError: they were not audited, or staged anew since.
        GateRefused: a hard check failed.
    """
    checks, audits = [], []
    if is_delta(warehouse.table(QUALITY)) and is_delta(warehouse.table(RUNS)):
        checks = tables.read(spark, warehouse.table(QUALITY), QUALITY, ds=ds, run_id=run_id).collect()
        audits = tables.read(spark, warehouse.table(RUNS), RUNS, ds=ds, stage="audit", run_id=run_id).collect()
    if not checks or not audits:
        raise InputError(f"run {run_id} of ds={ds} was not audited: run `labeller audit` first")
    failed = sorted(row["check"] for row in checks if row["hard"] and not row["passed"])
    if failed:
        raise GateRefused(f"run {run_id} of ds={ds} failed its audit ({', '.join(failed)}): nothing was published")
    audited = json.loads(audits[0]["inputs"])
    found = {table.name: tables.content_version(rows) for table, rows in labels.items()}
    changed = sorted(name for name in found if found[name] != audited.get(name))
    if changed:
        raise InputError(
            f"staging of ds={ds} is not what was audited: other rows in {', '.join(changed)}; run `labeller audit` again"
        )


def require_same_inputs(
    spark: SparkSession, warehouse: Warehouse, settings: SparkJobConfig, labels: Mapping[Table, DataFrame]
) -> Lineage:
    """What the staged rows say they come from, held against what is there now.

    Raises:
        InputError: catalogue, vocabulary or taxonomy changed since; all of them named.
    """
    row = next(iter(labels.values())).select(*(column.name for column in LINEAGE)).head()
    assert row is not None, "staged_run found rows"
    columns = row.asDict()
    vocabulary = load_vocabulary(spark, warehouse) if ITEM_TERMS in labels else None
    taxonomy = load_taxonomy(spark, warehouse) if ITEM_CATEGORIES in labels else None
    inputs = json.loads(columns["inputs"])
    versions = {
        "catalogue": (inputs[CATALOGUE.name], catalogue_version(spark, warehouse, settings.ds)),
        "vocabulary": (columns["vocabulary"], vocabulary.version if vocabulary else ""),
        "taxonomy": (columns["taxonomy"], taxonomy.version if taxonomy else ""),
    }
    problems = [
        f"{name} is of version {now!r} (the labels were made from {then!r})"
        for name, (then, now) in versions.items()
        if then != now
    ]
    if problems:
        heading = f"the inputs of run {columns['run_id']} changed since; run `labeller embed`, `predict` and `audit` again:"
        raise InputError.of(problems, heading=heading)
    return Lineage(columns, inputs, vocabulary, taxonomy)


def live_day(spark: SparkSession, warehouse: Warehouse) -> dt.date | None:
    """The newest day that went live; None before the first.

    Two records are read, since either may lack the newest day: RUNS after a crash between the commit and its row, the
    commits of LABELS_CURRENT if that day changed no label.
    """
    days: list[str] = []
    if is_delta(warehouse.table(LABELS_CURRENT)):
        commits = DeltaTable.forPath(spark, warehouse.table(LABELS_CURRENT)).history().select("userMetadata").collect()
        days += [json.loads(row[0])["ds"] for row in commits if row[0] and json.loads(row[0]).get("stage") == STAGE]
    if is_delta(warehouse.table(RUNS)):
        published = tables.read(spark, warehouse.table(RUNS), RUNS, stage=STAGE).select("ds", "counts").collect()
        days += [str(row["ds"]) for row in published if json.loads(row["counts"]).get("live")]
    return max(map(dt.date.fromisoformat, days), default=None)


# ---------------------------------------------------------------- the live rows


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
        held.callback(labels.persist().unpersist)
        return _merged(labels, spark, path, metadata)


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


if __name__ == "__main__":
    sys.exit(main())
