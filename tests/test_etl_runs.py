from __future__ import annotations

import json

import polars as pl

from etl.runs import code_version, record_stage
from etl.warehouse import Warehouse
from tests.rows import DS


def test_a_second_attempt_replaces_the_row_of_its_stage_and_no_other(spark, root):
    warehouse = Warehouse.at(str(root))
    for stage, written in (("pairs", 1), ("dataset", 2), ("pairs", 3)):
        counts = {"written": written}
        record_stage(spark, warehouse, DS, stage, inputs={"click_log": "delta:1"}, counts=counts, seconds=1.5)
    rows = {row["stage"]: row for row in pl.read_delta(str(root / "runs")).to_dicts()}
    assert {stage: json.loads(row["counts"])["written"] for stage, row in rows.items()} == {"pairs": 3, "dataset": 2}
    assert json.loads(rows["pairs"]["inputs"]) == {"click_log": "delta:1"}
    assert rows["pairs"]["code"] == code_version()


def test_the_version_of_the_code_starts_with_that_of_the_package():
    assert code_version().startswith("0.")
