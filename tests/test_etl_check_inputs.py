from __future__ import annotations

import datetime as dt
import logging
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from etl import build_pairs, check_inputs
from etl.check_inputs import CheckConfig
from etl.contracts import CATALOGUE, CLICK_LOG, OVERRIDES, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from tests.rows import DS, event, item, lay_down, node, small_warehouse, term


def config(root: Path, **changes) -> CheckConfig:
    return CheckConfig(**{"root": str(root), "ds": DS, "master": "local[2]"} | changes)


def refused(root: Path, **changes) -> str:
    with pytest.raises(InputError) as error:
        check_inputs.run(config(root, **changes))
    return str(error.value)


def test_good_inputs_pass_and_are_counted(spark, root):
    small_warehouse(spark, root)
    assert check_inputs.run(config(root)) == {
        "events": 12,
        "bad_files": 0,
        "items": 2,
        "titles_good": 2,
        "titles_null": 0,
        "titles_empty": 0,
        "titles_too_long": 0,
        "terms": 2,
        "categories": 3,
    }


def test_bad_titles_are_counted_and_not_refused(spark, root, caplog):
    titles = ["Kettle", None, "", "  ", "?!", "x " * 500_000]
    small_warehouse(spark, root, catalogue=[item(f"i{n}", title) for n, title in enumerate(titles)])
    with caplog.at_level(logging.WARNING):
        figures = check_inputs.run(config(root))
    assert {name: figures[name] for name in figures if name.startswith("titles_")} == {
        "titles_good": 1,
        "titles_null": 1,
        "titles_empty": 3,
        "titles_too_long": 1,
    }
    assert "'titles_null': 1, 'titles_empty': 3, 'titles_too_long': 1" in caplog.text


def test_a_catalogue_without_one_good_title_is_refused(spark, root):
    small_warehouse(spark, root, catalogue=[item("i1", None), item("i2", "")])
    assert f"table catalogue, ds={DS}: {{title}} is good in none of 2 rows" in refused(root)


@pytest.mark.parametrize("table", [CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY], ids=lambda table: table.name)
def test_a_missing_table_is_refused_by_name_and_place(spark, root, table):
    small_warehouse(spark, root)
    (root / table.name).rename(root / "elsewhere")
    assert f"input table {table.name} is not at {root / table.name}" in refused(root)


def test_a_day_without_one_event_of_a_known_kind_is_refused_with_the_kinds_found(spark, root):
    kinds = ["view_item"] * 5 + ["purchase"]
    small_warehouse(spark, root, click_log=[event(event=kind) for kind in kinds])
    message = refused(root)
    assert f"table click_log, ds={DS}: column event is of a known kind in none of 6 rows" in message
    assert "expected impression, click, cart or order; found 'view_item' 5 times, 'purchase' 1 times)" in message


@pytest.mark.fault("personal-data")
def test_of_a_column_that_holds_queries_no_value_is_told(spark, root):
    queries = ["Quetzal kettle", "joe@example.com", "+49 171 5551234", "view_item", "view_item"]
    small_warehouse(spark, root, click_log=[event(event=query) for query in queries])
    message = refused(root)
    assert "found 'view_item' 2 times, other values 3 times)" in message
    assert not [query for query in queries[:3] if query in message]
    words = [f"word{'x' * n}" for n in range(21)]  # each looks like a kind, but no log has so many
    lay_down(spark, root, CLICK_LOG, [event(event=word) for word in words])
    assert "found other values 21 times)" in refused(root)


def test_a_day_most_of_whose_events_are_of_no_known_kind_passes_with_a_warning(spark, root, caplog):
    small_warehouse(spark, root, click_log=[event(event=kind) for kind in ("hover", "hover", None, "order")])
    with caplog.at_level(logging.WARNING):
        assert check_inputs.run(config(root))["events"] == 4
    assert f"click_log/ds={DS}: 3 of 4 events are of no known kind" in caplog.text


@pytest.mark.fault("columns")
def test_a_missing_column_is_refused_by_name(spark, root):
    small_warehouse(spark, root)
    frame = spark.read.parquet(str(root / "click_log")).drop("event").localCheckpoint()
    frame.write.mode("overwrite").partitionBy("ds").parquet(str(root / "click_log"))
    assert "column event is missing (expected string" in refused(root)


@pytest.mark.fault("columns")
def test_a_log_without_sessions_positions_and_dwell_is_good_enough(spark, root):
    small_warehouse(spark, root)
    frame = spark.read.parquet(str(root / "click_log")).drop("session_id", "position", "dwell_ms").localCheckpoint()
    frame.write.mode("overwrite").partitionBy("ds").parquet(str(root / "click_log"))
    assert check_inputs.run(config(root))["events"] == 12


