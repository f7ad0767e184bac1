"""Names and values of the configuration are never read as SQL."""

from __future__ import annotations

import datetime as dt
import json

import polars as pl
import pytest

from etl import log_history, tables
from etl.config import JobConfig, arg_parser, from_args
from etl.contracts import CATALOGUE, RUNS, VOCABULARY
from etl.errors import InputError
from etl.inputs import read_input
from etl.runs import record_stage
from etl.warehouse import Warehouse
from tests.rows import DS, item, lay_down, term

pytestmark = pytest.mark.fault("malicious")

EVIL = ("x`; DROP TABLE t; --", "x'; DROP TABLE t; --", 'x" OR 1=1; --', "x/*", "a.b.c.d; DROP TABLE t")


@pytest.fixture
def victim(spark):
    """A table that an injected statement would drop."""
    spark.sql("CREATE TABLE t (id INT) USING parquet")
    yield
    assert spark.catalog.tableExists("t")
    spark.sql("DROP TABLE t")


def warehouse_of(root, **inputs) -> Warehouse:
    lines = [f"[warehouse.inputs.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in source.items())
             for name, source in inputs.items()]  # fmt: skip
    (root / "warehouse.toml").write_text("\n".join(lines))
    args = arg_parser(JobConfig, "job", "").parse_args(["--root", str(root), "--ds", str(DS)])
    return Warehouse.of(from_args(JobConfig, args))


@pytest.mark.parametrize("name", EVIL)
def test_a_table_of_the_catalogue_that_is_a_statement_is_no_table(spark, root, victim, name):
    at = warehouse_of(root, vocabulary={"table": json.dumps(name)})
    with pytest.raises(InputError, match=r"vocabulary: .* cannot be read from Spark's catalogue"):
        read_input(spark, at, VOCABULARY)


@pytest.mark.parametrize("theirs", [name for name in EVIL if "/" not in name])
def test_a_column_may_be_called_like_a_statement_and_is_read_by_its_name(spark, root, victim, theirs):
    frame = pl.DataFrame([term("t1", "kettle")]).rename({"term": theirs})
    (root / "vocabulary").mkdir()
    frame.with_columns(pl.col("synonyms").cast(pl.List(pl.String))).write_parquet(root / "vocabulary" / "a.parquet")
    at = warehouse_of(root, vocabulary={"columns": f"{{ term = {json.dumps(theirs)} }}"})
    assert [row["term"] for row in read_input(spark, at, VOCABULARY).collect()] == ["kettle"]


def test_a_column_of_days_may_be_called_like_a_statement_too(spark, root, victim):
    lay_down(spark, root, CATALOGUE, [item("i1"), item("i2", ds=DS + dt.timedelta(days=1))])
    found = pl.read_parquet(root / "catalogue" / "**" / "*.parquet", hive_partitioning=True)
    name = "d`; DROP TABLE t; --"
    (root / "other").mkdir()
    found.rename({"ds": name}).write_parquet(root / "other" / "a.parquet")
    at = warehouse_of(root, catalogue={"path": '"other"', "columns": f"{{ ds = {json.dumps(name)} }}"})
    assert [row["item_id"] for row in read_input(spark, at, CATALOGUE, days=[DS]).collect()] == ["i1"]


def test_a_root_may_be_called_like_a_statement(spark, tmp_path, victim):
    root = tmp_path / "x';DROP/**/TABLE/**/t;--".replace("*", "+")
    root.mkdir(parents=True)
    at = Warehouse.at(str(root))
    record_stage(spark, at, DS, "pairs", inputs={}, counts={}, seconds=1.0)
    log_history.drop_history(spark, at.table(RUNS), {"stage": "forget"})
    assert pl.read_delta(at.table(RUNS))["stage"].to_list() == ["pairs"]


@pytest.mark.parametrize("sign", ["`", "%20"])
def test_a_root_that_readers_would_misread_is_refused(tmp_path, sign):
    with pytest.raises(InputError, match="which readers of its tables misread: rename it"):
        Warehouse.at(str(tmp_path / f"a{sign}b"))


@pytest.mark.parametrize("value", ["r1' OR '1'='1", "r1; DROP TABLE t", "../r1", "", "r1`"])
def test_a_slice_is_named_by_an_identifier_or_a_day_and_by_nothing_else(spark, root, value):
    frame = spark.createDataFrame([], RUNS.ddl)
    with pytest.raises(InputError, match="cannot name a slice of a table"):
        tables.write_slice(frame, str(root / "runs"), RUNS, {"stage": value})
