"""A disk that is full, for real: what each writer then says, what is left, and that a rerun does once there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import SparkSession
from safetensors.torch import save_file

from etl import durable
from etl.contracts import LABELS_CURRENT, RUNS
from etl.disk import DiskFull, naming_full_disk
from etl.errors import EXIT_OK, EXIT_TRY_LATER
from etl.runs import record_stage
from etl.tables import read
from etl.warehouse import Warehouse
from tests.live_data import go_live, lineage, live_row
from tests.rows import DS
from tests.small_disk import SmallDisk, mounted

pytestmark = pytest.mark.fault("disk-full")

NUMBERS = np.random.default_rng(0).random(2_000_000)

JOB = """
import sys
from pathlib import Path
from etl.config import JobConfig, arg_parser
from etl.job import run_job
def work(config):
    Path(config.root, "written").write_bytes(b"x" * int(sys.argv[1]))
    return {}
sys.exit(run_job(arg_parser(JobConfig, "labeller pairs", ""), JobConfig, work, sys.argv[2:]))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk", 16) as small:
        yield small


@pytest.mark.parametrize(
    "write",
    [
        lambda path: (path / "a.bin").write_bytes(NUMBERS.tobytes()),
        lambda path: durable.write(path / "a.json", NUMBERS.tobytes()),
        lambda path: torch.save({"a": torch.from_numpy(NUMBERS)}, path / "a.pt"),
        lambda path: torch.save({"a": torch.from_numpy(NUMBERS)}, path / "a.pt", _use_new_zipfile_serialization=False),
        lambda path: save_file({"a": torch.from_numpy(NUMBERS)}, path / "a.safetensors"),
        lambda path: pq.write_table(pa.table({"a": NUMBERS}), path / "a.parquet"),
        lambda path: pl.DataFrame({"a": NUMBERS}).write_parquet(path / "a.parquet"),
    ],
    ids=["python", "durable", "torch", "torch-old", "safetensors", "pyarrow", "polars"],
)
def test_whatever_writes_on_a_full_disk_the_error_names_the_disk_and_what_is_free(
    disk: SmallDisk, write: Callable[[Path], object]
) -> None:
    disk.fill(leaving=1 << 20)
    said = rf"a disk or quota is full \(.*make room.*\n  - {disk.path}: [01]\.\d MB free"
    with pytest.raises(DiskFull, match=said), naming_full_disk(disk.path):
        write(disk.path)


def test_an_error_of_another_kind_stays_what_it_is(disk: SmallDisk) -> None:
    with pytest.raises(FileNotFoundError), naming_full_disk(disk.path):
        (disk.path / "none").read_bytes()
    with pytest.raises(RuntimeError, match="inline_container"), naming_full_disk(disk.path):
        raise RuntimeError("inline_container.cc: file in archive is not in a subdirectory")


def job(root: Path, size: int, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", JOB, str(size), "--root", str(root), "--ds", str(DS), *more]
    return subprocess.run(argv, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_a_job_on_a_full_disk_is_to_be_tried_later_and_then_ends_well(disk: SmallDisk) -> None:
    disk.fill(leaving=1 << 20)
    failed = job(disk.path, 4 << 20)
    assert failed.returncode == EXIT_TRY_LATER, failed.stderr
    assert "labeller pairs: error: a disk or quota is full ([Errno 28] No space left on device)" in failed.stderr
    assert "Traceback" not in failed.stderr
    disk.free()
    assert job(disk.path, 4 << 20).returncode == EXIT_OK


@pytest.mark.parametrize("leaving", [0, 4096])
def test_a_lease_that_cannot_be_written_is_not_left_behind(disk: SmallDisk, root: Path, leaving: int) -> None:
    locks = disk.path / "locks"
    locks.mkdir()
    disk.fill(leaving=leaving)
    failed = job(root, 1, "--lock-dir", str(locks))
    assert failed.returncode == EXIT_TRY_LATER, failed.stderr
    assert f"{locks}: 0.0 MB free" in failed.stderr
    assert not list(locks.glob("*.lease"))
    assert not (root / "written").exists()
    disk.free()
    assert job(root, 1, "--lock-dir", str(locks)).returncode == EXIT_OK


def test_a_stage_is_recorded_once_there_is_room_and_what_was_recorded_stays(spark: SparkSession, disk: SmallDisk) -> None:
    def record(stage: str) -> None:
        with naming_full_disk(disk.path):
            record_stage(spark, Warehouse.at(str(disk.path)), DS, stage, inputs={}, counts={}, seconds=1.0)

    def stages() -> list[str]:
        return sorted(row["stage"] for row in read(spark, str(disk.path / "runs"), RUNS).collect())

    disk.fill()
    with pytest.raises(DiskFull, match="No space left on device"):
        record("pairs")  # the table's first row
    disk.free()
    record("pairs")
    disk.fill(leaving=8192)
    with pytest.raises(DiskFull, match="No space left on device"):
        record("embed")
    assert stages() == ["pairs"]
    disk.free()
    record("embed")
    assert stages() == ["embed", "pairs"]


def test_what_is_live_stays_live_where_the_disk_fills_while_a_day_goes_live(spark: SparkSession, disk: SmallDisk) -> None:
    def live() -> list[tuple]:
        rows = read(spark, str(disk.path / "labels_current"), LABELS_CURRENT).select("item_id", "run_id").collect()
        return sorted(map(tuple, rows))

    go_live(spark, disk.path, DS, [live_row("i1")], lineage("r1"))
    disk.fill(leaving=8192)
    with pytest.raises(DiskFull, match="No space left on device"), naming_full_disk(disk.path):
        go_live(spark, disk.path, DS, [live_row("i1"), live_row("i2")], lineage("r2"))
    assert live() == [("i1", "r1")]
    disk.free()
    go_live(spark, disk.path, DS, [live_row("i1"), live_row("i2")], lineage("r2"))
    assert [item for item, _ in live()] == ["i1", "i2"]
