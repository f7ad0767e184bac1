"""The disk does not fill with what trainings leave that were cut off."""

import datetime as dt
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from etl.scratch import RUNNING
from model.leftovers import remove_leftovers, running

DAY = dt.date(2024, 5, 7)


def names(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.iterdir())


def with_checkpoints(checkpoints: Path, *days: int) -> None:
    for day in days:
        (checkpoints / f"ds=2024-05-{day:02d}" / "step-00000003").mkdir(parents=True)


def test_checkpoints_of_the_day_and_of_earlier_ones_go_and_those_of_later_ones_stay(tmp_path, caplog):
    with_checkpoints(tmp_path, 1, 6, 7, 8)
    with caplog.at_level(logging.INFO):
        remove_leftovers(tmp_path, DAY)
    assert names(tmp_path) == ["ds=2024-05-08"]
    assert f"removed {tmp_path / 'ds=2024-05-01'}: checkpoints of a training that did not end" in caplog.text


def test_what_a_running_training_needs_stays(tmp_path):
    with_checkpoints(tmp_path, 5, 6)
    with running(tmp_path, dt.date(2024, 5, 6)) as scratch:
        remove_leftovers(tmp_path, DAY)
        assert names(tmp_path) == ["ds=2024-05-06", scratch.name]
    remove_leftovers(tmp_path, DAY)
    assert names(tmp_path) == []


@pytest.mark.fault("leftovers")
def test_the_scratch_directory_of_a_killed_training_goes(tmp_path):
    hold = f"with running(Path({str(tmp_path)!r}), date(2024, 5, 6)): print('there', flush=True); time.sleep(60)"
    code = f"import time; from datetime import date; from pathlib import Path; from model.leftovers import running\n{hold}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        remove_leftovers(tmp_path, DAY)
        (left,) = tmp_path.iterdir()
        assert (left / RUNNING).read_text() == "ds=2024-05-06"
        process.send_signal(signal.SIGKILL)
    remove_leftovers(tmp_path, DAY)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["train-x", "ds=2024-05-01"])
def test_what_cannot_be_removed_is_a_warning(tmp_path, monkeypatch, caplog, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / RUNNING).touch()

    def refuse(path):
        raise PermissionError(13, "denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    remove_leftovers(tmp_path, DAY)
    assert f"{tmp_path / name} (" in caplog.text
    assert "cannot be removed" in caplog.text
