"""Make live again what an earlier publishing made live: the rows of LABELS_CURRENT then, with people's overrides of now."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from pyspark.sql import DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from etl import config, tables
from etl.config import SparkConfig
from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LABELS_CURRENT, OVERRIDES, Table
from etl.errors import InputError
from etl.job import run_job
from etl.runs import record_stage
from etl.session import hold, start_session
from etl.table_lock import table_lock
from etl.taxonomy import load_taxonomy
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse
from labeling.label_changes import label_changes, record_changes
from labeling.live_labels import as_one_category, as_term_lists, merge, with_labels
from labeling.live_log import PUBLISH, ROLLBACK, LiveCommit, live_commits, live_metadata, live_state
from labeling.overrides import CATEGORY_TYPE, OVERRIDES_SCHEMA, read_overrides

log = logging.getLogger(__name__)

MAX_EXAMPLES = 3
"""Changes that a dry run shows of each kind."""


class RollbackConfig(SparkConfig):
    """What to go back to."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark")

    to: str
    """Day (YYYY-MM-DD) or run whose labels are made live again, as its last publishing left them."""

    ds: dt.date | None = None
    """Day at whose end the overrides are judged; none: the newest day that ever was live, or the later
    one that made live what is live."""

    dry_run: bool = False
    """Only say what would change, with counts and examples by cause; nothing is written."""


@dataclass(frozen=True, slots=True)
class Back:
    """A rollback that can be made."""

    target: LiveCommit
    now: LiveCommit
    newest: dt.date
    """Newest day that ever was live, under which the changes are recorded."""
    judged: dt.date
    """Day at whose end overrides are judged."""
    is_older: bool
    """Whether something newer is taken back, and stays so; else this undoes a rollback."""


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(RollbackConfig, "labeller rollback", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), RollbackConfig, run, argv)


