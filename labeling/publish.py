"""Make the audited labels of a day live: staging -> ITEM_TERMS, ITEM_CATEGORIES, then one commit to LABELS_CURRENT."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from etl import config, tables
from etl.catalogue import read_catalogue
from etl.config import SparkJobConfig
from etl.contracts import (
    CATALOGUE,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    LABELS_CURRENT,
    LINEAGE,
    QUALITY,
    RUNS,
    Table,
)
from etl.errors import GateRefused, InputError
from etl.job import run_job
from etl.runs import record_stage
from etl.session import start_session
from etl.table_lock import table_lock
from etl.taxonomy import Taxonomy, load_taxonomy
from etl.tokenizer_spec import read_spec
from etl.vocabulary import Vocabulary, load_vocabulary
from etl.warehouse import Warehouse, is_delta
from labeling.audit import halves, staged, staged_run
from labeling.examples import EXAMPLES, told_categories
from labeling.live_labels import current_labels, merge
from labeling.overrides import read_overrides
from labeling.predict import catalogue_version

log = logging.getLogger(__name__)

STAGE = "publish"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the rows to publish were made from; ``columns`` are those of LINEAGE, ``inputs`` is the last of them, read."""

    columns: Mapping[str, str]
    inputs: Mapping[str, str]
    vocabulary: Vocabulary | None
    taxonomy: Taxonomy | None
    overrides: DataFrame | None
    """As they hold at the end of the day; see :func:`labeling.overrides.read_overrides`."""


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
    warehouse = Warehouse.of(settings)
    spark = start_session("labeller publish", settings)
    run_id = staged_run(spark, warehouse, settings)
    labels = staged_labels(spark, warehouse, settings)
    require_audit(spark, warehouse, settings.ds, run_id, labels)
    columns = lineage_columns(labels)
    template = read_spec(warehouse.bundles / columns["bundle"]).product_text
    catalogue = read_catalogue(spark, warehouse, settings.ds, template).persist(StorageLevel.DISK_ONLY)
    lineage = require_same_inputs(spark, warehouse, settings.ds, catalogue, labels, columns)
    overrides = lineage.overrides
    metadata = {"stage": STAGE, "ds": settings.ds, **lineage.columns}
    counts: dict[str, int] = {}
    for table, rows in labels.items():
        counts[table.name] = tables.write_slice(rows, warehouse.table(table), table, {"ds": settings.ds}, metadata)
    # Of two days that are published side by side, either looks after the other is live, or before it starts.
    with table_lock(spark, warehouse.table(LABELS_CURRENT)):
        newest = live_day(spark, warehouse)
        counts["live"] = int(newest is None or settings.ds >= newest)
        if counts["live"]:
            live = current_labels(catalogue, labels, overrides, lineage.columns)
            counts |= merge(live, spark, warehouse, metadata)
        else:
            log.warning(
                "ds=%s is in the history; %s stays with ds=%s, which is newer", settings.ds, LABELS_CURRENT.name, newest
            )
        record_stage(
            spark, warehouse, settings.ds, STAGE,
            inputs=lineage.inputs, counts=counts, seconds=time.monotonic() - started, run_id=run_id,
            bundle=lineage.columns["bundle"],
        )  # fmt: skip
    catalogue.unpersist()
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


def lineage_columns(labels: Mapping[Table, DataFrame]) -> dict[str, str]:
    """What every staged row says it comes from: the columns LINEAGE."""
    row = next(iter(labels.values())).select(*(column.name for column in LINEAGE)).head()
    assert row is not None, "staged_run found rows"
    return row.asDict()


def require_same_inputs(
    spark: SparkSession,
    warehouse: Warehouse,
    ds: dt.date,
    catalogue: DataFrame,
    labels: Mapping[Table, DataFrame],
    columns: Mapping[str, str],
) -> Lineage:
    """What the staged rows say they come from, held against what is there now.

    Raises:
        InputError: catalogue, vocabulary, taxonomy or few-shot examples changed since; all of them named.
    """
    vocabulary = load_vocabulary(spark, warehouse) if ITEM_TERMS in labels else None
    taxonomy = load_taxonomy(spark, warehouse) if ITEM_CATEGORIES in labels else None
    overrides = read_overrides(spark, warehouse, ds, vocabulary, taxonomy)
    inputs = json.loads(columns["inputs"])
    versions = {
        "catalogue": (inputs[CATALOGUE.name], catalogue_version(catalogue)),
        "vocabulary": (columns["vocabulary"], vocabulary.version if vocabulary else ""),
        "taxonomy": (columns["taxonomy"], taxonomy.version if taxonomy else ""),
    }
    if EXAMPLES in inputs:
        assert taxonomy is not None, "categories are told of a tree"
        now = tables.content_version(told_categories(catalogue, overrides, taxonomy))
        versions[EXAMPLES] = (inputs[EXAMPLES], now)
    problems = [
        f"{name} is of version {now!r} (the labels were made from {then!r})"
        for name, (then, now) in versions.items()
        if then != now
    ]
    if problems:
        heading = f"the inputs of run {columns['run_id']} changed since; run `labeller embed`, `predict` and `audit` again:"
        raise InputError.of(problems, heading=heading)
    return Lineage(columns, inputs, vocabulary, taxonomy, overrides)


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


if __name__ == "__main__":
    sys.exit(main())
