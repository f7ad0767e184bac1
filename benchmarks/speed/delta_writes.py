"""A day of history and a night's change of the live labels, written to Delta as `labeller publish` does, and as others do.

Ours replaces the day and counts what landed (etl.tables.write_slice); a MERGE rewrites live rows whose labels differ
(labeling.live_labels.merge, without joining the rows together before and recording the changes after). All tables have the
product's contract, so constraints and the change feed are paid for by every side; plain Parquet has neither. Rows are in
memory before, of Spark or Arrow. One session, CPU seconds of this process, the JVM among it; delta-rs and polars need none.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import deltalake
import polars as pl
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.speed.comparison import WARM_UP, Comparison, add_results_argument, faster, in_turn, record
from etl import tables
from etl.config import SparkConfig
from etl.contracts import ITEM_TERMS, LABELS_CURRENT, LINEAGE, Table
from etl.polars_scan import scan
from etl.session import start_session
from etl.warehouse import Warehouse
from labeling.lineage import constants
from labeling.live_labels import LABEL_COLUMNS, merge

DS, EARLIER = dt.date(2024, 5, 7), 2
"""The day that is written, and how many days before it the table has."""

RELABELLED_EVERY, SHIFTED = 50, 0.005
"""A night changes 3% of the live rows: one in so many gets other labels, and this share of items is gone, as many new."""

LABELS = ["item_id", *LABEL_COLUMNS]
"""What has to be equal on all sides; of a row that stays ours keeps the day and lineage that it had."""

OURS, PARQUET, DYNAMIC = "ours", "Spark, Parquet without Delta", "Spark, dynamic overwrite"
EVERY_ROW, DELTA_RS, POLARS = "Spark, MERGE of every row", "delta-rs, no JVM", "polars, no JVM"
GOALS = {PARQUET: 0.5, DYNAMIC: 0.9}
"""Least ratios for a day; none where no JVM is paid for."""


@dataclass(frozen=True, slots=True)
class Writer:
    """One side: how it writes rows, to a table of its own."""

    path: Path
    write: Callable[[], Any]


def term_rows(spark: SparkSession, ds: dt.date, rows: int) -> DataFrame:
    """ITEM_TERMS of a day, one row of rank 1 for each item."""
    score = drawn(0, 1_000_000) / 1_000_000
    queries = F.transform(F.sequence(F.lit(1), drawn(1, 3) + 1), lambda n: F.concat(F.lit("red running shoes "), n))
    columns = {
        "item_id": item_id(F.col("id")),
        "rank": F.lit(1),
        "term_id": F.concat(F.lit("t"), drawn(2, 5_000)),
        "term": F.concat(F.lit("product term "), drawn(2, 5_000)),
        **dict.fromkeys(("score", "probability", "cosine"), score),
        "margin": score / 10,
        "runner_up_id": F.concat(F.lit("t"), drawn(3, 5_000)),
        "runner_up": F.concat(F.lit("product term "), drawn(3, 5_000)),
        "lexical_hit": drawn(4, 2) == 1,
        "evidence": queries,
        "reason": F.lit(None),
    }
    return of_contract(spark.range(rows), ITEM_TERMS, columns | constants(ds, lineage(ds)))


def live_rows(spark: SparkSession, night: int, rows: int) -> DataFrame:
    """LABELS_CURRENT after one of two nights, 0 and 1, which differ in 3% of the rows."""
    ds = DS + dt.timedelta(days=night)
    first = night * int(rows * SHIFTED)
    changed = F.when(F.col("id") % RELABELLED_EVERY == RELABELLED_EVERY - 1, F.lit(night)).otherwise(F.lit(0))
    number = drawn(2, 5_000) + changed
    score, term = drawn(0, 1_000_000) / 1_000_000, F.concat(F.lit("product term "), number)
    of_term = F.struct(F.concat(F.lit("t"), number), term, score, score)
    columns = {
        "item_id": item_id(F.col("id")),
        "title": F.concat(F.lit("Air Zoom 39 black "), F.col("id")),
        "text_hash": F.sha2(F.col("id").cast("string"), 256),
        "term": term,
        "term_probability": score,
        "terms": F.array(of_term),
        "category_id": F.concat(F.lit("c"), drawn(5, 500)),
        "category_path": F.concat(F.lit("Sports > Shoes > Kind "), drawn(5, 500)),
        "category_probability": score,
        **dict.fromkeys(("term_source", "category_source"), F.lit("model")),
        **dict.fromkeys(("term_reason", "category_reason"), F.lit(None)),
    }
    return of_contract(spark.range(first, first + rows), LABELS_CURRENT, columns | constants(ds, lineage(ds)))


def drawn(seed: int, below: int) -> Column:
    """A whole number below, the same for an id wherever it is computed."""
    return F.pmod(F.xxhash64("id", F.lit(seed)), F.lit(below))


def item_id(number: Column) -> Column:
    return F.concat(F.lit("item"), F.lpad(number.cast("string"), 8, "0"))


def lineage(ds: dt.date) -> dict[str, str]:
    """Of a made-up run; its inputs are as long as a real one's."""
    inputs = '{"catalogue": "rows:0123456789ab", "pairs": "rows:0123456789ab"}'
    return {column.name: f"{column.name}-1" for column in LINEAGE} | {"run_id": f"{ds}-01234567", "inputs": inputs}


