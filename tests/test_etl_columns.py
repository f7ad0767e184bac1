"""Columns of every input table gone, of another type, renamed or added, in Parquet and in Delta, by ``labeller check``."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import check_inputs
from etl.check_inputs import CheckConfig
from etl.contracts import CATALOGUE, CLICK_LOG, INPUTS, OVERRIDES, TAXONOMY, VOCABULARY, Table
from etl.errors import InputError
from tests.rows import DS, lay_down, small_warehouse

pytestmark = pytest.mark.fault("columns")

FORMATS = ("parquet", "delta")
BROKEN = {
    CLICK_LOG: ("event", "position", ("query", "querry")),
    CATALOGUE: ("updated_at", "language", ("title", "titel")),
    VOCABULARY: ("status", "synonyms", ("term", "terms")),
    TAXONOMY: ("parent_id", "name", ("category_id", "category")),
    OVERRIDES: ("author", "at", ("value", "values")),
}
"""Table -> its column that is gone, the one that becomes a double, and one that has another name."""

OPTIONAL = {CLICK_LOG: ("dwell_ms", "dwell_millis"), CATALOGUE: ("language", "lang_code"), OVERRIDES: ("until", "untill")}
"""Table -> its optional column that has another name."""


def put(spark: SparkSession, root: Path) -> dict[Table, DataFrame]:
    """The tables as they should be, to be written again by :func:`write`."""
    small_warehouse(spark, root)
    row = {"item_id": "i1", "what": "term", "value": "t2", "author": "ann", "at": dt.datetime(2024, 5, 1)}
    lay_down(spark, root, OVERRIDES, [row])
    return {table: spark.read.parquet(str(root / table.name)).localCheckpoint() for table in INPUTS}


def write(frame: DataFrame, root: Path, table: Table, file_format: str) -> None:
    (root / table.name).rename(root / f"good {table.name}")
    frame.write.format(file_format).partitionBy(*table.partition_by).save(str(root / table.name))


def check(root: Path) -> None:
    check_inputs.run(CheckConfig(root=str(root), ds=DS, master="local[2]"))


@pytest.mark.parametrize("file_format", FORMATS)
def test_all_that_is_gone_retyped_or_renamed_in_any_table_is_told_at_once_with_what_was_meant(spark, root, file_format):
    for table, frame in put(spark, root).items():
        gone, retyped, renamed = BROKEN[table]
        changed = frame.drop(gone).withColumn(retyped, F.lit(1.5)).withColumnRenamed(*renamed)
        write(changed, root, table, file_format)
    with pytest.raises(InputError) as error:
        check(root)
    message = str(error.value)
    parts = message.split("input table ")
    assert [part.partition(" ")[0] for part in parts[1:]] == [table.name for table in BROKEN]
    for part, (gone, retyped, (ours, theirs)) in zip(parts[1:], BROKEN.values(), strict=True):
        assert f"column {gone} is missing" in part
        assert f"column {retyped} is double (expected" in part
        assert f"column {ours} is missing" in part
        assert f"did you mean {theirs}?" in part


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_added_is_named_and_ignored_and_an_optional_column_under_another_name_is_asked_about(
    spark, root, caplog, file_format
):
    for table, frame in put(spark, root).items():
        added = frame.withColumn("device", F.lit("phone"))
        write(added.withColumnRenamed(*OPTIONAL[table]) if table in OPTIONAL else added, root, table, file_format)
    with caplog.at_level(logging.INFO):
        check(root)
    for table in BROKEN:
        names = sorted({"device", *OPTIONAL.get(table, ())[1:]})
        assert f"{table.name} has further columns, which are ignored: {', '.join(names)}" in caplog.text
    assert "click_log has no column dwell_ms, which is null: did you mean dwell_millis?" in caplog.text
    assert "overrides has no column until, which is null: did you mean untill?" in caplog.text
    assert "catalogue has no column" not in caplog.text  # lang_code is not near enough
