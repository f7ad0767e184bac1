"""The lease of a day, between real processes: who wins, what the other is told, and what a crash leaves."""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etl.config import JobConfig, arg_parser
from etl.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, EXIT_TRY_LATER, InputError, TryLater
from etl.job import run_job
from etl.lease import DayTaken, hold_day, require_idle
from tests.rows import DS

HOLD = """
import datetime as dt, sys, time
from pathlib import Path
from etl.lease import hold_day
with hold_day(Path(sys.argv[1]), dt.date.fromisoformat(sys.argv[2]), "labeller pairs"):
    print("held", flush=True)
    sys.stdin.readline()
"""

# A writer on a machine to which the kernel's lock does not reach: only the marker is seen, with another host's name on it.
FAR = """
import sys, time
from pathlib import Path
import socket
socket.gethostname = lambda: "elsewhere"
from filelock import SoftFileLease
lease = SoftFileLease(sys.argv[1], lease_duration=2.0, heartbeat_interval=0.3)
lease.acquire()
print("held", flush=True)
time.sleep(60)
"""

JOB = """
import sys, time
from pathlib import Path
from etl.config import JobConfig, arg_parser
from etl.job import run_job
def work(config):
    with (Path(config.root) / "written").open("a") as file:
        file.write("x")
    time.sleep(1.5)
    return {}
sys.exit(run_job(arg_parser(JobConfig, "labeller pairs", ""), JobConfig, work, None))
"""


def start(code: str, *argv: object, **options) -> subprocess.Popen[str]:
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", code, *map(str, argv)], **options)


@pytest.fixture
def holder(tmp_path):
    """A process that holds DS in tmp_path."""
    process = start(HOLD, tmp_path, DS)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def far(tmp_path):
    """A process on a machine of its own that holds DS in tmp_path."""
    process = start(FAR, tmp_path / f"ds={DS}.lease")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.fault("same-day-twice")
def test_of_two_jobs_started_together_on_one_day_one_runs_and_the_other_says_who_does(root):
    jobs = [start(JOB, "--root", root, "--ds", DS) for _ in range(2)]
    said = {job.pid: job.communicate()[1] for job in jobs}
    by_code = {job.returncode: job.pid for job in jobs}
    assert set(by_code) == {EXIT_OK, EXIT_TRY_LATER}
    assert (root / "written").read_text() == "x"
    refusal = said[by_code[EXIT_TRY_LATER]].splitlines()[-1]
    assert f"ds={DS} is being written by process {by_code[EXIT_OK]} on host " in refusal
    assert f"`labeller pairs --root {root} --ds {DS}`" in refusal
    assert "nothing was written" in refusal


@pytest.mark.fault("same-day-twice")
def test_jobs_of_different_days_run_side_by_side(root):
    jobs = [start(JOB, "--root", root, "--ds", day) for day in ("2024-05-06", "2024-05-07")]
    assert [job.wait() for job in jobs] == [EXIT_OK, EXIT_OK]
    assert (root / "written").read_text() == "xx"


