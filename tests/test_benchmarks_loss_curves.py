"""Loss curves that lie on each other: compared by step, drawn, and refused where there is nothing to compare."""

import os
import re
import sys

import pytest
from matplotlib.image import imread

from benchmarks import loss_curves
from benchmarks.curves_figure import Run, draw
from benchmarks.loss_curves import Training, compared, require_able
from etl.errors import InputError

ONE = Run("one", {1: 2.0, 2: 1.5, 3: 1.25})
OTHER = Run("other", {1: 2.0, 2: 1.500001, 3: 1.0}, killed=2, resumed=1)


def test_a_run_is_compared_with_the_first_step_by_step():
    assert OTHER.differences(ONE) == {1: 0.0, 2: pytest.approx(1e-6), 3: 0.25}
    with pytest.raises(ValueError, match="'one' has 3 steps, 'short' has 1, not the same"):
        ONE.differences(Run("short", {1: 2.0}))


def test_the_table_has_the_greatest_difference_and_that_before_the_checkpoint():
    columns = {column.header: list(column.cells) for column in compared([ONE, OTHER]).columns}
    assert columns["greatest difference"] == ["0.0e+00", "2.5e-01"]
    assert columns["up to there"] == ["", "0.0e+00"]
    assert columns["killed after"] == ["", "step 2"]


def test_the_picture_shows_every_run_and_stays_small(tmp_path):
    def colours(runs: list[Run]) -> int:
        draw(runs, tmp_path / "curves.png")
        return len({tuple(pixel) for pixel in imread(tmp_path / "curves.png").reshape(-1, 4).round(2)})

    assert colours([ONE, OTHER, Run("same", ONE.curve)]) > colours([ONE, Run("same", ONE.curve)])
    assert (tmp_path / "curves.png").stat().st_size < 150_000


@pytest.mark.parametrize(
    ("flags", "message"), [(["--steps", "39"], "--steps 39 are too few"), ([], "is not empty: a training in it would go on")]
)
def test_few_steps_and_a_root_with_something_in_it_are_refused(tmp_path, capsys, flags, message):
    (tmp_path / "something").touch()
    with pytest.raises(SystemExit, match="2"):
        loss_curves.main(["--root", str(tmp_path), *flags])
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_a_machine_that_can_make_no_hosts_is_refused_by_what_it_lacks(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match=r"need ip on PATH, pdsh on PATH, .*, to be root: `make system-packages`"):
        require_able({"PATH": "/nowhere"})


@pytest.mark.parametrize("code", [0, 3])
def test_a_training_that_ends_before_it_could_be_killed_is_an_error(tmp_path, code):
    training = Training(tmp_path / "run", 40)
    training.argv = [sys.executable, "-c", f"print('progress: step 40/40'); raise SystemExit({code})"]
    with pytest.raises(RuntimeError, match=f"was to be killed, but ended with {code} after step 40"):
        training.run_killed(25)
    assert (tmp_path / "run" / "output.log").read_text() == "progress: step 40/40\n"


def test_a_training_that_fails_is_an_error_that_names_its_output(tmp_path):
    training = Training(tmp_path / "run", 40)
    training.argv = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(RuntimeError, match=r"training ended with 3, see .*run/output.log"):
        training.run()
