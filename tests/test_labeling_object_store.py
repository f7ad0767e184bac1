"""A whole night whose tables lie on an object store: every stage, read back by both engines; and two writers at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from etl import storage
from etl.contracts import INPUTS, OUTPUTS
from tests.store import BUCKET, SECRET, environment, object_store, upload

pytestmark = pytest.mark.slow

ROOT, DS = f"s3a://{BUCKET}/night", "2024-05-07"
STAGES = [
    "check", "pairs", "train-due", "dataset", "train", "calibrate", "promote", "embed", "predict", "audit", "publish",
    "relate", "report",
]  # fmt: skip
SETTINGS = """
[warehouse]
local_dir = "{local}"
[spark]
master = "local[2]"
driver_memory = "2g"
spark_conf = {{ "spark.sql.shuffle.partitions" = "2", "spark.local.dir" = "{scratch}" }}
[pairs]
min_users = 2
window_days = 7
max_query_entropy = 9.0
[dataset]
rows = 4096
[train]
preset = "tiny"
engine = "torch"
epochs = 3
"""

WRITER = """
import sys, time, datetime as dt
from pathlib import Path
from etl.config import SparkJobConfig
from etl.runs import record_stage
from etl.session import start_session
from etl.warehouse import Warehouse
root, local, stage = sys.argv[1:]
config = SparkJobConfig(root=root, local_dir=local, ds="2024-05-07", master="local[1]", driver_memory="1g")
spark = start_session("writer", config)
print("ready", flush=True)
sys.stdin.readline()
for day in range(1, 5):
    record_stage(spark, Warehouse.of(config), dt.date(2024, 5, day), stage, inputs={}, counts={}, seconds=1.0)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store; this process has its variables as long as the tests of this file run."""
    with object_store(tmp_path_factory.mktemp("store")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables
        storage._file_system.cache_clear()


@pytest.fixture(scope="module")
def night(store: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The store after a night on a generated shop, with its local directory and what the stages said."""
    made, local = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("local")
    labeller(store, "sample", "--root", str(made), "--clicks", "6000")
    (made / "truth").rename(local / "truth")
    (made / "warehouse.toml").write_text(SETTINGS.format(local=local, scratch=tmp_path_factory.mktemp("scratch")))
    upload(made, ROOT)
    return {"local": local, **stages(store, STAGES, local / "night.json")}


def labeller(store: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "labeling.cli", *arguments], env=environment(store), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def stages(store: dict[str, str], names: list[str], result: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.store_worker", ROOT, DS, ",".join(names), str(result)]
    done = subprocess.run(command, env=environment(store), capture_output=True, text=True)
    assert result.is_file(), done.stderr[-4000:]
    return {"said": done.stdout + done.stderr, **json.loads(result.read_text())}


def test_every_stage_of_a_night_works_on_the_store(night: dict[str, Any]) -> None:
    assert night["codes"] == dict.fromkeys(STAGES, 0), night["said"][-4000:]
    live = pl.read_delta(f"{ROOT}/labels_current")
    items = pl.read_parquet(f"{ROOT}/catalogue/ds={DS}/*.parquet")
    assert set(live["item_id"]) == set(items["item_id"])


def test_spark_and_delta_rs_find_the_same_rows_on_the_store(night: dict[str, Any]) -> None:
    by_delta_rs = {name: pl.read_delta(f"{ROOT}/{name}").height for name in night["rows"]}
    assert by_delta_rs == night["rows"]
    assert {"pairs", "item_terms", "item_categories", "labels_current", "runs", "quality"} <= by_delta_rs.keys()


def test_tables_lie_on_the_store_and_all_else_in_the_local_directory(night: dict[str, Any]) -> None:
    known = {table.name for table in (*INPUTS, *OUTPUTS)}
    assert set(storage.entries(ROOT)) - known == {"warehouse.toml", "sample.json", "staging"}
    local = {path.name for path in night["local"].iterdir()}
    assert {"bundles", "datasets", "reports", "item_index", "locks", "training"} <= local
    assert not local & known


def test_tables_and_status_answer_without_spark(night: dict[str, Any], store: dict[str, str]) -> None:
    found = {row["table"]: row["rows"] for row in json.loads(labeller(store, "tables", "--root", ROOT, "--json"))}
    assert {name: found[name] for name in night["rows"]} == night["rows"]
    assert json.loads(labeller(store, "status", "--root", ROOT, "--now", "2024-05-08", "--json"))["live"]["ds"] == DS
    assert json.loads(labeller(store, "label", "steel kettle", "--root", ROOT, "--json"))[0]["bundle"]


def test_no_secret_is_said_by_any_stage(night: dict[str, Any]) -> None:
    assert SECRET not in night["said"]


def test_maintenance_and_forgetting_work_on_the_store(night: dict[str, Any], store: dict[str, str]) -> None:
    query = pl.read_delta(f"{ROOT}/pairs").filter(~pl.col("query").str.contains("[ ,]"))["query"][0]
    found = stages(store, ["maintain", f"forget --query={query}"], night["local"] / "upkeep.json")
    assert found["codes"] == {"maintain": 0, "forget": 0}, found["said"][-4000:]
    assert query not in pl.read_delta(f"{ROOT}/pairs")["query"]
    log = storage.entries(f"{ROOT}/pairs/_delta_log")
    assert not [name for name in log if name.startswith("00000000000000000000.json")]


def test_two_processes_that_commit_to_one_table_lose_nothing(store: dict[str, str], tmp_path: Path) -> None:
    root = f"s3a://{BUCKET}/race"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, root, str(tmp_path), stage], env=environment(store), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for stage in ("pairs", "embed")
    ]  # fmt: skip
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    rows = pl.read_delta(f"{root}/runs").select("stage", pl.col("ds").dt.day()).rows()
    assert sorted(rows) == sorted((stage, day) for stage in ("pairs", "embed") for day in range(1, 5))