def run(settings: RollbackConfig) -> Mapping[str, Any]:
    """Restore by one commit what was live after a publishing; that commit, RUNS and LABEL_CHANGES record it.

    Raises:
        InputError: the day or run was never live, or its rows are not kept any more; what is possible is named.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    spark = start_session("labeller rollback", settings)
    with ExitStack() as held:
        if not settings.dry_run:  # nobody makes another day live between the look at what is and the commit
            held.enter_context(table_lock(spark, warehouse.table(LABELS_CURRENT)))
        back = find_way(warehouse, settings)
        rows = hold(restored(spark, warehouse, settings, back), held)
        if settings.dry_run:
            return preview(spark, warehouse, rows, back)
        counts = _make_live(rows, spark, warehouse, back) | record_changes(spark, warehouse)
        target = back.target
        record_stage(
            spark, warehouse, target.ds, ROLLBACK, inputs={LABELS_CURRENT.name: str(target.version)}, counts=counts,
            seconds=time.monotonic() - started, run_id=target.run_id, bundle=target.bundle,
        )  # fmt: skip
    return counts | {"run_id": target.run_id, "table": warehouse.table(LABELS_CURRENT)}


def find_way(warehouse: Warehouse, settings: RollbackConfig) -> Back:
    """What is live, what is to be, and what lies between.

    Raises:
        InputError: the day or run was never live; what is possible is named.
    """
    commits, state = live_commits(warehouse), live_state(warehouse)
    target = find_target(commits, settings.to)
    assert state.now is not None, "there are commits"
    assert state.newest is not None, "of a day each"
    is_older = target is not next((c for c in commits if (c.stage, c.ds) == (PUBLISH, state.newest)), None)
    return Back(target, state.now, state.newest, settings.ds or state.overrides_as_of(state.newest), is_older)


def find_target(commits: Sequence[LiveCommit], to: str) -> LiveCommit:
    """The newest publishing of a day or run.

    Raises:
        InputError: there is none.
    """
    published = [commit for commit in commits if commit.stage == PUBLISH]
    found = [commit for commit in published if to in (str(commit.ds), commit.run_id)]
    if found:
        return found[0]
    newest = {commit.run_id: commit for commit in reversed(published)}.values()
    possible = [f"ds={c.ds}, run {c.run_id} (live since {c.at:%Y-%m-%d %H:%M} UTC)" for c in newest]
    raise InputError.of(
        possible[::-1] or ["nothing: no day was published yet"],
        heading=f"--to {to!r} is no day or run that was live (what went into the history alone never was); possible are:",
    )


def restored(spark: SparkSession, warehouse: Warehouse, settings: RollbackConfig, back: Back) -> DataFrame:
    """LABELS_CURRENT as the publishing left it, with the overrides that hold now.

    Raises:
        InputError: files of that version are gone.
    """
    then = tables.read(spark, warehouse.table(LABELS_CURRENT), LABELS_CURRENT, version=back.target.version)
    _require_files(spark, then, back.target)
    lacking = [column for column in LABELS_CURRENT.columns if column.name not in then.columns]
    then = then.withColumns({column.name: F.lit(None).cast(column.type) for column in lacking})
    rows = then.join(overrides_now(spark, warehouse, settings, back.judged), on="item_id", how="left")
    return with_model_labels(rows, spark, warehouse, back.target).transform(with_labels).select(*LABELS_CURRENT.names)


def overrides_now(spark: SparkSession, warehouse: Warehouse, settings: RollbackConfig, ds: dt.date) -> DataFrame:
    """Rows of OVERRIDES_SCHEMA that hold at the end of ``ds``; none in a warehouse without the table."""
    if warehouse.has(OVERRIDES):
        vocabulary = None if "vocabulary" in settings.absent else load_vocabulary(spark, warehouse)
        taxonomy = None if "taxonomy" in settings.absent else load_taxonomy(spark, warehouse)
        found = read_overrides(spark, warehouse, ds, vocabulary, taxonomy)
        if found is not None:
            return found
    return spark.createDataFrame([], OVERRIDES_SCHEMA)


def with_model_labels(rows: DataFrame, spark: SparkSession, warehouse: Warehouse, target: LiveCommit) -> DataFrame:
    """Adds what the model said then, which for a label that a person had set then stands in the history alone.

    It is asked only where that override was withdrawn since. Where the history has the run no more, the label stays as it
    was live then.
    """
    by_person = {half: F.col(f"{half}_source") == "override" for half in ("term", "category")}
    withdrawn = {
        ITEM_TERMS: by_person["term"] & F.col("override_terms").isNull(),
        ITEM_CATEGORIES: by_person["category"] & F.col("override_category").isNull(),
    }
    for table, reshape in ((ITEM_TERMS, as_term_lists), (ITEM_CATEGORIES, as_one_category)):
        items = rows.where(withdrawn[table]).select("item_id")
        found = _history(spark, warehouse, table, target).join(items, on="item_id", how="left_semi").transform(reshape)
        rows = rows.join(F.broadcast(found), on="item_id", how="left")
    category = F.struct("category_id", "category_path", "category_probability", "category_reason").cast(CATEGORY_TYPE)
    no_terms, no_category = F.col("model_terms").isNull(), F.col("model_category").isNull()
    return rows.withColumns(
        {
            "override_terms": F.coalesce("override_terms", F.when(by_person["term"] & no_terms, F.col("terms"))),
            "override_category": F.coalesce("override_category", F.when(by_person["category"] & no_category, category)),
            "model_terms": F.when(by_person["term"], F.col("model_terms")).otherwise(F.col("terms")),
            "model_reason": F.when(by_person["term"], F.col("model_reason")).otherwise(F.col("term_reason")),
            "model_category": F.when(by_person["category"], F.col("model_category")).otherwise(category),
        }
    )


def _history(spark: SparkSession, warehouse: Warehouse, table: Table, target: LiveCommit) -> DataFrame:
    """Rows of the run in a history table, in the version that its publishing wrote: the day may be another run's by now."""
    none = spark.createDataFrame([], table.ddl)
    if table.name not in target.history:
        return none
    path, version = warehouse.table(table), target.history[table.name]
    first = tables.first_version(spark, path)
    rows = None
    if version >= first:
        rows = tables.read(spark, path, table, version=version, ds=target.ds, run_id=target.run_id)
    if rows is None or _gone(spark, rows):
        log.warning(
            "%s version %d is gone (a query was forgotten since, or it is too old): where a person had set a label and has "
            "withdrawn it since, it stays as it was live then", table.name, version,
        )  # fmt: skip
        return none
    return rows


