"""A checkpoint that some number of ranks saved is loaded by another, exactly, at every ZeRO stage."""

from pathlib import Path

import pytest
import torch

from model import launch
from model.universal import PARTS, _require_whole


def found_by(directory: Path, ranks: int, *how: str) -> dict:
    argv = launch.command("tests.resize_worker", [str(directory), *how], ranks=ranks)
    assert launch.run_watched(argv, launch.environment(ranks, "cpu", local=True)) == 0
    saved_by = how[1] if how[0] == "load" else ranks
    return torch.load(directory / f"{saved_by}-to-{ranks}.pt", weights_only=True)


@pytest.fixture(
    scope="module",
    params=[(2, 1), pytest.param((1, 2), marks=pytest.mark.slow), pytest.param((4, 2), marks=pytest.mark.slow)],
    ids=lambda pair: f"{pair[0]} to {pair[1]}",
)
def resized(request, tmp_path_factory) -> tuple[Path, dict, dict]:
    """Directory of the checkpoints, and what those who saved and those who loaded had, by ZeRO stage."""
    directory, (before, after) = tmp_path_factory.mktemp("resized"), request.param
    saved = found_by(directory, before, "save")
    return directory, saved, found_by(directory, after, "load", str(before))


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_another_number_of_ranks_loads_exactly_the_weights_moments_and_steps_that_were_saved(resized, stage):
    _, saved, loaded = resized
    before, after = saved[stage]["checkpoint"], loaded[stage]["checkpoint"]
    assert before["steps"] == after["steps"] == {"table": 3, "weights": 3, "layers": 1}
    assert before["names"] == after["names"]
    assert before["parameters"].keys() == after["parameters"].keys()
    for name, parts in before["parameters"].items():
        assert torch.equal(parts, after["parameters"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_the_next_step_of_another_number_of_ranks_is_that_of_those_who_saved(resized, stage):
    _, saved, loaded = resized
    before, after = saved[stage]["next"], loaded[stage]["next"]
    assert before["steps"] == after["steps"] == {"table": 4, "weights": 4, "layers": 2}
    for name, parts in before["parameters"].items():
        # Moments: Adam makes a step of the sign of a gradient that is zero but for rounding, so weights may differ there.
        ours, theirs = after["parameters"][name][:2], parts[:2]
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-9, name


@pytest.mark.slow
def test_what_was_put_together_is_removed_and_the_checkpoint_stays(resized):
    directory, _, _ = resized
    assert not list(directory.glob("*/universal.partial"))
    assert {len(list(place.glob("step-00000003/COMPLETE.json"))) for place in directory.glob("stage*")} == {1}


def test_a_universal_checkpoint_that_lacks_weights_or_moments_is_refused_by_name(tmp_path):
    with pytest.raises(RuntimeError, match="lacks all parameters"):
        _require_whole(tmp_path)
    for name in ("table", "layers"):
        (tmp_path / name).mkdir()
        for part in PARTS:
            (tmp_path / name / part).touch()
    _require_whole(tmp_path)
    (tmp_path / "layers" / "exp_avg.pt").unlink()
    with pytest.raises(RuntimeError, match=r"the universal checkpoint lacks layers/exp_avg.pt$"):
        _require_whole(tmp_path)
