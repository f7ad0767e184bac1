"""A job that is terminated while Spark works puts away what it laid down, and nothing of it runs on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from etl.termination import GRACE_SECONDS

CHECKOUT = Path(__file__).resolve().parents[1]
JOB = """
import sys, time
from pathlib import Path
from etl.config import SparkJobConfig, arg_parser
from etl.job import run_job
from etl.session import settle, start_session

def work(config):
    spark = start_session("t", config)
    frame = settle(spark.range(5))
    marks = Path(config.root)

    def hang(number):
        (marks / "working").touch()
        time.sleep(600)

    try:
        spark.sparkContext.parallelize([1, 2], 2).map(hang).count()
    finally:
        print("asked again:", frame.rdd.getNumPartitions(), flush=True)

sys.exit(run_job(arg_parser(SparkJobConfig, "t", ""), SparkJobConfig, work, sys.argv[1:]))
"""


@pytest.mark.fault("leftovers")
@pytest.mark.parametrize("all_of_it", [False, True], ids=["driver", "process group"])
def test_a_spark_stage_that_is_terminated_ends_with_its_finally_its_java_and_its_files(tmp_path, all_of_it):
    for name in ("root", "temporary", "checkpoints"):
        (tmp_path / name).mkdir()
    flags = ["--ds", "2024-05-07", "--master", "local[2,4]", "--driver-memory", "1g"]
    argv = [sys.executable, "-c", JOB, "--root", str(tmp_path / "root"), "--checkpoint-dir", str(tmp_path / "checkpoints")]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        [*argv, *flags], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        try:
            deadline = time.monotonic() + 300
            while not (tmp_path / "root" / "working").exists() and time.monotonic() < deadline and job.poll() is None:
                time.sleep(0.1)
            assert (tmp_path / "root" / "working").exists()
            started = psutil.Process(job.pid).children(recursive=True)
            assert {"java"} <= {process.name() for process in started}
            assert len(list((tmp_path / "checkpoints").iterdir())) == 1
            (os.killpg if all_of_it else os.kill)(job.pid, signal.SIGTERM)
            said, _ = job.communicate(timeout=GRACE_SECONDS + 15)
        finally:
            job.kill()
    assert job.returncode == 128 + signal.SIGTERM
    assert all_of_it or said == "asked again: 2\n"
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert list((tmp_path / "temporary").iterdir()) == list((tmp_path / "checkpoints").iterdir()) == []