def test_a_damaged_file_of_the_log_passes_only_under_the_limit_and_is_counted(spark, root):
    small_warehouse(spark, root)
    (root / "click_log" / f"ds={DS}" / "part-99999.parquet").write_bytes(b"no parquet")
    assert "part-99999.parquet" in refused(root)
    (root / "warehouse.toml").write_text("[pairs]\nmax_bad_files = 1\n")
    assert check_inputs.run(config(root))["bad_files"] == 1


@pytest.mark.fault("columns")
def test_a_column_that_only_today_lacks_or_types_otherwise_is_refused_with_the_day(spark, root):
    yesterday = DS - dt.timedelta(days=1)
    small_warehouse(spark, root, click_log=[event(), event(ds=yesterday)])
    day = root / "click_log" / f"ds={DS}"
    frame = spark.read.parquet(str(day)).drop("query").withColumn("dwell_ms", F.lit("long")).localCheckpoint()
    frame.write.mode("overwrite").parquet(str(day))
    message = refused(root)
    assert f"ds={DS}/part-" in message
    assert "column query is missing (expected string" in message
    assert "column dwell_ms is string (expected bigint or int)" in message


@pytest.mark.fault("columns")
def test_differences_in_files_of_several_days_of_the_window_are_all_told_at_once(spark, root):
    earlier = DS - dt.timedelta(days=2)
    small_warehouse(spark, root, click_log=[event(), event(ds=earlier)])
    for day, column in ((DS, "event"), (earlier, "user_id")):
        file = next((root / "click_log" / f"ds={day}").glob("*.parquet"))
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns([column]), file)
    message = refused(root)
    assert f"ds={DS}/part-" in message
    assert "column event is missing" in message
    assert f"ds={earlier}/part-" in message
    assert "column user_id is missing" in message


def test_bad_files_of_several_days_of_the_window_are_all_told_at_once(spark, root):
    days = [DS, DS - dt.timedelta(days=2)]
    small_warehouse(spark, root, click_log=[event(ds=day) for day in days])
    bad = [root / "click_log" / f"ds={day}" / f"part-{day.day}.parquet" for day in days]
    for file in bad:
        file.write_bytes(b"no parquet")
    message = refused(root)
    assert [str(file) in message for file in bad] == [True, True]


@pytest.mark.fault("columns")
@pytest.mark.parametrize("table", ["click_log", "vocabulary"])
def test_one_bad_file_among_good_ones_is_refused_by_name(spark, root, table):
    small_warehouse(spark, root)
    where = root / table / f"ds={DS}" if table == "click_log" else root / table
    good = pq.read_table(next(where.glob("*.parquet")))
    column = {"click_log": "event", "vocabulary": "status"}[table]
    pq.write_table(good.drop_columns([column]), where / "part-99999.parquet")
    message = refused(root)
    assert "part-99999.parquet: column" in message
    assert f"column {column} is missing" in message


def test_days_that_the_window_lacks_are_named(spark, root, caplog):
    days = [DS, DS - dt.timedelta(days=2)]
    small_warehouse(spark, root, click_log=[event(ds=day) for day in days])
    (root / "warehouse.toml").write_text("[pairs]\nwindow_days = 3\n")
    assert check_inputs.run(config(root))["events"] == 1
    assert f"click_log has no events on 1 of 3 days: {DS - dt.timedelta(days=1)}" in caplog.text


def test_files_that_delta_replaced_long_ago_are_not_held_against_the_contract(spark, root):
    small_warehouse(spark, root)
    frame = spark.read.parquet(str(root / "click_log")).localCheckpoint()
    shutil.rmtree(root / "click_log")
    for columns in ({"position": F.lit("first")}, {"position": F.lit(1)}):
        writer = frame.withColumns(columns).write.format("delta").partitionBy("ds").mode("overwrite")
        writer.option("overwriteSchema", "true").save(str(root / "click_log"))
    assert check_inputs.run(config(root))["events"] == 12


@pytest.mark.fault("columns")
def test_a_column_of_the_wrong_type_is_refused_by_name_and_types(spark, root):
    small_warehouse(spark, root)
    frame = spark.read.parquet(str(root / "taxonomy")).withColumn("name", F.lit(1.5)).localCheckpoint()
    frame.write.mode("overwrite").parquet(str(root / "taxonomy"))
    message = refused(root)
    assert f"input table taxonomy at {root / 'taxonomy'}" in message
    assert "column name is double (expected string)" in message


