"""What publishing the staged days would change: staged labels against what is live, counted by cause, with examples."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row, Window
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
from etl.warehouse import Warehouse, is_delta
from labeling.audit import halves, staged
from labeling.backfill_plan import Planner
from labeling.lineage import last_lineage
from labeling.live_labels import current_labels
from labeling.live_log import live_state
from labeling.overrides import read_overrides
from labeling.terminal import console

_CAUSES = {"term": ("vocabulary",), "category": ("taxonomy",)}
"""Columns of LINEAGE that only one of the two depends on."""


@dataclass(frozen=True, slots=True)
class DayDiff:
    """What would change of a day."""

    ds: dt.date
    against: str
    """What it was compared with."""
    items: Mapping[str, int]
    """Kind of change -> items: same, probability, changed, new, gone."""
    causes: Sequence[tuple[str, str, int]]
    """What (term or category), its causes (all that differ), items."""
    examples: Sequence[Row]
    """Rows what, cause, item_id, title, old, new."""

    @property
    def changed(self) -> int:
        return sum(count for kind, count in self.items.items() if kind not in ("same", "probability"))


def diff_days(planner: Planner) -> list[DayDiff]:
    """Compare each day of the range that is staged.

    Raises:
        InputError: days are not staged; all of them named.
    """
    lacking = [ds for ds in planner.settings.days if last_lineage(planner.spark, planner.warehouse, ds) is None]
    if lacking:
        raise InputError(
            f"staging holds no labels of {', '.join(map(str, lacking))} (expected all days of the range): run `labeller "
            "backfill run --no-publish` for them first"
        )
    return [diff_day(planner, ds) for ds in planner.settings.days]


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
        newest = live_state(planner.spark, warehouse).newest
        history = planner.history_lineage(ds)
        if newest is not None and ds < newest and history is not None:
            against, old = f"the history of {ds}", _as_live(planner, warehouse, ds, history, staged=False)
        elif is_delta(warehouse.table(LABELS_CURRENT)):
            against = f"what is live ({newest})"
            old = tables.read(planner.spark, warehouse.table(LABELS_CURRENT), LABELS_CURRENT)
        else:
            against, old = "nothing: no day is live", new.limit(0)
        compared = hold(compare(new, old), held)
        items = {row["kind"]: row["count"] for row in compared.groupBy("kind").count().collect()}
        changes = hold(by_cause(compared), held)
        causes = [tuple(row) for row in changes.groupBy("what", "cause").count().orderBy("what", F.desc("count")).collect()]
        ordered = Window.partitionBy("what", "cause").orderBy("item_id")
        ranked = changes.withColumn("n", F.row_number().over(ordered)).where(F.col("n") <= planner.settings.examples)
        examples = ranked.drop("n").orderBy("what", "cause", "item_id").collect()
    return DayDiff(ds, against, items, causes, examples)


def compare(new: DataFrame, old: DataFrame) -> DataFrame:
    """LABELS_CURRENT to be and as it is -> one row an item: ``new``, ``old`` (its rows), ``kind`` of change.

    A term changes with the list of terms and their order; ``probability`` are items of which only numbers change.
    """
    pair = [
        frame.select("item_id", F.struct(*(c for c in frame.columns if c != "item_id")).alias(name))
        for name, frame in (("new", new), ("old", old))
    ]
    both = pair[0].join(pair[1], on="item_id", how="full")
    numbers = _differs("term_probability") | _differs("category_probability") | _differs("terms")
    kind = (
        F.when(F.col("old").isNull(), "new")
        .when(F.col("new").isNull(), "gone")
        .when(_changed("term") | _changed("category"), "changed")
        .when(numbers, "probability")
        .otherwise("same")
    )
    return both.withColumn("kind", kind)


def by_cause(compared: DataFrame) -> DataFrame:
    """Rows of :func:`compare` -> what, cause, item_id, title, old, new of each term and category that changed."""
    shown = {"term": ("term", "term_reason"), "category": ("category_path", "category_reason")}
    parts = []
    for what, (label, reason) in shown.items():
        texts = [
            F.coalesce(f"{side}.{label}", F.concat(F.lit("none: "), F.coalesce(f"{side}.{reason}", F.lit("?")))).alias(side)
            for side in ("old", "new")
        ]
        changed = compared.where((F.col("kind") == "changed") & _changed(what))
        named = (F.lit(what).alias("what"), _cause(what).alias("cause"), "item_id", F.col("new.title").alias("title"))
        parts.append(changed.select(*named, *texts))
    return parts[0].unionByName(parts[1])


def _cause(what: str) -> Column:
    """All that a change may come from: nobody can tell which of several did it. Settings where nothing else differs."""
    override = (F.col(f"new.{what}_source") == "override") | (F.col(f"old.{what}_source") == "override")
    clicks = ~F.get_json_object("new.inputs", "$.pairs").eqNullSafe(F.get_json_object("old.inputs", "$.pairs"))
    named = {"title": _differs("title"), "model": _differs("bundle"), "calibration": _differs("calibration")}
    named |= {name: _differs(name) for name in _CAUSES[what]} | {"clicks": clicks, "code": _differs("code")}
    found = F.concat_ws(", ", *(F.when(differs, name) for name, differs in named.items()))
    return F.when(override, "override").when(found != "", found).otherwise("settings")


def _changed(what: str) -> Column:
    if what == "category":
        return _differs("category_id")
    ids = [F.transform(f"{side}.terms", lambda term: term["term_id"]) for side in ("new", "old")]
    return ~ids[0].eqNullSafe(ids[1])


def _differs(name: str) -> Column:
    return ~F.col(f"new.{name}").eqNullSafe(F.col(f"old.{name}"))


def _as_live(planner: Planner, warehouse: Warehouse, ds: dt.date, lineage: Mapping[str, str], *, staged: bool) -> DataFrame:
    """Rows of LABELS_CURRENT as publishing the day's staged rows, or those of its history, would make them."""
    spark, absent = planner.spark, planner.settings.absent
    spec = read_spec(warehouse.bundles / lineage["bundle"])
    catalogue = read_catalogue(spark, warehouse, ds, spec.product_text)
    vocabulary = None if "vocabulary" in absent else load_vocabulary(spark, warehouse)
    taxonomy = None if "taxonomy" in absent else load_taxonomy(spark, warehouse)
    overrides = read_overrides(spark, warehouse, ds, vocabulary, taxonomy)
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
                    out.print(
                        f"    {row['item_id']} {(row['title'] or '')[:60]!r}: {row['old']} -> {row['new']}", markup=False
                    )