def of_contract(numbered: DataFrame, table: Table, columns: Mapping[str, Column]) -> DataFrame:
    """The columns of a table in their types, computed and kept in memory."""
    rows = numbered.select(
        *(columns[column.name].cast(column.type).alias(column.name) for column in table.columns)
    ).persist()
    rows.count()
    return rows


def day_writers(rows: DataFrame, root: Path) -> dict[str, Writer]:
    """Writers of a day of ITEM_TERMS under ``root``; all but Parquet to tables that have the days before already."""
    place = {name: root / "days" / name.replace(" ", "_") for name in (OURS, PARQUET, DYNAMIC, DELTA_RS, POLARS)}
    for back in range(EARLIER, 0, -1):
        ds = DS - dt.timedelta(days=back)
        earlier = rows.withColumns(constants(ds, lineage(ds))).select(*ITEM_TERMS.names)
        tables.write_slice(earlier, str(place[OURS]), ITEM_TERMS, {"ds": ds})
    for name in (DYNAMIC, DELTA_RS, POLARS):
        shutil.copytree(place[OURS], place[name])
    arrow = rows.toArrow()
    frame = pl.DataFrame(arrow)
    only_ds = f"ds = '{DS}'"

    turn = count()

    def ours() -> None:
        # Of another run each time: the same rows of the same run would be found to be there, and not be written.
        tables.write_slice(rows, str(place[OURS]), ITEM_TERMS, {"ds": DS}, lineage(DS) | {"turn": str(next(turn))})

    def parquet() -> None:
        rows.drop("ds").write.mode("overwrite").parquet(str(place[PARQUET] / f"ds={DS}"))

    def dynamic() -> None:
        writer = rows.write.format("delta").mode("overwrite").option("partitionOverwriteMode", "dynamic")
        writer.save(str(place[DYNAMIC]))

    def delta_rs() -> None:
        deltalake.write_deltalake(str(place[DELTA_RS]), arrow, mode="overwrite", predicate=only_ds)

    def polars() -> None:
        frame.write_delta(str(place[POLARS]), mode="overwrite", delta_write_options={"predicate": only_ds})

    writes = {OURS: ours, PARQUET: parquet, DYNAMIC: dynamic, DELTA_RS: delta_rs, POLARS: polars}
    return {name: Writer(place[name], write) for name, write in writes.items()}


