from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from delta.tables import DeltaTable

from etl.code import PACKAGES, code_version
from etl.contracts import RUNS
from etl.errors import InputError
from etl.runs import expected_cost, record_stage
from etl.tables import commit_of
from etl.warehouse import Warehouse
from tests.rows import DS

CHECKOUT = Path(__file__).resolve().parent.parent


def test_a_second_attempt_replaces_the_row_of_its_stage_and_no_other(spark, root):
    warehouse = Warehouse.at(str(root))
    for stage, written in (("pairs", 1), ("dataset", 2), ("pairs", 3)):
        counts = {"written": written}
        record_stage(spark, warehouse, DS, stage, inputs={"click_log": "delta:1"}, counts=counts, seconds=1.5)
    rows = {row["stage"]: row for row in pl.read_delta(str(root / "runs")).to_dicts()}
    assert {stage: json.loads(row["counts"])["written"] for stage, row in rows.items()} == {"pairs": 3, "dataset": 2}
    assert json.loads(rows["pairs"]["inputs"]) == {"click_log": "delta:1"}
    assert rows["pairs"]["code"].split()[0] == code_version()


def test_the_cost_of_a_run_is_that_of_the_largest_one_with_its_bundle_else_with_any(spark, root):
    warehouse = Warehouse.at(str(root))
    assert cost(spark, warehouse, "a") is None
    for day, bundle, encoded, took, seconds in (
        (7, "a", 1000, 10.0, 40.0),
        (8, "a", 10, 5.0, 30.0),
        (9, "b", 2000, 10.0, 50.0),
    ):
        counts = {"encoded": encoded, "encoding_seconds": took}
        record_stage(
            spark, warehouse, DS.replace(day=day), "embed", inputs={}, counts=counts, seconds=seconds, bundle=bundle
        )
    own, other = (cost(spark, warehouse, bundle) for bundle in ("a", "new"))
    assert (own.seconds, own.rate, own.ds.day, own.bundle) == (pytest.approx(30 + 500 / 100), 100.0, 7, "a")
    assert (other.seconds, other.rate, other.bundle) == (pytest.approx(40 + 500 / 200), 200.0, "b")


def cost(spark, warehouse, bundle):
    return expected_cost(spark, warehouse, "embed", bundle, done="encoded", timed="encoding_seconds", units=500)


def test_the_version_of_the_code_changes_with_the_source_and_with_nothing_else(tmp_path):
    found = {}
    for name in ("as it is", "moved", "changed"):
        copy = tmp_path / name
        for package in PACKAGES:
            shutil.copytree(CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        if name == "changed":
            with (copy / "labeling" / "terms.py").open("a") as file:
                file.write("# \n")
        script = "from etl.runs import code_version; print(code_version())"
        done = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, text=True, check=True)
        found[name] = done.stdout.strip()
    assert found["as it is"] == found["moved"] == code_version()
    assert found["changed"] != code_version()


def test_a_table_of_another_contract_is_refused_by_name_and_left_alone(spark, root):
    warehouse = Warehouse.at(str(root))
    frame = spark.createDataFrame([("2024-05-07", "pairs", "gone")], "ds string, stage string, old string")
    frame.write.format("delta").save(warehouse.table(RUNS))
    with pytest.raises(
        InputError, match=r"(?s)table runs at .* was made under another contract.*column old: .*column bundle: "
    ):
        record_stage(spark, warehouse, DS, "pairs", inputs={}, counts={}, seconds=1.0)
    assert pl.read_delta(warehouse.table(RUNS))["old"].to_list() == ["gone"]


def test_a_commit_of_another_writer_is_not_taken_for_our_own(spark, root):
    warehouse = Warehouse.at(str(root))
    path = warehouse.table(RUNS)
    for stage in ("pairs", "dataset"):
        record_stage(spark, warehouse, DS, stage, inputs={}, counts={}, seconds=1.0)
    found = DeltaTable.forPath(spark, path).history().select("version", "userMetadata").collect()
    assert all({"code", "ds"} <= json.loads(row["userMetadata"]).keys() for row in found if row["userMetadata"])
    tokens = {row["version"]: json.loads(row["userMetadata"])["write"] for row in found if row["userMetadata"]}
    for version, token in tokens.items():
        assert commit_of(spark, path, token)["version"] == version
    assert commit_of(spark, path, "no such token") is None
