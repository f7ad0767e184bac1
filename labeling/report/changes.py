"""What the report says of churn: labels beside those of the day before, why live ones changed, and who moved most."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import polars as pl

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LABEL_CHANGES, Table
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.report.page import Part
from labeling.sections import Section

MOVERS = 10
"""Terms and paths shown that gained most, and as many that lost most."""

NAMES = {ITEM_TERMS: "best term", ITEM_CATEGORIES: "category path"}
"""Of what the rows of a label table say."""


def day_labels(warehouse: Warehouse, table: Table, ds: dt.date, *, staged: bool = False) -> pl.DataFrame:
    """Rows item_id, label, shown, probability, level_1 of a day's best terms or paths; label is null where there is none.

    ``level_1`` is null for terms. Published ones, unless ``staged``.
    """
    rows = local_tables.written(warehouse, table, staged=staged).filter(pl.col("ds") == ds)
    if table is ITEM_TERMS:
        label, shown, level = pl.col("term_id"), pl.col("term"), pl.lit(None, dtype=pl.String)
        rows = rows.filter(pl.col("rank") <= 1)
    else:
        label, shown, level = pl.col("category_id"), pl.col("path").list.join(" > "), pl.col("level_1")
    wanted = ("item_id", label.alias("label"), shown.alias("shown"), "probability", level.alias("level_1"))
    return rows.select(*wanted).collect()


def churn_part(warehouse: Warehouse, ds: dt.date, now: Mapping[Table, pl.DataFrame]) -> Part:
    """The history's newest earlier day beside this one, and the causes that LABEL_CHANGES has.

    Args:
        warehouse: Where the tables are.
        ds: The day.
        now: Label tables of the warehouse -> their :func:`day_labels` of it.
    """
    words, tables = [], []
    for table, labels in now.items():
        earlier = [day for day in local_tables.days(warehouse, table) if day < ds]
        if not earlier:
            words.append(f"{table.name} has no day before {ds}: nothing to compare with.")
            continue
        heading = f"Items by their {NAMES[table]}, {ds} beside {earlier[-1]}"
        tables.append(_compared(heading, labels, day_labels(warehouse, table, earlier[-1])))
    causes = _causes(warehouse, ds)
    if causes is None:
        words.append(
            "label_changes has nothing of this day: it did not go live, or was published before that table was kept."
        )
    else:
        tables.append(causes)
    return Part(name="churn", title="What changed, and why", words=words, tables=tables)


def _compared(heading: str, now: pl.DataFrame, before: pl.DataFrame) -> Section:
    both = now.join(before, on="item_id", how="full", suffix="_before", coalesce=True)
    old, new = pl.col("label_before"), pl.col("label")
    known = both.filter(
        pl.col("item_id").is_in(before["item_id"].implode()) & pl.col("item_id").is_in(now["item_id"].implode())
    )
    came, went = len(now) - len(known), len(before) - len(known)
    counted = known.select(
        same=(new.eq_missing(old)).sum(),
        another=(new.is_not_null() & old.is_not_null() & (new != old)).sum(),
        gained=(new.is_not_null() & old.is_null()).sum(),
        lost=(new.is_null() & old.is_not_null()).sum(),
    ).row(0, named=True)
    rows = [
        ("the same", counted["same"]), ("another", counted["another"]), ("one now, none before", counted["gained"]),
        ("none now, one before", counted["lost"]), ("new item", came), ("item gone", went),
    ]  # fmt: skip
    shown = [(what, f"{count:,}", f"{count / max(len(both), 1):.2%}") for what, count in rows]
    return Section(heading, ("label", "items", "share"), shown)


def _causes(warehouse: Warehouse, ds: dt.date) -> Section | None:
    """Changes of the newest commit under this day by cause; None if there are none on record."""
    rows = local_tables.written(warehouse, LABEL_CHANGES).filter(pl.col("ds") == ds)
    newest = rows.filter(pl.col("live_version") == pl.col("live_version").max()).collect()
    if newest.is_empty():
        return None
    counted = newest.group_by("what", "cause").len().sort("what", "len", "cause", descending=[False, True, False])
    shown = [(what, cause, f"{count:,}") for what, cause, count in counted.iter_rows()]
    version = newest["live_version"][0]
    heading = f"Live labels changed by version {version} of labels_current, by cause"
    note = "The cause is the likeliest of all that differs; docs/publishing.md says what each means."
    return Section(heading, ("what changed", "cause", "items"), shown, note)


def movers_part(warehouse: Warehouse, ds: dt.date, now: Mapping[Table, pl.DataFrame]) -> Part:
    """Terms and category paths that gained or lost most items since the history's newest earlier day."""
    words, tables = [], []
    for table, labels in now.items():
        earlier = [day for day in local_tables.days(warehouse, table) if day < ds]
        if not earlier:
            words.append(f"{table.name} has no day before {ds}: nobody can have moved.")
            continue
        moved = _moved(labels, day_labels(warehouse, table, earlier[-1]))
        what = f"{NAMES[table]}s".capitalize()
        if moved.is_empty():
            words.append(f"{what}: none has more or fewer items than on {earlier[-1]}.")
            continue
        rows = [(shown, f"{old:,}", f"{new:,}", f"{new - old:+,}") for shown, old, new in moved.iter_rows()]
        tables.append(
            Section(f"{what} that gained or lost most items", ("label", str(earlier[-1]), str(ds), "change"), rows)
        )
    return Part(name="movers", title="Top movers", words=words, tables=tables)


def _moved(now: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Rows shown, old, new of the labels whose number of items moved most, gains first; ties by name."""
    counted = [
        frame.filter(pl.col("label").is_not_null())
        .group_by("label")
        .agg(pl.col("shown").min(), pl.len().cast(pl.Int64).alias(name))
        for frame, name in ((before, "old"), (now, "new"))
    ]
    both = counted[0].join(counted[1], on="label", how="full", suffix="_new", coalesce=True)
    shown = pl.coalesce("shown_new", "shown").alias("shown")
    both = both.select(shown, pl.col("old").fill_null(0), pl.col("new").fill_null(0))
    both = both.with_columns(change=pl.col("new") - pl.col("old")).sort("change", "shown", descending=[True, False])
    gained = both.filter(pl.col("change") > 0).head(MOVERS)
    lost = both.filter(pl.col("change") < 0).sort("change", "shown").head(MOVERS)
    return pl.concat([gained, lost]).drop("change")