@pytest.mark.fault("same-day-twice")
def test_a_holder_that_is_killed_frees_its_day_at_once(tmp_path, holder):
    with pytest.raises(DayTaken, match=f"process {holder.pid} "), hold_day(tmp_path, DS, "other"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    with hold_day(tmp_path, DS, "other"):
        assert json.loads((tmp_path / f"ds={DS}.lock").read_text())["command"] == "other"
    assert time.monotonic() - started < 5


@pytest.mark.fault("same-day-twice")
def test_a_day_is_free_again_after_a_job_that_failed(tmp_path):
    with pytest.raises(RuntimeError), hold_day(tmp_path, DS, "first"):
        raise RuntimeError
    with hold_day(tmp_path, DS, "second"):
        pass
    assert (tmp_path / f"ds={DS}.lock").read_text() == ""


@pytest.mark.fault("same-day-twice")
def test_another_machine_that_still_works_keeps_its_day(tmp_path, far):
    started = time.monotonic()
    with pytest.raises(DayTaken, match=f"ds={DS} is being written"), hold_day(tmp_path, DS, "o", duration=2, heartbeat=0.3):
        pass
    assert time.monotonic() - started < 2  # its touch was seen


@pytest.mark.fault("same-day-twice")
def test_another_machine_that_has_stopped_loses_its_day(tmp_path, far):
    far.kill()
    started = time.monotonic()
    with hold_day(tmp_path, DS, "other", duration=2, heartbeat=0.3):
        assert 2 <= time.monotonic() - started < 10


@pytest.mark.fault("same-day-twice")
def test_a_lease_that_another_machine_took_is_noticed(tmp_path):
    lost = []
    with hold_day(tmp_path, DS, "o", duration=2, heartbeat=0.1, on_loss=lambda loss: lost.append(loss.reason)):
        (tmp_path / f"ds={DS}.lease").unlink()
        until = time.monotonic() + 10
        while not lost and time.monotonic() < until:
            time.sleep(0.05)
    assert lost == ["marker-missing"]


@pytest.mark.fault("same-day-twice")
def test_a_process_started_under_a_lease_works_in_it_and_keeps_the_day_while_it_runs(tmp_path):
    with hold_day(tmp_path, DS, "backfill") as lease:
        child = start(HOLD, tmp_path, DS, **lease.child())
        assert child.stdout.readline() == "held\n"
    with pytest.raises(DayTaken), hold_day(tmp_path, DS, "other"):
        pass
    child.communicate("\n")
    with hold_day(tmp_path, DS, "other"):
        pass


@pytest.mark.fault("same-day-twice")
def test_a_process_started_under_a_lease_does_not_get_another_day_by_it(tmp_path, holder):
    with hold_day(tmp_path, DS.replace(day=1), "backfill") as lease:
        child = start(HOLD, tmp_path, DS, **lease.child())
        assert f"DayTaken: ds={DS} is being written by process {holder.pid}" in child.communicate()[1]


@pytest.mark.fault("same-day-twice")
def test_a_process_started_under_a_lease_ends_with_the_one_that_started_it(tmp_path):
    with hold_day(tmp_path, DS, "backfill") as lease:
        child = start(HOLD.replace("sys.stdin.readline()", "time.sleep(60)"), tmp_path, DS, **lease.child())
        assert child.stdout.readline() == "held\n"
        child.stdin.close()
        assert child.wait(10) == EXIT_FAILED


def test_a_directory_that_cannot_be_made_is_refused_with_the_cure(tmp_path):
    (tmp_path / "locks").write_text("a file")
    with pytest.raises(InputError, match=r"\[warehouse\] lock_dir"), hold_day(tmp_path / "locks", DS, "pairs"):
        pass


def test_a_misspelt_root_gets_no_directory_of_locks(tmp_path, capsys):
    argv = ["--root", str(tmp_path / "none"), "--ds", str(DS)]
    assert run_job(arg_parser(JobConfig, "job", ""), JobConfig, lambda _: {}, argv) == EXIT_BAD_INPUT
    assert "is no directory" in capsys.readouterr().err
    assert list(Path(tmp_path).iterdir()) == []


class Looking(JobConfig):
    """A job that writes nothing."""

    @property
    def writes(self) -> bool:
        return False


def test_who_only_looks_needs_no_lease(root):
    with hold_day(root / "locks", DS, "night"):
        argv = ["--root", str(root), "--ds", str(DS)]
        assert run_job(arg_parser(Looking, "job", ""), Looking, lambda _: {}, argv) == EXIT_OK


def test_locks_lie_where_the_settings_say(root, tmp_path):
    argv = ["--root", str(root), "--ds", str(DS), "--lock-dir", str(tmp_path / "elsewhere")]
    assert run_job(arg_parser(JobConfig, "job", ""), JobConfig, lambda _: {}, argv) == EXIT_OK
    assert (tmp_path / "elsewhere" / f"ds={DS}.lock").exists()
    assert not (root / "locks").exists()


@pytest.mark.fault("same-day-twice")
def test_work_that_wants_no_other_day_written_is_refused_while_one_is(tmp_path):
    later = DS + dt.timedelta(days=1)
    with hold_day(tmp_path, DS, "own"):
        require_idle(tmp_path, DS)
        with (
            hold_day(tmp_path, later, "labeller predict"),
            pytest.raises(DayTaken, match=r"ds=2024-05-08 .* `labeller predict`"),
        ):
            require_idle(tmp_path, DS)
        require_idle(tmp_path, DS)


@pytest.mark.fault("malicious")
@pytest.mark.parametrize("written", ["there", "not there"])
def test_a_link_in_the_place_of_a_day_s_lock_is_refused_and_not_written_through(tmp_path, written):
    locks, outside = tmp_path / "locks", tmp_path / "outside"
    locks.mkdir()
    if written == "there":
        outside.write_text("mine")
    (locks / f"ds={DS}.lock").symlink_to(outside)
    refusal = rf"ds={DS}.lock is a link to {outside} \(expected a file of its own, which is written\): remove the link"
    with pytest.raises(InputError, match=refusal), hold_day(locks, DS, "labeller pairs"):
        pass
    with pytest.raises(InputError, match=refusal):
        require_idle(locks, DS + dt.timedelta(days=1))
    assert [path.name for path in locks.iterdir()] == [f"ds={DS}.lock"]
    assert (outside.read_text() == "mine") if written == "there" else not outside.exists()


@pytest.mark.fault("same-day-twice")
@pytest.mark.fault("malicious")
def test_a_process_started_under_a_lease_does_not_get_another_day_by_a_link_to_its_lock(tmp_path):
    other = DS.replace(day=1)
    with hold_day(tmp_path, DS, "backfill") as lease:
        (tmp_path / f"ds={other}.lock").symlink_to(tmp_path / f"ds={DS}.lock")
        child = start(HOLD, tmp_path, other, **lease.child())
        assert f"ds={other}.lock is a link" in child.communicate()[1]


def test_a_file_that_is_named_like_a_lock_and_is_of_no_day_is_refused_by_name(tmp_path):
    (tmp_path / "ds=foo.lock").touch()
    with pytest.raises(InputError, match=r"ds=foo.lock is no lock of a day \(expected ds=YYYY-MM-DD.lock\).*remove it"):
        require_idle(tmp_path, DS)


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_mount_that_does_not_answer_is_asked_again_later(call: str, tmp_path: Path, monkeypatch) -> None:
    def stale(*_: object) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os if call == "open" else fcntl, call, stale)
    with pytest.raises(TryLater, match="cannot be locked now: Stale file handle"), hold_day(tmp_path, DS, "labeller pairs"):
        pass
