"""The lock around a table's commits, between real processes."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import functions as F

from etl import log_history, tables
from etl import table_lock as module
from etl.contracts import RUNS
from etl.errors import InputError
from etl.table_lock import lock_file, table_lock
from tests.rows import DS

# Java's locks are the kernel's record locks, which another process may take as well as another JVM.
HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.readline()
"""

WRITE = """
import datetime as dt, sys
from etl import tables
from etl.config import SparkJobConfig
from etl.contracts import RUNS
from etl.session import start_session
root, ds, commits = sys.argv[1], dt.date.fromisoformat(sys.argv[2]), int(sys.argv[3])
spark = start_session("writer", SparkJobConfig(root=root, ds=ds, master="local[1]", driver_memory="1g"))
for n in range(commits):
    row = (ds, f"stage{n}", "r", "b", "c", "{}", "{}", 1.0, dt.datetime(2024, 6, 1), None)
    frame = spark.createDataFrame([row], RUNS.ddl)
    tables.write_slice(frame, f"{root}/runs", RUNS, {"ds": ds, "stage": f"stage{n}"})
"""


@pytest.fixture
def at_root(spark, root):
    """A session whose locks lie in this warehouse."""
    before = spark.conf.get(module.DIRECTORY)
    spark.conf.set(module.DIRECTORY, str(root / "locks"))
    yield spark
    spark.conf.set(module.DIRECTORY, before)


def write_day(spark, path, seconds=1.0):
    rows = [(DS, "pairs", "r", "b", "c", "{}", "{}", seconds, dt.datetime(2024, 6, 1), None)]
    tables.write_slice(spark.createDataFrame(rows, RUNS.ddl), path, RUNS, {"ds": DS})


COMMITS = {
    "a table made": lambda spark, path: tables.ensure(spark, path, RUNS),
    "a vacuum": lambda spark, path: log_history.vacuum(spark, path, 7 * 24),
    "a slice": lambda spark, path: write_day(spark, path, 2.0),
    "rows deleted": lambda spark, path: tables.delete_rows(spark, path, F.col("ds") == F.lit(DS), {"stage": "maintain"}),
    "history dropped": lambda spark, path: log_history.drop_history(spark, path, {"stage": "forget"}),
}


SLOW = ("a vacuum", "history dropped")


@pytest.mark.fault("same-day-twice")
@pytest.mark.parametrize("what", [pytest.param(what, marks=[pytest.mark.slow] if what in SLOW else []) for what in COMMITS])
def test_a_commit_waits_for_that_of_another_process(what, at_root, root, monkeypatch):
    first, path = root / "first" / "runs", root / "runs"
    if what != "a table made":
        write_day(at_root, str(first))
        write_day(at_root, str(path))
        monkeypatch.setattr(tables, "ensure", lambda *_: None)  # it takes the lock itself
    started = time.monotonic()
    COMMITS[what](at_root, str(first))
    unhindered = time.monotonic() - started
    before = log_files(path)
    assert log_files(first) != before
    (root / "locks").mkdir(exist_ok=True)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock_file(at_root, str(path))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    meanwhile = []
    threading.Timer(unhindered + 1, lambda: (meanwhile.append(log_files(path)), other.communicate(b"\n"))).start()
    COMMITS[what](at_root, str(path))
    assert meanwhile == [before]
    assert log_files(path) == log_files(first)


def log_files(table: Path) -> list[str]:
    """Files of a table's log, without those that Delta writes beside a commit."""
    return sorted(file.name for file in (table / "_delta_log").glob("[0-9]*"))


@pytest.mark.fault("same-day-twice")
def test_a_holder_that_is_killed_frees_the_table(at_root, root):
    (root / "locks").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock_file(at_root, f"{root}/runs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    other.kill()
    other.communicate()
    with table_lock(at_root, f"{root}/runs"):
        pass


@pytest.mark.fault("same-day-twice")
def test_whoever_holds_a_table_may_take_it_again_and_others_wait_until_all_is_over(at_root, root):
    path = f"{root}/runs"
    probe = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    ask = [sys.executable, "-c", probe, str(lock_file(at_root, path))]
    with table_lock(at_root, path):
        with table_lock(at_root, path):
            pass
        assert b"BlockingIOError" in subprocess.run(ask, capture_output=True, check=False).stderr
    assert subprocess.run(ask, check=False).returncode == 0


def test_staged_tables_have_locks_of_their_own(at_root, root):
    names = [lock_file(at_root, f"{root}/{name}").name for name in ("item_terms", "staging/item_terms")]
    assert names == ["item_terms.lock", "staging.item_terms.lock"]


def test_a_place_that_cannot_be_locked_is_refused_with_the_cure(at_root, root):
    (root / "locks").write_text("a file")
    with pytest.raises(InputError, match=r"\[warehouse\] lock_dir"):
        tables.ensure(at_root, f"{root}/runs", RUNS)
    assert not (root / "runs").exists()


@pytest.mark.fault("same-day-twice")
@pytest.mark.slow
def test_two_processes_that_write_days_of_one_table_side_by_side_lose_and_double_nothing(root):
    commits = 6
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(root), day, str(commits)]) for day in ("2024-05-06", "2024-05-07")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    rows = pl.read_delta(str(root / "runs"))
    assert rows.height == rows.unique(["ds", "stage"]).height == 2 * commits
    assert rows.group_by("ds").len()["len"].to_list() == [commits, commits]
