"""Tables on a real HDFS of one node: what Spark writes there is read without Spark too, though polars knows no hdfs://."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from etl import storage
from etl.contracts import CATALOGUE, RUNS
from etl.jars import HADOOP, Packages, fetch
from etl.warehouse import Warehouse
from labeling import local_tables, tables
from tests.rows import DS
from tests.store import CHECKOUT, environment, free_ports, upload

pytestmark = pytest.mark.slow

CLUSTER = "org.apache.hadoop.mapreduce.MiniHadoopClusterManager"
START_SECONDS = 180
RECORD = """
import sys
from etl.config import SparkJobConfig
from etl.runs import record_stage
from etl.session import start_session
from etl.warehouse import Warehouse
config = SparkJobConfig(root=sys.argv[1], local_dir=sys.argv[2], ds="2024-05-07", master="local[1]", driver_memory="1g")
spark = start_session("hdfs", config)
for seconds in (1.0, 2.0):
    record_stage(spark, Warehouse.of(config), config.ds, "pairs", inputs={}, counts={}, seconds=seconds)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an empty warehouse on HDFS, with settings."""
    directory = tmp_path_factory.mktemp("hdfs")
    fetch(Packages((f"org.apache.hadoop:hadoop-client-minicluster:{HADOOP}",), "*.jar"), directory / "jars")
    (port,) = free_ports(1)
    started = directory / "core-site.xml"  # written when the data node has joined
    command = ["java", "-Xmx512m", "-cp", f"{directory}/jars/*", CLUSTER, "-nomr", "-format"]
    command += ["-nnport", str(port), "-writeConfig", str(started)]
    with (directory / "log").open("w") as log:
        cluster = subprocess.Popen(command, cwd=directory, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(started, cluster, directory / "log")
        uri = f"hdfs://127.0.0.1:{port}/shop"
        (directory / "shop" / "catalogue" / f"ds={DS}").mkdir(parents=True)
        pl.DataFrame({"item_id": ["i1"], "title": ["kettle"]}).write_parquet(directory / f"shop/catalogue/ds={DS}/a.parquet")
        (directory / "shop" / "warehouse.toml").write_text(f'[warehouse]\nlocal_dir = "{directory}"\n')
        upload(directory / "shop", uri)
        yield uri
    finally:
        cluster.kill()
        cluster.wait()


def wait_for(started: Path, cluster: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not started.exists():
        assert time.monotonic() < until, f"HDFS did not start:\n{log.read_text()[-2000:]}"
        assert cluster.poll() is None, log.read_text()[-2000:]
        time.sleep(0.5)


def test_tables_and_files_on_hdfs_are_read_without_spark(root: str) -> None:
    warehouse = Warehouse.at(root)
    done = subprocess.run(
        [sys.executable, "-c", RECORD, root, str(warehouse.files)], cwd=CHECKOUT, env=environment({}), capture_output=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert local_tables.read(warehouse, RUNS, DS, ("stage", "seconds")).rows() == [("pairs", 2.0)]
    assert local_tables.read(warehouse, CATALOGUE, DS, ("ds", "item_id", "title")).rows() == [(DS, "i1", "kettle")]
    assert {found.table: found.rows for found in tables.survey(warehouse)}["runs"] == 1
    assert storage.entries(root) == ["catalogue", "runs", "warehouse.toml"]
