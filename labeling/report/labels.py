"""What the report shows of a day's labels themselves: how many, how sure, and some of each category and of the long tail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, Table
from labeling.report.changes import NAMES
from labeling.report.charts import histogram
from labeling.report.page import Part
from labeling.sections import Section

BINS = 20

LARGEST, OF_EACH = 12, 3
"""Top categories shown, and items of each."""

TAIL_SHARE, OF_TAIL = 0.1, 12
"""The long tail: the rarest terms, which together hold at most this share of the labelled items; and items shown of it."""


def coverage_part(now: Mapping[Table, pl.DataFrame], reasons: Mapping[str, int]) -> Part:
    """How many items have labels, and how probable these are stated to be.

    Args:
        now: Label tables of the warehouse -> their :func:`labeling.report.changes.day_labels`.
        reasons: Why items have no term -> items.
    """
    stated = {f"{NAMES[table]}s": labels["probability"].drop_nulls() for table, labels in now.items()}
    rows = []
    for (name, given), labels in zip(stated.items(), now.values(), strict=True):
        quartiles = [f"{given.quantile(q):.3f}" if len(given) else "-" for q in (0.25, 0.5, 0.75)]
        rows.append((name, f"{len(given):,}", f"{len(given) / max(len(labels), 1):.2%}", *quartiles))
    columns = ("labels", "items", "share", "lower quartile", "median probability", "upper quartile")
    tables = [Section("Coverage and stated probability", columns, rows)]
    if reasons:
        total = max(map(len, now.values()))
        shown = [(reason, f"{count:,}", f"{count / total:.2%}") for reason, count in reasons.items()]
        tables.append(Section("Items without a term, by reason", ("reason", "items", "share"), shown))
    counts = {name: _bins(values) for name, values in stated.items()}
    medians = ", ".join(f"{row[0]} {row[4]}" for row in rows)
    caption = "Items by the stated probability of their label"
    pictures = [histogram(counts, "probability", f"{caption}; medians: {medians}.", caption)]
    return Part(name="coverage", title="Coverage and confidence", pictures=pictures, tables=tables)


def _bins(values: pl.Series) -> list[int]:
    """Values in 0..1 -> how many are in each of BINS; 1 is in the last."""
    index = (values * BINS).floor().clip(0, BINS - 1).cast(pl.Int64)
    counted = dict(index.value_counts().iter_rows())
    return [counted.get(n, 0) for n in range(BINS)]


def samples_part(now: Mapping[Table, pl.DataFrame], titles: Mapping[str, str | None]) -> Part:
    """Some items of each top category, and some whose best term is a rare one, drawn by the hash of their id.

    Args:
        now: As above; a half that the warehouse lacks is not there.
        titles: Item -> raw title.
    """
    items = _joined(now)
    words, tables = [], []
    if ITEM_CATEGORIES in now:
        sizes = (
            items.filter(pl.col("level_1").is_not_null())
            .group_by("level_1")
            .len()
            .sort("len", "level_1", descending=[True, False])
        )
        for name, count in sizes.head(LARGEST).iter_rows():
            drawn = _draw(items.filter(pl.col("level_1") == name), OF_EACH)
            tables.append(_items(f"{name}: {len(drawn)} of {count:,} items", drawn, titles))
        words.append(
            f"Drawn by the hash of their id: {OF_EACH} items of each of the {LARGEST} largest categories at the top."
        )
    else:
        words.append("No categories: the warehouse declares its taxonomy absent.")
    if ITEM_TERMS in now:
        rare, count = _tail(items)
        tables.append(_items(f"The long tail: {count:,} items whose term is among the rarest", _draw(rare, OF_TAIL), titles))
        words.append(f"The long tail are the rarest terms, which together hold {TAIL_SHARE:.0%} of the items with a term.")
    return Part(name="samples", title="Samples", words=words, tables=tables)


def _joined(now: Mapping[Table, pl.DataFrame]) -> pl.DataFrame:
    """Rows item_id, term, term_probability, path, path_probability, level_1; null in a half that is absent."""
    empty = pl.DataFrame(schema=dict.fromkeys(("item_id", "shown", "level_1"), pl.String) | {"probability": pl.Float64})
    terms, paths = (now.get(name, empty) for name in (ITEM_TERMS, ITEM_CATEGORIES))
    first = terms.select("item_id", term="shown", term_probability="probability")
    second = paths.select("item_id", "level_1", path="shown", path_probability="probability")
    return first.join(second, on="item_id", how="full", coalesce=True)


def _tail(items: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The items of the rarest terms, and how many they are."""
    sizes = items.filter(pl.col("term").is_not_null()).group_by("term").len().sort("len", "term")
    within = pl.col("len").cum_sum() <= TAIL_SHARE * pl.col("len").sum()
    rare = items.join(sizes.filter(within), on="term", how="semi")
    return rare, len(rare)


def _draw(items: pl.DataFrame, count: int) -> list[dict[str, object]]:
    """By a hash that is the same in every version, so that a rerun shows the same items."""
    ids = sorted(items["item_id"], key=lambda item: hashlib.sha256(item.encode()).digest())[:count]
    rows = {row["item_id"]: row for row in items.filter(pl.col("item_id").is_in(ids)).to_dicts()}
    return [rows[item] for item in ids]


def _items(heading: str, rows: Sequence[Mapping[str, object]], titles: Mapping[str, str | None]) -> Section:
    shown = [
        (
            titles.get(str(row["item_id"])) or "(no title)",
            _label(row["term"], row["term_probability"]),
            _label(row["path"], row["path_probability"]),
        )
        for row in rows
    ]
    return Section(heading, ("title", "best term", "category path"), shown, folded=(0, 1, 2))


def _label(shown: object, probability: object) -> str:
    return f"{shown} {probability:.2f}" if shown and isinstance(probability, float) else "(none)"
