"""Every output table, made as the contracts say, is read by Spark and by engines of another make, to the same rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

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
    for table in OUTPUTS:
        if table is not LABELS_CURRENT:
            tables.ensure(spark, str(root / table.name), table)
            spark.createDataFrame([made_row(table)], table.ddl).write.format("delta").mode("append").save(
                str(root / table.name)
            )
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


@pytest.mark.parametrize("table", OUTPUTS, ids=lambda table: table.name)
def test_polars_and_duckdb_read_the_rows_that_spark_reads(spark, warehouse, table):
    path = str(warehouse / table.name)
    key = table.keys[-1] if table is not LABELS_CURRENT else "item_id"
    by_spark = [row.asDict(recursive=True) for row in spark.read.format("delta").load(path).orderBy(key).collect()]
    by_polars = pl.read_delta(path).sort(key)
    frame = by_polars.to_arrow()  # DuckDB finds it by its name
    by_duckdb = duckdb.sql(f"SELECT * FROM frame ORDER BY {key}").pl().to_dicts()
    assert len(by_spark) == (3 if table is LABELS_CURRENT else 1)
    for other in (by_polars.to_dicts(), by_duckdb):
        assert [plain(row) for row in other] == [plain(row) for row in by_spark]
    assert frame.num_rows == len(by_spark)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose times are in UTC: Spark's are of the machine's zone, without saying so."""
    return {k: v.astimezone(dt.UTC) if isinstance(v, dt.datetime) else v for k, v in sorted(row.items())}


def test_a_row_that_does_not_meet_a_constraint_is_refused_by_every_table_that_has_one(spark, warehouse):
    for table in OUTPUTS:
        for name, condition in table.checks.items():
            broken = spark.createDataFrame([made_row(table)], StructType.fromDDL(table.ddl)).where("false")
            assert broken.where(condition).isEmpty()
            assert name in " ".join(table_contract.properties(table))


def test_the_change_feed_of_what_is_live_tells_spark_and_delta_rs_what_the_second_day_changed(spark, warehouse):
    path, first = str(warehouse / LABELS_CURRENT.name), 2
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", first).load(path)
    by_spark = {(row["item_id"], row["_change_type"]) for row in feed.collect() if row["ds"] == NEXT or "pre" in row[-3]}
    assert {("i3", "insert"), ("i2", "update_postimage"), ("i2", "update_preimage")} <= by_spark
    changes = pl.DataFrame(deltalake.DeltaTable(path).load_cdf(starting_version=first))
    by_rs = set(changes.select("item_id", "_change_type").rows())
    assert by_rs == {(row["item_id"], row["_change_type"]) for row in feed.collect()}
