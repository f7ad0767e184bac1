"""Input tables as shops have them: every layout gives the same rows, by Spark and without it."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.config import JobConfig, from_args
from etl.contracts import CATALOGUE, CLICK_LOG, VOCABULARY
from etl.errors import InputError
from etl.inputs import read_day, read_input, version_of
from etl.warehouse import Warehouse
from labeling import local_tables
from tests.rows import DS, event, item, lay_down, small_warehouse

DAYS = [DS - dt.timedelta(days=n) for n in range(3)]
EVENTS = [
    event(user_id=f"u{n}", ds=day, event_time=dt.datetime.combine(day, dt.time(23, 59)))
    for day in DAYS
    for n in range(day.day)
]
RENAMED = 'columns = { user_id = "uid", event_time = "ts", ds = "dt" }'


@pytest.fixture
def clicks(spark: SparkSession, tmp_path: Path) -> DataFrame:
    lay_down(spark, tmp_path / "plain", CLICK_LOG, EVENTS)
    return spark.read.parquet(str(tmp_path / "plain" / "click_log"))


def warehouse(root: Path, settings: str = "", table: str = "click_log") -> Warehouse:
    (root / "warehouse.toml").write_text(f"[warehouse.inputs.{table}]\n{settings}\n")
    return Warehouse.of(from_args(JobConfig, argparse.Namespace(config=None, root=str(root), ds=DS)))


def theirs(frame: DataFrame) -> DataFrame:
    renamed = frame.withColumnsRenamed({"user_id": "uid", "event_time": "ts", "ds": "dt"})
    return renamed.withColumn("dt", F.date_format("dt", "yyyyMMdd"))


def write_layout(clicks: DataFrame, layout: str, path: str) -> str:
    """Write the events in one of the layouts; returns the settings that it wants."""
    renamed = theirs(clicks)
    if layout == "delta":
        clicks.write.format("delta").partitionBy("ds").save(path)
    elif layout == "parquet by day":
        clicks.write.partitionBy("ds").parquet(path)
    elif layout == "one directory":
        clicks.repartition(3).write.parquet(path)
    elif layout == "no ds":
        clicks.drop("ds").repartition(3).write.parquet(path)
    elif layout == "renamed by day":
        renamed.write.partitionBy("dt").parquet(path)
    elif layout == "renamed in one directory":
        renamed.write.parquet(path)
    elif layout == "renamed delta":
        renamed.write.format("delta").save(path)
    return f'{RENAMED}\nday_format = "yyyyMMdd"' if "renamed" in layout else ""


LAYOUTS = (
    "delta",
    "parquet by day",
    "one directory",
    "no ds",
    "renamed by day",
    "renamed in one directory",
    "renamed delta",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_days_that_are_asked_for_and_types_of_the_contract(spark, root, clicks, layout):
    where = warehouse(root, write_layout(clicks, layout, str(root / "click_log")))
    frame = read_input(spark, where, CLICK_LOG, days=DAYS[:2])
    expected = clicks.where(F.col("ds").isin(DAYS[:2])).select(*CLICK_LOG.names)
    assert frame.dtypes == [(column.name, column.type) for column in CLICK_LOG.columns]
    assert frame.exceptAll(expected).isEmpty()
    assert frame.count() == expected.count() == sum(day.day for day in DAYS[:2])
    assert read_input(spark, where, CLICK_LOG).where(F.col("ds") == F.lit(DAYS[2])).count() == DAYS[2].day
    with pytest.raises(InputError, match=f"the table holds {DAYS[2]} to {DS}"):
        read_day(spark, where, CLICK_LOG, DS + dt.timedelta(days=1))


def test_a_table_may_lie_outside_of_the_root(spark, root, clicks):
    where = warehouse(root, f'path = "{root.parent / "plain" / "click_log"}"')
    assert read_day(spark, where, CLICK_LOG, DS).count() == DS.day


@pytest.mark.parametrize("day_format", ["yyyyMMdd", "ddMMyyyy", "dd.MM.yyyy"])
def test_a_catalogue_with_their_days_is_read_alike_with_and_without_spark(spark, root, day_format):
    lay_down(spark, root / "plain", CATALOGUE, [item(ds=day) for day in DAYS])
    frame = spark.read.parquet(str(root / "plain" / "catalogue")).withColumn("dt", F.date_format("ds", day_format))
    frame.withColumnRenamed("title", "name").drop("ds").write.partitionBy("dt").parquet(str(root / "items"))
    settings = f'path = "items"\nday_format = "{day_format}"\ncolumns = {{ title = "name", ds = "dt" }}'
    where = warehouse(root, settings, "catalogue")
    columns = ("ds", "item_id", "title")
    assert [tuple(row) for row in read_day(spark, where, CATALOGUE, DS).select(*columns).collect()] == [
        (DS, "i1", "Air Zoom 39 black")
    ]
    assert local_tables.read(where, CATALOGUE, DS, columns).rows() == [(DS, "i1", "Air Zoom 39 black")]


@pytest.mark.fault("columns")
def test_a_missing_column_is_told_with_their_name_too(spark, root, clicks):
    theirs(clicks).drop("uid").write.partitionBy("dt").parquet(str(root / "click_log"))
    where = warehouse(root, f'{RENAMED}\nday_format = "yyyyMMdd"')
    for read in (lambda: read_input(spark, where, CLICK_LOG), lambda: read_input(spark, where, CLICK_LOG, days=[DS])):
        with pytest.raises(InputError, match=r"column user_id \(theirs: uid\) is missing \(expected string"):
            read()


@pytest.mark.fault("columns")
def test_one_file_of_many_that_lacks_a_renamed_column_is_refused_by_name(spark, root, clicks):
    theirs(clicks).repartition(3).write.parquet(str(root / "click_log"))
    bad = max((root / "click_log").glob("*.parquet"))
    frame = spark.read.parquet(str(bad)).drop("ts").toPandas()
    pl.from_pandas(frame).write_parquet(bad)
    where = warehouse(root, f'{RENAMED}\nday_format = "yyyyMMdd"')
    with pytest.raises(InputError, match=rf"{bad.name}: column event_time \(theirs: ts\) is missing"):
        read_input(spark, where, CLICK_LOG, days=[DS])


def test_only_a_click_log_may_do_without_days(spark, root):
    lay_down(spark, root / "plain", CATALOGUE, [item()])
    spark.read.parquet(str(root / "plain" / "catalogue")).drop("ds").write.parquet(str(root / "catalogue"))
    with pytest.raises(InputError, match="column ds is missing"):
        read_input(spark, warehouse(root), CATALOGUE)


@pytest.mark.fault("columns")
def test_a_day_that_is_mapped_and_not_there_is_refused_and_not_derived(spark, root, clicks):
    clicks.drop("ds").write.parquet(str(root / "click_log"))
    with pytest.raises(InputError, match=r"column ds \(theirs: day\) is missing"):
        read_input(spark, warehouse(root, 'columns = { ds = "day" }'), CLICK_LOG)


@pytest.mark.fault("columns")
def test_further_columns_come_as_strings_when_they_are_asked_for(spark, root):
    lay_down(spark, root / "plain", CATALOGUE, [item()])
    frame = spark.read.parquet(str(root / "plain" / "catalogue"))
    columns = {"brand": F.lit("Acme"), "price": F.lit("9.90").cast("decimal(9,2)"), "parts": F.array(F.lit(1))}
    frame.withColumns(columns).write.partitionBy("ds").parquet(str(root / "catalogue"))
    where = warehouse(root)
    row = read_day(spark, where, CATALOGUE, DS, further=("brand", "price")).collect()[0]
    assert (row["brand"], row["price"]) == ("Acme", "9.90")
    assert "brand" not in read_day(spark, where, CATALOGUE, DS).columns
    with pytest.raises(InputError, match="column brnad is missing"):
        read_input(spark, where, CATALOGUE, further=("brnad",))
    with pytest.raises(InputError, match=r"column parts is array<int> \(expected string"):
        read_input(spark, where, CATALOGUE, days=[DS], further=("parts",))


def test_the_days_read_decide_which_files_are_opened(spark, root, clicks):
    write_layout(clicks, "renamed by day", str(root / "click_log"))
    where = warehouse(root, f'{RENAMED}\nday_format = "yyyyMMdd"')
    for file in (root / "click_log" / f"dt={DAYS[2]:%Y%m%d}").iterdir():
        file.write_bytes(b"no day of ours")
    assert read_input(spark, where, CLICK_LOG, days=DAYS[:2]).count() == sum(day.day for day in DAYS[:2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_version_changes_with_what_is_read(spark, root, clicks, layout):
    where = warehouse(root, write_layout(clicks, layout, str(root / "click_log")))
    before = version_of(spark, where, CLICK_LOG, [DS])
    assert before == version_of(spark, where, CLICK_LOG, [DS])
    assert before.startswith("delta:0" if "delta" in layout else "parquet:")
    frame = spark.read.format("delta" if "delta" in layout else "parquet").load(str(root / "click_log"))
    day = next(name for name in ("ds", "dt", "event_time") if name in frame.columns)
    again = frame.localCheckpoint().write.format("delta" if "delta" in layout else "parquet").mode("append")
    (again.partitionBy(day) if "by day" in layout or layout == "delta" else again).save(str(root / "click_log"))
    later = Warehouse(where.root, where.sources)  # a job keeps to the version of Delta that it saw first
    assert version_of(spark, later, CLICK_LOG, [DS]) != before


def test_a_table_of_the_catalogue_is_refused_without_spark(root):
    where = warehouse(root, 'table = "shop.terms"', "vocabulary")
    with pytest.raises(InputError, match=r"vocabulary is shop\.terms in Spark's catalogue, which only Spark jobs can read"):
        local_tables.read(where, VOCABULARY)


def test_a_renamed_vocabulary_is_read_without_spark_and_a_missing_column_named(spark, root):
    small_warehouse(spark, root)
    spark.read.parquet(str(root / "vocabulary")).withColumnRenamed("term", "word").write.parquet(str(root / "words"))
    where = warehouse(root, 'path = "words"\ncolumns = { term = "word" }', "vocabulary")
    assert [term.term for term in local_tables.vocabulary(where).terms] == ["sneakers", "kettle"]
    with pytest.raises(InputError, match=r"lacks column term \(theirs: wrod\)"):
        local_tables.vocabulary(warehouse(root, 'path = "words"\ncolumns = { term = "wrod" }', "vocabulary"))


def test_a_job_reads_a_delta_log_at_the_version_that_it_saw_first_while_others_append(spark, clicks, tmp_path):
    path = str(tmp_path / "click_log")
    clicks.write.format("delta").save(path)
    ours = Warehouse.at(str(tmp_path))
    before = read_input(spark, ours, CLICK_LOG).count()
    clicks.write.format("delta").mode("append").save(path)
    assert read_day(spark, ours, CLICK_LOG, DS).count() == DS.day
    assert read_input(spark, ours, CLICK_LOG).count() == before
    assert version_of(spark, ours, CLICK_LOG) == "delta:0"
    later = Warehouse.at(str(tmp_path))
    assert read_input(spark, later, CLICK_LOG).count() == 2 * before
    assert version_of(spark, later, CLICK_LOG) == "delta:1"


def write_day(frame: DataFrame, root: Path, day: dt.date) -> None:
    frame.where(F.col("ds") == F.lit(day)).drop("ds").write.parquet(str(root / "click_log" / f"ds={day}"))


@pytest.mark.fault("columns")
def test_a_column_that_only_later_days_have_is_read_there_and_null_before(spark, root, clicks, caplog):
    for day in DAYS:
        write_day(clicks if day == DS else clicks.drop("dwell_ms", "position"), root, day)
    with caplog.at_level(logging.WARNING):
        rows = read_input(spark, warehouse(root), CLICK_LOG, days=DAYS).collect()
    assert len(rows) == len(EVENTS)
    assert {(row["ds"], row["dwell_ms"], row["position"]) for row in rows} == {
        (DS, 10_000, 1),
        *((day, None, None) for day in DAYS[1:]),
    }
    assert "click_log: 2 of 3 files lack the column dwell_ms, which is null there: ds=2024-05-05/part-" in caplog.text


@pytest.mark.fault("columns")
def test_a_column_that_came_with_the_newest_day_is_named_once_and_ignored(spark, root, clicks, caplog):
    for day in DAYS:
        write_day(clicks.withColumn("device", F.lit("phone")) if day == DS else clicks, root, day)
    with caplog.at_level(logging.INFO):
        rows = read_input(spark, warehouse(root), CLICK_LOG, days=DAYS)
    assert rows.columns == list(CLICK_LOG.names)
    assert rows.count() == len(EVENTS)
    (said,) = (record for record in caplog.records if "device" in record.getMessage())
    assert said.levelname == "WARNING"
    assert (
        "click_log: some of 3 files have further columns, which are ignored: device in 1 of them (ds=2024-05-07/part-"
        in (said.getMessage())
    )


@pytest.mark.fault("columns")
def test_a_column_that_came_with_the_newest_version_of_a_delta_table_is_named_and_ignored(spark, root, clicks, caplog):
    path = str(root / "click_log")
    clicks.where(F.col("ds") != F.lit(DS)).write.format("delta").partitionBy("ds").save(path)
    newest = clicks.where(F.col("ds") == F.lit(DS)).withColumn("device", F.lit("phone"))
    newest.write.format("delta").mode("append").option("mergeSchema", "true").save(path)
    with caplog.at_level(logging.INFO):
        assert read_input(spark, warehouse(root), CLICK_LOG, days=DAYS).count() == len(EVENTS)
    assert "click_log has further columns, which are ignored: device" in caplog.text


@pytest.mark.fault("columns")
def test_an_optional_column_that_today_calls_otherwise_is_said_to_be_lacking_with_what_may_be_meant(
    spark, root, clicks, caplog
):
    for day in DAYS:
        write_day(clicks.withColumnRenamed("dwell_ms", "dwell_millis") if day == DS else clicks, root, day)
    with caplog.at_level(logging.WARNING):
        rows = read_input(spark, warehouse(root), CLICK_LOG, days=DAYS).select("ds", "dwell_ms").distinct().collect()
    assert sorted(map(tuple, rows)) == [(DAYS[2], 10_000), (DAYS[1], 10_000), (DS, None)]
    assert "click_log: 1 of 3 files lack the column dwell_ms, which is null there: ds=2024-05-07/part-" in caplog.text
    assert "did you mean dwell_millis?" in caplog.text


@pytest.mark.fault("columns")
def test_one_type_in_some_files_and_another_in_others_is_refused_though_each_would_do(spark, root, clicks):
    for day in DAYS:
        write_day(clicks.withColumn("session_id", F.lit(7).cast("bigint")) if day == DS else clicks, root, day)
    with pytest.raises(InputError, match=r"session_id is bigint in 1 files \(ds=2024-05-07/part-.* and string in 2 files"):
        read_input(spark, warehouse(root), CLICK_LOG, days=DAYS)
    assert read_input(spark, warehouse(root), CLICK_LOG, days=DAYS[1:]).count() == DAYS[1].day + DAYS[2].day


@pytest.mark.fault("clocks")
def test_older_and_newer_ways_to_write_a_time_are_read_alike(spark, root, clicks):
    before = spark.conf.get("spark.sql.parquet.outputTimestampType")
    try:
        for day, kind in zip(DAYS, ("INT96", "TIMESTAMP_MICROS", "TIMESTAMP_MILLIS"), strict=True):
            spark.conf.set("spark.sql.parquet.outputTimestampType", kind)
            write_day(clicks if day == DS else clicks.drop("dwell_ms"), root, day)
    finally:
        spark.conf.set("spark.sql.parquet.outputTimestampType", before)
    found = read_input(spark, warehouse(root), CLICK_LOG, days=DAYS).select("ds", "event_time").distinct()
    assert found.exceptAll(clicks.select("ds", "event_time").distinct()).isEmpty()
    assert found.count() == len(DAYS)


def test_a_file_written_again_with_as_many_bytes_is_another_version(spark, root, clicks):
    write_day(clicks, root, DS)
    before = version_of(spark, warehouse(root), CLICK_LOG, [DS])
    file = next((root / "click_log" / f"ds={DS}").glob("*.parquet"))
    file.write_bytes(file.read_bytes())
    assert version_of(spark, warehouse(root), CLICK_LOG, [DS]) != before