@pytest.mark.fault("volume")
@pytest.mark.parametrize("table", [CLICK_LOG, CATALOGUE], ids=lambda table: table.name)
def test_a_day_that_is_not_there_is_refused_with_the_days_that_are(spark, root, table):
    yesterday = DS - dt.timedelta(days=1)
    rows = {"click_log": [event(ds=yesterday)], "catalogue": [item(ds=yesterday)]}
    small_warehouse(spark, root, **{table.name: rows[table.name]})
    assert f"{table.name}/ds={DS} has 0 rows (expected >= 1; the table holds {yesterday} to {yesterday})" in refused(root)


@pytest.mark.fault("volume")
def test_a_day_whose_files_hold_no_row_ends_check_and_pairs_with_2_before_anything_is_written(spark, root, capsys):
    small_warehouse(spark, root)
    for table in ("click_log", "catalogue"):
        (file,) = (root / table / f"ds={DS}").glob("*.parquet")
        rows = pq.read_table(file, partitioning=None)
        file.unlink()
        pq.write_table(rows.slice(0, 0), file.with_name("part-0.parquet"))
    argv = ["--root", str(root), "--ds", str(DS), "--master", "local[2]"]
    assert [job.main(argv) for job in (check_inputs, build_pairs)] == [EXIT_BAD_INPUT] * 2
    said = capsys.readouterr().err
    assert f"click_log/ds={DS} has 0 rows (expected >= 1; the table holds no day at all)" in said
    assert f"catalogue/ds={DS} has 0 rows" in said
    assert not (root / "pairs").exists()


def test_everything_wrong_is_told_in_one_error(spark, root):
    small_warehouse(
        spark,
        root,
        click_log=[event(ds=DS - dt.timedelta(days=1))],
        catalogue=[item("i1"), item("i1")],
        vocabulary=[term("t1", "kettle"), term("t2", None)],
        taxonomy=[node("c1", "c2", "a"), node("c2", "c1", "b"), node("c3", "gone", "c"), node("c4", None, "d")],
    )
    message = refused(root)
    for part in (
        f"click_log/ds={DS} has 0 rows",
        "column item_id holds 'i1' 2 times",
        "column term is None for term_id 't2'",
        "column parent_id makes a cycle: 'c1' -> 'c2' -> 'c1'",
        "column parent_id of category_id 'c3' is 'gone'",
    ):
        assert part in message


def test_two_roots_of_the_same_name_are_refused(spark, root):
    small_warehouse(spark, root, taxonomy=[node("c1", None, "Shoes"), node("c2", None, "shoes")])
    assert "column name is 'shoes' for 2 roots" in refused(root)


@pytest.mark.parametrize("name", ["vocabulary", "taxonomy"])
def test_a_table_declared_absent_is_skipped_and_that_is_said(spark, root, caplog, name):
    small_warehouse(spark, root)
    (root / name).rename(root / "elsewhere")
    (root / "warehouse.toml").write_text(f'[warehouse]\nabsent = ["{name}"]\n')
    with caplog.at_level(logging.INFO, logger="etl"):
        assert check_inputs.main(["--root", str(root), "--ds", str(DS), "--master", "local[2]"]) == EXIT_OK
    assert f"{name} is declared absent" in caplog.text


def test_both_halves_declared_absent_are_refused(root):
    assert "both taxonomy and vocabulary are declared absent" in refused(root, absent=("taxonomy", "vocabulary"))


@pytest.mark.fault("columns")
def test_overrides_are_checked_where_there_are_any(spark, root):
    small_warehouse(spark, root)
    spark.range(1).select(F.lit("i1").alias("item_id")).write.parquet(str(root / OVERRIDES.name))
    assert "input table overrides" in refused(root)
    assert "column author is missing" in refused(root)


def test_a_partition_that_is_no_day_is_not_read(spark, root):
    small_warehouse(spark, root)
    for name in ("click_log", "catalogue"):
        day = root / name / f"ds={DS}"
        (root / name / "ds=yesterday").mkdir()
        for path in day.glob("*.parquet"):
            (root / name / "ds=yesterday" / path.name).write_bytes(path.read_bytes())
    assert check_inputs.run(config(root))["items"] == 2


def test_a_file_that_is_no_parquet_is_refused_by_the_name_of_its_table(spark, root):
    small_warehouse(spark, root)
    for path in (root / "vocabulary").glob("*.parquet"):
        path.write_bytes(b"not a table")
    for path in (root / "vocabulary").glob(".*.crc"):
        path.unlink()
    message = refused(root)
    assert f"input table vocabulary at {root / 'vocabulary'} has files that cannot be read" in message
    assert "11 bytes, Parquet magic bytes not found in footer" in message


def test_bad_input_ends_with_the_exit_code_that_airflow_reads(root, capsys):
    assert check_inputs.main(["--root", str(root / "gone"), "--ds", str(DS)]) == EXIT_BAD_INPUT
    assert "is no directory" in capsys.readouterr().err
