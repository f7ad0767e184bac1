"""Encode the titles of a day's catalogue that this bundle has not encoded yet: CATALOGUE -> ITEM_EMBEDDINGS."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

from delta.tables import DeltaTable
from pydantic import Field
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config, tables
from etl.catalogue import read_catalogue
from etl.config import SparkJobConfig
from etl.contracts import CATALOGUE, ITEM_EMBEDDINGS
from etl.errors import InputError
from etl.inputs import version_of
from etl.job import run_job
from etl.runs import Cost, expected_cost, record_stage
from etl.session import start_session
from etl.warehouse import Warehouse, is_delta
from labeling.encoding import VECTOR_SCHEMA, Device, encode_texts, labelling_bundle
from labeling.product_text import NOT_ENCODABLE, with_texts
from labeling.tally import Tally, watched
from model.bundle import Bundle, load_bundle

log = logging.getLogger(__name__)


class EmbedConfig(SparkJobConfig):
    """Settings of the embedding job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "embed")

    bundle: str = ""
    """Bundle to encode with, by its id; empty: the champion."""

    partitions: Annotated[int, Field(ge=0)] = 0
    """Spark partitions for encoding; 0: twice the cores (or GPUs). The vectors do not depend on it."""

    device: Device = "task"
    """Where to encode; task: on the GPU that Spark gives to a task, on the CPU where it gives none; cpu: there, whatever
    Spark gives."""

    max_poison_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of items that may lack a vector (no text, too long, not encodable); real catalogues have under
    1%, more means that the wrong column or a broken export came in."""

    min_poison_items: Annotated[int, Field(ge=0)] = 20
    """Items without a vector that are always let through: a share of few items says nothing."""

    dry_run: bool = False
    """Only say what would be encoded and what it would cost; nothing is written."""

    @property
    def writes(self) -> bool:
        """A dry run does not."""
        return not self.dry_run


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(EmbedConfig, "labeller embed", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), EmbedConfig, run, argv)


def run(settings: EmbedConfig) -> Mapping[str, Any]:
    """Encode what is missing, or with ``dry_run`` say how much that is.

    Raises:
        InputError: no bundle, no catalogue of that day, or too many items that cannot be encoded.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    bundle = load_bundle(labelling_bundle(warehouse, settings.bundle))
    spark = start_session("labeller embed", settings)
    with ExitStack() as held:
        work = plan(spark, warehouse, settings, bundle, held)
        if settings.dry_run:
            log.info("dry run: nothing was written")
            cost = "unknown" if work.cost is None else round(work.cost.seconds)
            return {**work.counts, "to_encode": work.to_encode, "cost_seconds": cost, "bundle": bundle.id}
        counts = dict(work.counts) | execute(spark, warehouse, settings, bundle, work, held)
    record_stage(
        spark, warehouse, settings.ds, "embed",
        inputs={CATALOGUE.name: version_of(spark, warehouse, CATALOGUE, [settings.ds])},
        counts=counts, seconds=time.monotonic() - started, bundle=bundle.id,
    )  # fmt: skip
    return counts | {"bundle": bundle.id, "table": warehouse.table(ITEM_EMBEDDINGS)}


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has before it."""

    texts: DataFrame
    """Rows item_id, title, text_hash, text, reason of all items."""
    missing: DataFrame
    """Rows text_hash, text, reason of the distinct texts without a vector of the bundle."""
    to_encode: int
    """Rows of ``missing``."""
    counts: Mapping[str, int]
    """Items, distinct texts, and those of them whose vector is there."""
    cost: Cost | None
    """None if no run has measured a rate yet."""


def plan(spark: SparkSession, warehouse: Warehouse, settings: EmbedConfig, bundle: Bundle, held: ExitStack) -> Work:
    """Count what is there and what is missing, and say it; writes nothing.

    Raises:
        InputError: no catalogue of that day, or too many items without a text.
    """
    spec = bundle.tokenizer.spec
    catalogue = read_catalogue(spark, warehouse, settings.ds, spec.product_text)
    texts = _kept(catalogue.transform(with_texts(spec.normalise)), held)
    items = texts.count()
    refuse_poison(texts, settings)  # before anything is encoded
    distinct = texts.select("text_hash", "text", "reason").dropDuplicates(["text_hash"])
    missing = _kept(distinct.join(_done(spark, warehouse, bundle.id), on="text_hash", how="left_anti"), held)
    number, to_encode = distinct.count(), missing.count()
    log.info(
        "plan: %d items, %d distinct texts: reuse %d vectors, encode %d texts with bundle %s",
        *(items, number, number - to_encode, to_encode, bundle.id),
    )
    cost = expected_cost(spark, warehouse, "embed", bundle.id, done="encoded", timed="encoding_seconds", units=to_encode)
    log.info("plan: cost %s", cost or "unknown, since no run of this stage has measured a rate yet")
    return Work(texts, missing, to_encode, {"items": items, "texts": number, "reused": number - to_encode}, cost)


def execute(
    spark: SparkSession, warehouse: Warehouse, settings: EmbedConfig, bundle: Bundle, work: Work, held: ExitStack
) -> dict[str, int | float]:
    """Encode what is missing and insert it; returns further counts.

    Raises:
        InputError: the encoder failed on too many texts.
    """
    tables.ensure(spark, warehouse.table(ITEM_EMBEDDINGS), ITEM_EMBEDDINGS)
    started = time.monotonic()
    tally = Tally.of(spark)
    encoded = _kept(encode(work.missing, bundle, settings.partitions, device=settings.device, tally=tally), held)
    with watched(tally, work.to_encode):
        rows = encoded.count()
    seconds = time.monotonic() - started
    log.info("%d texts encoded in %.1f s; %d calls halved for lack of memory", rows, seconds, tally.halved.value)
    failed = encoded.where(F.col("reason") == NOT_ENCODABLE).select("text_hash", F.col("reason").alias("failure"))
    refuse_poison(
        work.texts.join(failed, on="text_hash", how="left").withColumn("reason", F.coalesce("failure", "reason")), settings
    )
    if rows:
        _insert(encoded, warehouse, bundle.id, settings.ds, rows)
    return {"encoded": rows, "encoding_seconds": round(seconds, 3), "halved_calls": tally.halved.value}


def encode(
    texts: DataFrame, bundle: Bundle, partitions: int = 0, *, device: Device = "task", tally: Tally | None = None
) -> DataFrame:
    """Rows text_hash, text, reason (hashes distinct) -> text_hash, vector, dim, reason."""
    tasks = partitions or 2 * texts.sparkSession.sparkContext.defaultParallelism
    work = partial(encode_texts, path=str(bundle.path), bundle_id=bundle.id, device=device, tally=tally)
    return texts.repartition(tasks, "text_hash").mapInArrow(work, VECTOR_SCHEMA)


def _kept(frame: DataFrame, held: ExitStack) -> DataFrame:
    held.callback(frame.persist(StorageLevel.DISK_ONLY).unpersist)
    return frame


def _done(spark: SparkSession, warehouse: Warehouse, bundle_id: str) -> DataFrame:
    """text_hash of what needs no encoding."""
    path = warehouse.table(ITEM_EMBEDDINGS)
    if not is_delta(path):
        return spark.createDataFrame([], "text_hash string")
    tables.ensure(spark, path, ITEM_EMBEDDINGS)  # of the same contract
    known = tables.read(spark, path, ITEM_EMBEDDINGS, bundle=bundle_id)
    # What the encoder failed on is tried again each night: another version of it may not fail.
    return known.where(~F.col("reason").eqNullSafe(NOT_ENCODABLE)).select("text_hash")


def refuse_poison(texts: DataFrame, settings: EmbedConfig) -> None:
    """Rows item_id, title, reason: stop the run if too many have a reason.

    Raises:
        InputError: with the number per reason and a sample of items.
    """
    by_reason = {row["reason"]: row["count"] for row in texts.groupBy("reason").count().collect()}
    items = sum(by_reason.values())
    poison = items - by_reason.pop(None, 0)
    if poison <= max(settings.min_poison_items, settings.max_poison_share * items):
        for reason, count in sorted(by_reason.items()):
            log.warning("%d of %d items of the catalogue get no vector: %s", count, items, reason)
        return
    sample = texts.where("reason IS NOT NULL").orderBy("item_id").limit(5).collect()
    shown = "".join(f"\n  - item_id {r['item_id']!r}: {r['reason']}, title {(r['title'] or '')[:60]!r}" for r in sample)
    raise InputError(
        f"catalogue/ds={settings.ds}: {poison} of {items} items cannot be encoded ({by_reason}; expected at most "
        f"{settings.max_poison_share:.1%} or {settings.min_poison_items}): is the product text made of the right columns? "
        f"Else raise [embed] max_poison_share. For example:{shown}"
    )


def _insert(encoded: DataFrame, warehouse: Warehouse, bundle_id: str, ds: dt.date, sent: int) -> None:
    """Insert the new rows by one commit; texts that another day's run inserted meanwhile are left as they are."""
    spark = encoded.sparkSession
    path = warehouse.table(ITEM_EMBEDDINGS)
    rows = encoded.withColumn("bundle", F.lit(bundle_id)).withColumn("first_ds", F.lit(ds)).select(*ITEM_EMBEDDINGS.names)
    # The literal keeps the MERGE to this bundle's partition and away from another bundle's writer.
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("old")
        .merge(rows.alias("new"), f"old.bundle = '{bundle_id}' AND old.text_hash = new.text_hash")
        .whenMatchedUpdateAll(condition="old.vector IS NULL AND new.vector IS NOT NULL")
        .whenNotMatchedInsertAll()
    )
    tables.execute_merge(merge, path, {"ds": ds, "stage": "embed", "bundle": bundle_id})
    landed = tables.read(spark, path, ITEM_EMBEDDINGS, bundle=bundle_id)
    lacking = encoded.join(landed, on="text_hash", how="left_anti").count()
    if lacking:
        raise tables.WriteError(f"{ITEM_EMBEDDINGS.name}: {lacking} of {sent} new vectors did not land")
    log.info("%s version %d: %d new vectors", ITEM_EMBEDDINGS.name, tables.latest_version(spark, path), sent)


if __name__ == "__main__":
    sys.exit(main())
