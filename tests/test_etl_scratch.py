"""What killed jobs leave among the temporary files goes with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etl.scratch import RUNNING

MADE = """
import time
from etl.scratch import directory_of_process
print(directory_of_process("x"), flush=True)
time.sleep(60)
"""


@contextmanager
def job(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a directory of its own."""
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", MADE], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.fault("leftovers")
def test_the_directory_of_a_killed_job_goes_with_the_next_and_that_of_a_running_one_stays(tmp_path):
    (tmp_path / "labeller-x-of-somebody").mkdir()
    with job(tmp_path) as (_, running):
        with job(tmp_path) as (killed, left):
            (left / "blockmgr").mkdir()
            killed.send_signal(signal.SIGKILL)
        assert left.stat().st_mode & 0o777 == 0o700
        with job(tmp_path) as (_, own):
            assert set(tmp_path.iterdir()) == {running, own, tmp_path / "labeller-x-of-somebody"}
            assert (running / RUNNING).read_text() == "x"


def test_what_a_link_by_such_a_name_leads_to_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / RUNNING).touch()
    (tmp_path / f"labeller-x-{os.getuid()}-y").symlink_to(tmp_path / "mine")
    with job(tmp_path):
        assert (tmp_path / "mine" / RUNNING).exists()