def live_writers(nights: Sequence[DataFrame], root: Path) -> dict[str, Writer]:
    """Writers to a LABELS_CURRENT each under ``root``, which holds the first night: the next, the first again, and so on."""
    spark = nights[0].sparkSession
    warehouses = {
        name: Warehouse.at(str(made(root / "live" / name.replace(" ", "_")))) for name in (OURS, EVERY_ROW, DELTA_RS)
    }
    place = {name: Path(warehouse.table(LABELS_CURRENT)) for name, warehouse in warehouses.items()}
    merge(nights[0], spark, warehouses[OURS], lineage(DS))
    for name in (EVERY_ROW, DELTA_RS):
        shutil.copytree(place[OURS], place[name])
    arrow = [night.toArrow() for night in nights]
    tonight = {name: cycle((1, 0)) for name in place}
    same_item = "old.item_id = new.item_id"

    def ours() -> None:
        merge(nights[next(tonight[OURS])], spark, warehouses[OURS], lineage(DS))

    def every_row() -> None:
        table, rows = DeltaTable.forPath(spark, str(place[EVERY_ROW])), nights[next(tonight[EVERY_ROW])]
        change = table.alias("old").merge(rows.alias("new"), same_item).whenMatchedUpdateAll().whenNotMatchedInsertAll()
        change.whenNotMatchedBySourceDelete().execute()

    def delta_rs() -> None:
        table, rows = deltalake.DeltaTable(place[DELTA_RS]), arrow[next(tonight[DELTA_RS])]
        change = table.merge(rows, same_item, source_alias="new", target_alias="old")
        differs = " OR ".join(f"(old.{name} IS DISTINCT FROM new.{name})" for name in LABEL_COLUMNS)
        change = change.when_matched_update_all(differs).when_not_matched_insert_all()
        change.when_not_matched_by_source_delete().execute()

    writes = {OURS: ours, EVERY_ROW: every_row, DELTA_RS: delta_rs}
    return {name: Writer(place[name], write) for name, write in writes.items()}


def made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def require_landed(name: str, writer: Writer, rows: pl.DataFrame, keys: Sequence[str]) -> None:
    """See that a table holds these rows, by an engine that did not write it (polars, or for its own its reader).

    Raises:
        RuntimeError: others.
    """
    found = scan(str(writer.path)).select(rows.columns).collect()
    if "ds" in keys:
        found = found.filter(pl.col("ds") == DS)
    if not found.sort(keys).equals(rows.sort(keys)):
        raise RuntimeError(
            f"{name}: of {found.height} rows at {writer.path} some are not those that were sent, {rows.height}"
        )


def compare(
    case: str, writers: Mapping[str, Writer], rows: pl.DataFrame, keys: Sequence[str], turns: int, goals: Mapping[str, float]
) -> list[Comparison]:
    """Ours beside every peer; ``rows`` is what the tables have to hold after the last turn.

    Raises:
        RuntimeError: a table holds other rows.
    """
    costs, _ = in_turn({name: writer.write for name, writer in writers.items()}, turns)
    for name, writer in writers.items():
        require_landed(name, writer, rows, keys)
    check = f"{rows.height:,} rows read back by polars, equal"
    return [
        faster("delta", case, peer, costs[OURS], costs[peer], check=check, goal=goals.get(peer))
        for peer in writers
        if peer != OURS
    ]


def run(spark: SparkSession, root: Path, rows: int, live: int, turns: int) -> list[Comparison]:
    """Both cases, in tables under ``root``."""
    day = term_rows(spark, DS, rows)
    sent = pl.DataFrame(day.toArrow())
    case = f"a day of {rows:,} rows of item_terms"
    found = compare(case, day_writers(day, root), sent, ITEM_TERMS.keys, turns, GOALS)
    day.unpersist()
    nights = [live_rows(spark, night, live) for night in (0, 1)]
    last = pl.DataFrame(nights[(turns + WARM_UP) % 2].toArrow()).select(LABELS)
    case = f"labels_current of {live:,} rows, 3% changed"
    return found + compare(case, live_writers(nights, root), last, LABELS_CURRENT.keys, turns, {})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.delta_writes", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=300_000, help="of the day, default: %(default)s")
    parser.add_argument("--live", type=int, default=200_000, help="live rows, default: %(default)s")
    parser.add_argument("--turns", type=int, default=5, help="of each side, default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of Spark, default: %(default)s")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    with TemporaryDirectory() as scratch:
        spark = start_session("benchmark of Delta", SparkConfig(root=scratch, master=f"local[{args.threads}]"))
        try:
            found = run(spark, Path(scratch), args.rows, args.live, args.turns)
        finally:
            spark.stop()
    record(found, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
