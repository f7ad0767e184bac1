"""A table of an older contract: writing jobs refuse it by name, and the command adds what can be added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import deltalake
import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl import migrate, tables, warehouse
from etl.contracts import QUALITY, RUNS, Column, Table
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.table_contract import differences

CHECKS = {"named": "stage <> ''"}
NOW = replace(RUNS, checks=CHECKS, properties={"delta.logRetentionDuration": "interval 99 days"})


def older(table: Table, without: tuple[str, ...] = (), **changes: object) -> Table:
    """A contract as it was: without some columns, its first comment another."""
    columns = tuple(column for column in table.columns if column.name not in without)
    columns = (replace(columns[0], comment="As it was told."), *columns[1:])
    return replace(table, **{"columns": columns, "comment": "What it was.", "checks": {}, "properties": {}, **changes})


def lay(spark: SparkSession, root: Path, table: Table, rows: list[tuple]) -> str:
    path = str(root / table.name)
    tables.ensure(spark, path, table)
    spark.createDataFrame(rows, table.ddl).write.format("delta").mode("append").save(path)
    return path


def run(root: Path, *flags: str) -> int:
    return migrate.main(["--root", str(root), "--master", "local[2]", *flags])


@pytest.fixture
def contracts(monkeypatch) -> list[Table]:
    """The tables that the command knows: these instead of its own."""
    known = [NOW, QUALITY]
    monkeypatch.setattr(warehouse, "OUTPUTS", known)
    return known


def runs_row(spark: SparkSession, stage: str = "pairs") -> list[tuple]:
    from tests.delta_data import run_row

    row = run_row(stage)
    return [tuple(row.get(name) for name in RUNS.names if name != "settings")]


def test_what_adds_to_a_table_is_planned_done_and_then_nothing_is_left_to_do(spark, root, contracts, caplog):
    before = older(NOW, without=("settings",))
    path = lay(spark, root, before, runs_row(spark))
    with pytest.raises(
        InputError, match=r"table runs at .*run `labeller migrate`.*\n  - column settings: missing \(expected"
    ):
        tables.ensure(spark, path, NOW)
    with caplog.at_level("INFO"):
        assert run(root, "--dry-run") == EXIT_OK
    for what in ("column settings: missing", "comment of ds: 'As it was told.'", "constraint named: None", "comment: 'What"):
        assert f"runs at {path}: {what}" in caplog.text
    assert len(differences(path, NOW)) == 5
    assert run(root) == EXIT_OK
    assert differences(path, NOW) == []
    tables.ensure(spark, path, NOW)
    assert pl.read_delta(path).select("stage", "settings").rows() == [("pairs", None)]
    assert deltalake.DeltaTable(path).protocol().min_reader_version == 1
    version = deltalake.DeltaTable(path).version()
    assert run(root) == EXIT_OK
    assert deltalake.DeltaTable(path).version() == version


def test_a_table_that_would_have_to_be_written_anew_is_refused_by_name_and_left_as_it_is(spark, root, contracts, capsys):
    other = tuple(replace(c, type="int") if c.name == "hard" else c for c in QUALITY.columns)
    other = (*(c for c in other if c.name != "passed"), Column("verdict", "string", "Old.", nullable=True))
    path = str(root / QUALITY.name)
    tables.ensure(spark, path, older(QUALITY, columns=other))
    runs = lay(spark, root, older(NOW), [(*runs_row(spark)[0], None)])
    version = deltalake.DeltaTable(path).version()
    assert run(root) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    for what in ("column verdict: there (expected no such column)", "type of hard: int (expected boolean)",
                 "column passed: missing (expected boolean NOT NULL)"):  # fmt: skip
        assert f"quality at {path}: {what}" in said
    assert "move each away, and run the stages that write it again" in said
    assert deltalake.DeltaTable(path).version() == version
    assert differences(runs, NOW) == []  # the others are migrated all the same


def test_a_constraint_that_rows_of_before_do_not_meet_is_refused_before_anything_is_changed(spark, root, contracts, capsys):
    path = lay(spark, root, older(NOW), [(*runs_row(spark, stage="")[0], None)])
    version = deltalake.DeltaTable(path).version()
    assert run(root) == EXIT_BAD_INPUT
    assert "runs: constraint named: None (expected stage <> ''); 1 rows do not meet it" in capsys.readouterr().err
    assert deltalake.DeltaTable(path).version() == version


def test_a_constraint_that_was_another_stops_writers_and_is_replaced(spark, root, contracts):
    path = lay(spark, root, replace(NOW, checks={"named": "stage = 'pairs'", "old": "seconds > 0"}), [])
    with pytest.raises(
        InputError, match=r"constraint old: seconds > 0 \(expected no such constraint\)\n  - constraint named"
    ):
        tables.ensure(spark, path, NOW)
    assert run(root) == EXIT_OK
    assert differences(path, NOW) == []


def test_comments_and_missing_constraints_alone_stop_no_writer(spark, root):
    path = lay(spark, root, older(NOW), [])
    tables.ensure(spark, path, NOW)
