"""Every output table, made as the contracts say, is read by Spark and by engines of another make, to the same rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl import table_contract, tables
from etl.contracts import LABELS_CURRENT, OUTPUTS, Table
from tests.delta_data import NOON
from tests.live_data import commit, lineage, live_row
from tests.rows import DS

NEXT = DS + dt.timedelta(days=1)
VALUES: dict[str, Any] = {
    "string": "it's", "date": DS, "timestamp": NOON, "boolean": True, "int": 1, "bigint": 1, "double": 0.5,
    "binary": b"\x00\x3c", "array<string>": ["红色", "mug"], "array<double>": [0.5, 0.25],
    "array<struct<term_id: string, term: string, score: double, probability: double>>": [("t1", "mug", 0.5, 0.5)],
    "array<struct<query: string, clicks: bigint, users: bigint, weight: double>>": [("mug", 1, 1, 0.5)],
}  # fmt: skip
"""Of each type of a column."""
MET: dict[str, dict[str, Any]] = {
    "pairs": {"split": "train"},
    "etl_counts": {"rows_dropped": 0},
    "item_terms": {"reason": None},
    "label_changes": {"what": "term", "cause": "title"},
    "similar_items": {"similar_item_id": "another"},
    "term_candidates": {"proposal": "new"},
}
"""What a row says so that it meets the constraints of its table."""


def made_row(table: Table) -> tuple[Any, ...]:
    return tuple(MET.get(table.name, {}).get(c.name, VALUES[c.type]) for c in table.columns)


@pytest.fixture(scope="module")
def warehouse(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One row in every table, and of labels_current two days that went live as the publishing does it."""
    root = tmp_path_factory.mktemp("every")
    commit(spark, root, DS, [live_row("i1"), live_row("i2")], lineage("r1"))
    commit(spark, root, NEXT, [live_row("i1"), live_row("i2", terms=["mug"]), live_row("i3")], lineage("r2"))

    def make(table: Table) -> None:
        path = str(root / table.name)
        tables.ensure(spark, path, table)
        spark.createDataFrame([made_row(table)], table.ddl).write.format("delta").mode("append").save(path)

    with ThreadPoolExecutor(4) as pool:  # one at a time, a core waits half of the time
        list(pool.map(make, [table for table in OUTPUTS if table is not LABELS_CURRENT]))
    return root


@pytest.mark.parametrize("table", OUTPUTS, ids=lambda table: table.name)
def test_a_table_says_what_its_contract_says_in_a_form_that_every_engine_reads(warehouse, table):
    path = str(warehouse / table.name)
    assert table_contract.differences(path, table) == []
    found = deltalake.DeltaTable(path)
    assert found.protocol().min_reader_version == 1
    assert found.protocol().reader_features in (None, [])
    assert found.metadata().description == table.comment
    assert {f.name: f.metadata["comment"] for f in found.schema().fields} == {c.name: c.comment for c in table.columns}
    constraints = {k.removeprefix("delta.constraints."): v for k, v in found.metadata().configuration.items()
                   if k.startswith("delta.constraints.")}  # fmt: skip
    assert constraints == table.checks


def test_polars_and_duckdb_read_the_rows_that_spark_reads(spark, warehouse):
    def by_spark(table: Table) -> list[dict[str, Any]]:
        return plain(
            row.asDict(recursive=True) for row in spark.read.format("delta").load(str(warehouse / table.name)).collect()
        )

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(OUTPUTS, pool.map(by_spark, OUTPUTS), strict=True))
    for table, rows in found.items():
        assert len(rows) == (3 if table is LABELS_CURRENT else 1), table.name
        by_polars = pl.read_delta(str(warehouse / table.name))
        assert plain(by_polars.to_dicts()) == rows, table.name
        frame = by_polars.to_arrow()  # DuckDB finds it by its name
        assert plain(duckdb.sql("FROM frame").pl().to_dicts()) == rows, table.name
        assert frame.num_rows == len(rows)


def plain(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in one order, with times in UTC: Spark's are of the machine's zone, without saying so."""
    utc = [{k: v.astimezone(dt.UTC) if isinstance(v, dt.datetime) else v for k, v in sorted(row.items())} for row in rows]
    return sorted(utc, key=lambda row: str(row.get("item_id")))


def test_the_change_feed_of_what_is_live_tells_spark_and_delta_rs_what_the_second_day_changed(spark, warehouse):
    path = str(warehouse / LABELS_CURRENT.name)
    second = max(commit["version"] for commit in deltalake.DeltaTable(path).history() if commit["operation"] == "MERGE")
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", second).load(path)
    by_spark = sorted((row["item_id"], row["_change_type"]) for row in feed.collect())
    assert by_spark == [("i2", "update_postimage"), ("i2", "update_preimage"), ("i3", "insert")]
    changes = pl.DataFrame(deltalake.DeltaTable(path).load_cdf(starting_version=second))
    assert sorted(changes.select("item_id", "_change_type").rows()) == by_spark
