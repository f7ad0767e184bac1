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
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from etl import config, tables
from etl.catalogue import catalogue_version, read_catalogue
from etl.config import SparkJobConfig
from etl.contracts import (
    ANNOTATION_SAMPLE,
    CATALOGUE,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    LABELS_CURRENT,
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
from labeling.annotation_sample import annotation_sample
from labeling.audit import halves, staged, staged_run
from labeling.examples import EXAMPLES, told_categories
from labeling.label_changes import record_changes
from labeling.lineage import constants, lineage_of
from labeling.live_labels import current_labels, merge
from labeling.live_log import PUBLISH, LiveState, history_versions, live_metadata, live_state
from labeling.overrides import read_overrides

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the rows to publish were made from; ``columns`` are those of LINEAGE, ``inputs`` is the last of them, read."""

    columns: Mapping[str, str]
    inputs: Mapping[str, str]
    vocabulary: Vocabulary | None
    taxonomy: Taxonomy | None


class PublishConfig(SparkJobConfig):
    """Settings of the publishing job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "publish")

    undo_rollback: bool = False
    """Whether the day goes live though a rollback took it back; without it only newer days do, and a rerun of this one
    goes into the history alone."""

    overrides_as_of: dt.date | None = None
    """Day at whose end (UTC) overrides are judged: today's makes a correction of today live before the next night. Unless
    given that of the labels, or the later one that made live what is live: no correction is taken back by the next night."""

    annotated_items: Annotated[int, Field(ge=0)] = 200
    """Items of annotation_sample, drawn from each stratum by its share: judged, 200 give a share to within .07 (95%)."""

    annotated_per_stratum: Annotated[int, Field(ge=1)] = 2
    """Least of them from each stratum that has so many: of one item nobody can say how much its like vary."""


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
    spec = read_spec(warehouse.bundle(columns["bundle"]))
    catalogue = read_catalogue(spark, warehouse, settings.ds, spec.product_text).persist(StorageLevel.DISK_ONLY)
    lineage = require_same_inputs(spark, warehouse, settings.ds, catalogue, labels, columns)
    metadata = {"stage": PUBLISH, "ds": settings.ds, **lineage.columns}
    counts: dict[str, int] = {}
    for table, rows in labels.items():
        counts[table.name] = tables.write_slice(rows, warehouse.table(table), table, {"ds": settings.ds}, metadata)
    # Of two days that are published side by side, either looks after the other is live, or before it starts.
    with table_lock(spark, warehouse.table(LABELS_CURRENT)):
        state = live_state(warehouse)
        counts["live"] = int(goes_live(state, settings, run_id))
        if counts["live"]:
            judged = settings.overrides_as_of or state.overrides_as_of(settings.ds)
            overrides = read_overrides(spark, warehouse, judged, lineage.vocabulary, lineage.taxonomy)
            live = current_labels(catalogue, labels, overrides, lineage.columns, spec.normalise)
            history = history_versions(warehouse, labels)
            counts |= make_live(live, spark, warehouse, settings.ds, lineage, state, history, judged)
            counts |= record_changes(spark, warehouse)
        # Here and not in a stage of its own: every published day has one, backfilled ones too, by a pass over the labels.
        sample = annotation_sample(catalogue, labels, settings.annotated_items, settings.annotated_per_stratum)
        stamped = sample.withColumns(constants(settings.ds, lineage.columns))
        counts[ANNOTATION_SAMPLE.name] = tables.write_slice(
            stamped, warehouse.table(ANNOTATION_SAMPLE), ANNOTATION_SAMPLE, {"ds": settings.ds}, metadata
        )
        record_stage(
            spark, warehouse, settings.ds, PUBLISH,
            inputs=lineage.inputs, counts=counts, seconds=time.monotonic() - started, run_id=run_id,
            bundle=lineage.columns["bundle"],
        )  # fmt: skip
    catalogue.unpersist()
    return counts | {"run_id": run_id, "table": warehouse.table(LABELS_CURRENT)}


def goes_live(state: LiveState, settings: PublishConfig, run_id: str) -> bool:
    """Whether the run goes live; the log says why not."""
    if state.admits(settings.ds, run_id):
        return True
    now = state.now
    if now is None or not now.rolled_back or settings.ds < now.ds:
        log.warning(
            "ds=%s is in the history; %s stays with ds=%s, which is newer", settings.ds, LABELS_CURRENT.name, state.newest
        )
        return False
    if not settings.undo_rollback:
        log.warning(
            "ds=%s is in the history; %s stays with run %s of ds=%s, since a rollback made it live again: the next day goes "
            "live as always, this one with --undo-rollback", settings.ds, LABELS_CURRENT.name, now.run_id, now.ds,
        )  # fmt: skip
    return settings.undo_rollback


def make_live(
    live: DataFrame,
    spark: SparkSession,
    warehouse: Warehouse,
    ds: dt.date,
    lineage: Lineage,
    state: LiveState,
    history: Mapping[str, int],
    overrides_as_of: dt.date,
) -> dict[str, int]:
    """The one commit to LABELS_CURRENT, which a rerun of what is live makes only if a person changed a label since."""
    again = state.now is not None and (state.now.ds, state.now.run_id) == (ds, lineage.columns["run_id"])
    metadata = live_metadata(
        PUBLISH, ds, lineage.columns, changes_of=max(ds, state.newest or ds), history=history,
        rolled_back=state.stays_back(ds, lineage.columns["run_id"]), overrides_as_of=overrides_as_of,
    )  # fmt: skip
    return merge(live, spark, warehouse, metadata, unless_same=again)


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
    found = lineage_of(next(iter(labels.values())))
    assert found is not None, "staged_run found rows"
    return found


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
    inputs = json.loads(columns["inputs"])
    versions = {
        "catalogue": (inputs[CATALOGUE.name], catalogue_version(catalogue)),
        "vocabulary": (columns["vocabulary"], vocabulary.version if vocabulary else ""),
        "taxonomy": (columns["taxonomy"], taxonomy.version if taxonomy else ""),
    }
    if EXAMPLES in inputs:
        assert taxonomy is not None, "categories are told of a tree"
        overrides = read_overrides(spark, warehouse, ds, vocabulary, taxonomy)
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
    return Lineage(columns, inputs, vocabulary, taxonomy)


if __name__ == "__main__":
    sys.exit(main())
