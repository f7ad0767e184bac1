"""What publishing the staged days would change: staged labels against what is live, counted by cause, with examples."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F
from rich.table import Table as RichTable

from etl import tables
from etl.catalogue import read_catalogue
from etl.contracts import LABELS_CURRENT, Table
from etl.errors import InputError
from etl.session import hold
from etl.taxonomy import load_taxonomy
from etl.tokenizer_spec import read_spec
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse
from labeling.audit import halves, staged
from labeling.backfill.plan import Planner
from labeling.label_changes import label_changes
from labeling.lineage import last_lineage
from labeling.live_labels import current_labels
from labeling.live_log import live_state
from labeling.overrides import read_overrides
from labeling.terminal import console

log = logging.getLogger(__name__)

CHANGED = ("term", "terms", "category")
"""What differs where another label is given; of an item that is neither new nor gone the rest are numbers and reasons."""


@dataclass(frozen=True, slots=True)
class DayDiff:
    """What would change of a day."""

    ds: dt.date
    against: str
    """What it was compared with."""
    items: Mapping[str, int]
    """Kind of change -> items: same, probability, changed, new, gone."""
    causes: Sequence[tuple[str, str, int]]
    """What changes (as in LABEL_CHANGES), all that may have caused it, items."""
    examples: Sequence[Row]
    """Rows what, cause, item_id, title, old, new."""

    @property
    def changed(self) -> int:
        return sum(count for kind, count in self.items.items() if kind not in ("same", "probability"))


def diff_days(planner: Planner) -> list[DayDiff]:
    """Compare each day of the range that is staged; one that has nothing to publish is left out, and said.

    Raises:
        InputError: days that would be labelled are not staged; all of them named.
    """
    days = planner.settings.days
    not_staged = [ds for ds in days if last_lineage(planner.spark, planner.warehouse, ds) is None]
    lacking = [ds for ds in not_staged if {"predict", "publish"} & planner.day(ds).stages.keys()]
    for ds in sorted(set(not_staged) - set(lacking)):
        log.info("ds=%s: its labels would not change", ds)
    if lacking:
        raise InputError(
            f"staging holds no labels of {', '.join(map(str, lacking))} (expected all days of the range): run `labeller "
            "backfill run --no-publish` for them first"
        )
    return [diff_day(planner, ds) for ds in days if ds not in not_staged]


def diff_day(planner: Planner, ds: dt.date) -> DayDiff:
    """Staged labels of a day, overrides winning, against what publishing would replace.

    That is LABELS_CURRENT where the day would go live. An older day replaces its own rows of the history only, and is
    compared with those; with what is live if the history has none of that day.
    """
    warehouse = planner.pinned_warehouse(ds)
    with ExitStack() as held:
        lineage = last_lineage(planner.spark, warehouse, ds)
        assert lineage is not None, "diff_days looked"
        new = hold(_as_live(planner, warehouse, ds, lineage, staged=True), held)
        state, history = live_state(warehouse), planner.history_lineage(ds)
        before: Mapping[str, str | None] | None = None
        if state.newest is not None and ds < state.newest and history is not None:
            against, before = f"the history of {ds}", history
            old = _as_live(planner, warehouse, ds, history, staged=False)
        elif state.now is not None:
            against, before = f"what is live ({state.now.ds})", state.now.lineage
            old = tables.read(planner.spark, warehouse.table(LABELS_CURRENT), LABELS_CURRENT)
        else:
            against, old = "nothing: no day is live", new.limit(0)
        changes = hold(label_changes(old, new, before, lineage).transform(with_all_causes), held)
        items = count_items(changes, of=old.join(new, on="item_id", how="left_semi").count())
        causes = [tuple(row) for row in changes.groupBy("what", "cause").count().orderBy("what", F.desc("count")).collect()]
        examples = drawn(changes, old, new, planner.settings.examples).collect()
    return DayDiff(ds, against, items, causes, examples)


def with_all_causes(changes: DataFrame) -> DataFrame:
    """Result of :func:`labeling.label_changes.label_changes`, with all that differs as its cause.

    Nothing of it is live yet, and whoever decides wants to see everything that may have moved a label.
    """
    return changes.withColumn("cause", F.coalesce(F.nullif(F.array_join("differs", ", "), F.lit("")), "cause"))


def count_items(changes: DataFrame, of: int) -> dict[str, int]:
    """Items by kind of change.

    Args:
        changes: Rows item_id, what.
        of: Items that are there before and after.
    """
    what = F.collect_set("what").alias("what")
    kind = (
        F.when(F.array_contains("what", "new"), "new")
        .when(F.array_contains("what", "gone"), "gone")
        .when(F.arrays_overlap("what", F.array(*map(F.lit, CHANGED))), "changed")
        .otherwise("probability")
    )
    rows = changes.groupBy("item_id").agg(what).groupBy(kind.alias("kind")).count().collect()
    items = {row["kind"]: row["count"] for row in rows}
    return items | {"same": of - items.get("changed", 0) - items.get("probability", 0)}


def drawn(changes: DataFrame, old: DataFrame, new: DataFrame, examples: int) -> DataFrame:
    """The first few changes of each kind and cause, with titles."""
    ranked = changes.withColumn("n", F.row_number().over(Window.partitionBy("what", "cause").orderBy("item_id")))
    titles = new.select("item_id", F.col("title").alias("new_title")).join(
        old.select("item_id", F.col("title").alias("old_title")), on="item_id", how="full"
    )
    few = ranked.where(F.col("n") <= examples).join(titles, on="item_id", how="left")
    title = F.coalesce("new_title", "old_title").alias("title")
    return few.select("what", "cause", "item_id", title, "old", "new").orderBy("what", "cause", "item_id")


def _as_live(planner: Planner, warehouse: Warehouse, ds: dt.date, lineage: Mapping[str, str], *, staged: bool) -> DataFrame:
    """Rows of LABELS_CURRENT as publishing the day's staged rows, or those of its history, would make them."""
    spark, absent = planner.spark, planner.settings.absent
    spec = read_spec(warehouse.bundle(lineage["bundle"]))
    catalogue = read_catalogue(spark, warehouse, ds, spec.product_text)
    vocabulary = None if "vocabulary" in absent else load_vocabulary(spark, warehouse)
    taxonomy = None if "taxonomy" in absent else load_taxonomy(spark, warehouse)
    overrides = read_overrides(spark, warehouse, live_state(warehouse).overrides_as_of(ds), vocabulary, taxonomy)
    labels = {table: _rows(planner, warehouse, table, ds, staged) for table in halves(planner.settings)}
    return current_labels(catalogue, labels, overrides, lineage, spec.normalise)


def _rows(planner: Planner, warehouse: Warehouse, table: Table, ds: dt.date, is_staged: bool) -> DataFrame:
    if is_staged:
        return staged(planner.spark, warehouse, table, ds)
    return tables.read(planner.spark, warehouse.table(table), table, ds=ds)


def show_diff(found: Sequence[DayDiff]) -> None:
    """Counts of all days, then causes and examples of each."""
    kinds = ("same", "probability", "changed", "new", "gone")
    table = RichTable(box=None, pad_edge=False)
    for name in ("day", "against", *kinds):
        table.add_column(name, justify="right" if name in kinds else "left")
    for day in found:
        table.add_row(str(day.ds), day.against, *(f"{day.items.get(kind, 0):,}" for kind in kinds))
    out = console()
    out.print(table)
    for day in found:
        for what, cause, count in day.causes:
            out.print(f"{day.ds} {what} of {count:,} items, cause: {cause}", markup=False)
            for row in day.examples:
                if (row["what"], row["cause"]) == (what, cause):
                    old, new = row["old"] or "(none)", row["new"] or "(none)"
                    out.print(f"    {row['item_id']} {(row['title'] or '')[:60]!r}: {old} -> {new}", markup=False)
