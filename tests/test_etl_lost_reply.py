"""Commits that land and whose reply is lost: the rerun finds its own in the history and makes no other."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pytest
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.sql import functions as F
from pyspark.sql.readwriter import DataFrameWriter

from etl import tables
from etl.contracts import RUNS
from tests.rows import DS

FIRST = {"ds": DS, "stage": "pairs"}

# The commit is there, and nobody is told: Java and Python end by signal 9.
DIE = """
import datetime as dt, os, signal, sys
from pyspark.sql.readwriter import DataFrameWriter
from etl.config import SparkJobConfig
from etl.session import start_session
from tests import test_etl_lost_reply as same

def save_and_die(writer, path, save=DataFrameWriter.save):
    save(writer, path)
    os.kill(int(spark._jvm.java.lang.ProcessHandle.current().pid()), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

DataFrameWriter.save = save_and_die
root = sys.argv[1]
spark = start_session("writer", SparkJobConfig(root=root, ds=same.DS, master="local[1]", driver_memory="1g"))
same.write(spark, f"{root}/runs")
"""


def write(spark, path, seconds=1.0, **metadata):
    rows = [(DS, "pairs", "r", "b", "c", "{}", "{}", seconds, dt.datetime(2024, 6, 1), None)]
    return tables.write_slice(spark.createDataFrame(rows, RUNS.ddl), path, RUNS, FIRST, metadata)


def versions(spark, path):
    return DeltaTable.forPath(spark, path).history().count()


@pytest.fixture
def path(root) -> str:
    return f"{root}/runs"


@pytest.fixture
def reply_lost(monkeypatch):
    """Java's error comes after each commit of a write has landed."""

    def save(writer, path, save=DataFrameWriter.save):
        save(writer, path)
        writer._spark._jvm.java.net.URI("no uri: the connection was reset")

    monkeypatch.setattr(DataFrameWriter, "save", save)


@pytest.mark.fault("lost-reply")
def test_a_writer_killed_once_its_commit_had_landed_makes_no_second_one_when_it_is_run_again(spark, root, path):
    died = subprocess.run([sys.executable, "-c", DIE, str(root)], capture_output=True, check=False)
    assert died.returncode == -9, died.stderr.decode()
    there = versions(spark, path)
    assert there == 2  # the table and the slice
    assert write(spark, path) == 1
    assert versions(spark, path) == there


@pytest.mark.fault("lost-reply")
def test_a_commit_whose_reply_is_lost_counts_as_landed(spark, path, reply_lost, caplog):
    assert write(spark, path) == 1
    assert versions(spark, path) == 2
    assert "runs: an error came after the commit had landed: " in caplog.text


@pytest.mark.fault("lost-reply")
def test_a_merge_and_a_deletion_whose_replies_are_lost_count_as_landed(spark, path, monkeypatch):
    write(spark, path)
    fails = Py4JJavaError

    def lost(call):
        def landing(self, *args):
            call(self, *args)
            spark._jvm.java.net.URI("no uri: the connection was reset")

        return landing

    table = DeltaTable.forPath(spark, path)
    merge = table.alias("old").merge(table.toDF().alias("new"), "old.stage = new.stage").whenMatchedDelete()
    monkeypatch.setattr(type(merge), "execute", lost(type(merge).execute))
    assert tables.execute_merge(merge, path, {"stage": "a merge"})["operation"] == "MERGE"
    write(spark, path, 2.0)
    monkeypatch.setattr(DeltaTable, "delete", lost(DeltaTable.delete))
    tables.delete_rows(spark, path, F.col("stage") == "pairs", {"stage": "a deletion"})
    with pytest.raises(fails):
        tables.delete_rows(spark, path, F.col("stage") == "none is called so", {"stage": "no commit"})


@pytest.mark.fault("lost-reply")
def test_an_error_of_a_write_of_which_nothing_landed_is_raised(spark, path, monkeypatch):
    tables.ensure(spark, path, RUNS)

    def save(writer, path):
        writer._spark._jvm.java.net.URI("no uri: the connection was reset")

    monkeypatch.setattr(DataFrameWriter, "save", save)
    with pytest.raises(Py4JJavaError, match="connection was reset"):
        write(spark, path)
    assert versions(spark, path) == 1


def test_a_rerun_that_gives_other_rows_writes_them(spark, path):
    write(spark, path)
    assert write(spark, path, seconds=2.0) == 1
    assert tables.read(spark, path, RUNS).head()["seconds"] == 2.0
    assert versions(spark, path) == 3


def test_a_rerun_of_a_slice_whose_rows_were_deleted_since_writes_them_again(spark, path):
    write(spark, path)
    tables.delete_rows(spark, path, F.col("stage") == "pairs", {})
    assert write(spark, path) == 1
    assert tables.read(spark, path, RUNS).count() == 1


def test_a_rerun_with_another_lineage_makes_a_commit_that_says_so(spark, path):
    write(spark, path, bundle="b1")
    write(spark, path, bundle="b2")
    assert versions(spark, path) == 3