def _require_files(spark: SparkSession, rows: DataFrame, target: LiveCommit) -> None:
    gone = _gone(spark, rows)
    if gone:
        raise InputError(
            f"ds={target.ds}, run {target.run_id}, cannot be made live again: {len(gone)} of {len(rows.inputFiles())} "
            f"files of {LABELS_CURRENT.name} version {target.version} are gone (expected all: a vacuum keeps them for the "
            "table's delta.deletedFileRetentionDuration); go back to a later day, or publish that day anew"
        )


def _gone(spark: SparkSession, rows: DataFrame) -> list[Any]:
    """Files of a frame that are no longer there."""
    jvm: Any = spark.sparkContext._jvm
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    paths = [jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(file)) for file in rows.inputFiles()]
    return [path for path in paths if not path.getFileSystem(conf).exists(path)]


def preview(spark: SparkSession, warehouse: Warehouse, rows: DataFrame, back: Back) -> dict[str, Any]:
    """Log what would change, by kind and cause, each with examples; the cause is what the rollback takes back."""
    live = tables.read(spark, warehouse.table(LABELS_CURRENT), LABELS_CURRENT)
    changes = label_changes(live, rows, back.now.lineage, back.target.lineage)
    counts, told = _by_kind(changes)
    for kind in sorted(counts):
        examples = "; ".join(f"{each['item_id']}: {each['old']} -> {each['new']}" for each in told[kind])
        log.info("plan: %s changes for %d items, cause %s: %s", kind[0], counts[kind], kind[1], examples)
    log.info("plan: live is run %s of ds=%s, then run %s of ds=%s", *_both(back))
    log.info("dry run: nothing was written")
    return {f"{what}_{cause}": count for (what, cause), count in sorted(counts.items())}


def _by_kind(changes: DataFrame) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], list[Row]]]:
    """(what, cause) -> its changes, and the first MAX_EXAMPLES of them by item, of what may be all items of the shop."""
    changes = changes.select("what", "cause", "item_id", "old", "new")
    counts = {(row["what"], row["cause"]): row["count"] for row in changes.groupBy("what", "cause").count().collect()}
    by_item = Window.partitionBy("what", "cause").orderBy("item_id")
    first = changes.withColumn("place", F.row_number().over(by_item)).where(F.col("place") <= MAX_EXAMPLES)
    told: dict[tuple[str, str], list[Row]] = {kind: [] for kind in counts}
    for row in first.orderBy("what", "cause", "place").collect():
        told[row["what"], row["cause"]].append(row)
    return counts, told


def _both(back: Back) -> tuple[str, dt.date, str, dt.date]:
    return back.now.run_id, back.now.ds, back.target.run_id, back.target.ds


def _make_live(rows: DataFrame, spark: SparkSession, warehouse: Warehouse, back: Back) -> dict[str, int]:
    metadata = live_metadata(
        ROLLBACK, back.target.ds, back.target.lineage, changes_of=back.newest, rolled_back=back.is_older,
        history=back.target.history, overrides_as_of=back.judged,
    )  # fmt: skip
    # In all columns: the rows are to say again what they said then, of their lineage too.
    columns = tuple(name for name in LABELS_CURRENT.names if name != "item_id")
    return merge(rows, spark, warehouse, metadata, columns=columns, unless_same=back.now.run_id == back.target.run_id)


if __name__ == "__main__":
    sys.exit(main())
