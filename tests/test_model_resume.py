"""A training that is cut off, killed or broken goes on as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from etl.dataset import verify
from etl.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_OK
from etl.warehouse import Warehouse
from model.bundle import load_bundle
from model.checkpoints import COMPLETE, Checkpoints
from model.engines import TorchEngine
from model.fit import Fitted, fit
from model.presets import PRESETS
from model.ranks import Ranks
from model.trainer import Collapsed, NotFinite
from tests import killed_rank_worker
from tests.model_data import DS
from tests.trainings import as_if_two_ranks_had_saved, config, cut_off, same


@pytest.fixture(scope="module")
def whole(shop_root) -> Fitted:
    settings = config(shop_root)
    return fit(settings, verify(settings.dataset))


def test_a_training_that_is_cut_off_ends_with_the_same_curve_and_weights(shop_root, whole, tmp_path, monkeypatch, caplog):
    settings = config(shop_root)
    cut_off(settings, tmp_path, 6, monkeypatch)
    with caplog.at_level(logging.WARNING):
        again = fit(settings, verify(settings.dataset), checkpoints=tmp_path)
    assert "going on after step 6" in caplog.text
    assert same(again, whole)


def test_dropout_goes_on_with_the_random_numbers_that_it_would_have_had(shop_root, tmp_path, monkeypatch):
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "tiny", replace(tiny, encoder=replace(tiny.encoder, dropout=0.3, attention_dropout=0.3)))
    settings = config(shop_root)
    uninterrupted = fit(settings, verify(settings.dataset))
    cut_off(settings, tmp_path, 6, monkeypatch)
    torch.rand(100)  # whatever else drew since
    assert same(fit(settings, verify(settings.dataset), checkpoints=tmp_path), uninterrupted)


def lose_a_gradient(engine: TorchEngine) -> None:
    engine.encoder.embeddings.word_embeddings.weight.grad.fill_(float("inf"))


def collapse(engine: TorchEngine) -> None:
    with torch.no_grad():
        engine.encoder.embeddings.word_embeddings.weight.fill_(0.1)


@pytest.mark.fault("bad-training")
@pytest.mark.parametrize(("break_", "error"), [(lose_a_gradient, NotFinite), (collapse, Collapsed)])
def test_checkpoints_survive_a_training_that_breaks_and_the_next_start_goes_on(
    shop_root, whole, tmp_path, monkeypatch, break_, error
):
    settings, calls, backward = config(shop_root), itertools.count(1), TorchEngine.backward

    def break_in_step_7(self, loss, *, last=True):
        backward(self, loss, last=last)
        if next(calls) == 7:
            break_(self)

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "backward", break_in_step_7)
        with pytest.raises(error, match=r"at step [78] of"):
            fit(settings, verify(settings.dataset), checkpoints=tmp_path)
    assert Checkpoints(tmp_path, Ranks()).newest().position.step == 6
    assert same(fit(settings, verify(settings.dataset), checkpoints=tmp_path), whole)


def test_a_training_that_went_on_with_another_number_of_ranks_goes_on_again_by_the_first_plan(
    shop_root, tmp_path, monkeypatch, caplog
):
    settings = config(shop_root)
    cut_off(settings, tmp_path, 3, monkeypatch)
    as_if_two_ranks_had_saved(tmp_path / "step-00000003")
    cut_off(settings, tmp_path, 6, monkeypatch)
    again = fit(settings, verify(settings.dataset), checkpoints=tmp_path)
    assert "going on after step 6" in caplog.text
    assert [again.settings[name] for name in ("ranks", "batch", "crops", "steps")] == [1, 30, 30, 34]
    assert again.curve.points[-1][0] == 34


LONG = ["--ds", str(DS), "--preset", "tiny", "--save-every", "10", "--epochs", "40", "--log-every", "5"]


def labeller_train(root: Path, *flags: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "model.train", "--root", str(root), *LONG, "--ranks", "2", *flags]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1])


def ranks_under(root: Path) -> list[int]:
    """Processes of the training ranks whose settings lie under ``root``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes()
        except OSError:
            continue
        if b"model.worker" in text and b"--settings" in text and str(root).encode() in text and b"deepspeed" not in text:
            found.append(int(entry.parent.name))
    return found


def kill_one_rank(root: Path, *flags: str) -> str:
    """Start a training, by default on two ranks, and end one by signal 9 when it has left a checkpoint; all end then.

    Returns what it said.
    """
    place = Warehouse.at(str(root)).training_checkpoints(DS)
    before = set(place.glob(f"step-*[0-9]/{COMPLETE}"))
    first = labeller_train(root, *flags)
    deadline = time.monotonic() + 120
    while not set(place.glob(f"step-*[0-9]/{COMPLETE}")) - before and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(ranks_under(root)[0], signal.SIGKILL)
    _, said = first.communicate(timeout=120)
    assert first.returncode not in (0, EXIT_BAD_INPUT), said
    assert not ranks_under(root)
    return said


def exit_codes(shop: Path, place: Path, dies: int | None = None) -> list[int | None]:
    """Of two ranks, of which one is killed in a step, if it is said which."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.killed_rank_worker"])  # takes seconds, and six ranks need it
    ranks = [context.Process(target=killed_rank_worker.run, args=(rank, shop, place, dies)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(5 * killed_rank_worker.TIMEOUT.total_seconds())
        rank.kill()
    return [rank.exitcode for rank in ranks]


@pytest.mark.fault("killed-rank")
def test_a_rank_that_is_killed_ends_the_other_and_the_next_start_has_the_same_losses_and_weights(shop_root, tmp_path):
    killed, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    assert exit_codes(shop_root, killed, dies=1) == [EXIT_BUG, -signal.SIGKILL]
    assert [exit_codes(shop_root, place) for place in (killed, uninterrupted)] == [[EXIT_OK, EXIT_OK]] * 2
    (curve, weights), (whole, expected) = [torch.load(place / "fitted.pt") for place in (killed, uninterrupted)]
    assert len(whole) > killed_rank_worker.KILLED_IN_STEP
    assert curve == whole
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.fault("killed-rank")
def test_a_training_of_two_ranks_that_is_killed_goes_on_with_one_and_that_again(shop_root, tmp_path):
    root, alone = tmp_path / "killed", ("--engine", "torch", "--ranks", "1")
    shutil.copytree(shop_root, root)
    kill_one_rank(root, "--engine", "torch")
    other = labeller_train(root, *alone, "--batch", "11", "--tau", "0.3")
    _, refused = other.communicate(timeout=300)
    assert other.returncode == EXIT_BAD_INPUT, refused
    assert "tau is 0.3, the position was saved with 0.05" in refused
    assert re.search(r"batch is 11, the position was saved with \d\d", refused)
    second = kill_one_rank(root, *alone)
    last = labeller_train(root, *alone)
    _, third = last.communicate(timeout=300)
    assert last.returncode == EXIT_OK, third
    steps = [int(re.search(r"going on after step (\d+) ", said)[1]) for said in (second, third)]
    assert steps[1] > steps[0]
    assert ["of 2 ranks, there are 1 now" in said for said in (second, third)] == [True, False]
    bundle = load_bundle(next(Warehouse.at(str(root)).bundles.glob("*/manifest.json")).parent)
    assert bundle.metrics["curve"][-1][0] == bundle.metrics["settings"]["steps"]
    assert not Warehouse.at(str(root)).training_checkpoints(DS).exists()


@pytest.mark.slow
@pytest.mark.fault("killed-rank")
def test_a_training_of_two_ranks_at_stage_2_that_is_killed_goes_on_with_one(shop_root, tmp_path):
    root, stage = tmp_path / "killed", tmp_path / "stage2.json"
    shutil.copytree(shop_root, root)
    stage.write_text('{"gradient_clipping": 0.0, "zero_optimization": {"stage": 2}}')
    kill_one_rank(root, "--deepspeed-config", str(stage))
    other = labeller_train(root, "--engine", "torch")
    assert "engine is 'torch', the position was saved with 'deepspeed'" in other.communicate(timeout=300)[1]
    assert other.returncode == EXIT_BAD_INPUT
    second = labeller_train(root, "--deepspeed-config", str(stage), "--ranks", "1")
    _, said = second.communicate(timeout=300)
    assert second.returncode == EXIT_OK, said
    assert "of 2 ranks, there are 1 now" in said


@pytest.mark.slow
@pytest.mark.fault("killed-rank")
@pytest.mark.parametrize("stage", [0, 3])  # 1 and 2 part the optimizer alone, which the test before this one tries
def test_after_kill_9_of_a_rank_all_end_and_the_next_start_makes_the_same_bundle(stage, shop_root, tmp_path):
    shutil.copytree(shop_root, tmp_path / "killed")
    shutil.copytree(shop_root, tmp_path / "whole")
    killed, whole, settings = tmp_path / "killed", tmp_path / "whole", tmp_path / "deepspeed.json"
    settings.write_text(json.dumps({"gradient_clipping": 0.0, "zero_optimization": {"stage": stage}}))
    flags = ("--deepspeed-config", str(settings))
    kill_one_rank(killed, *flags)
    place = Warehouse.at(str(killed)).training_checkpoints(DS)
    other = labeller_train(killed, "--tau", "0.3", *flags)
    _, said = other.communicate(timeout=300)
    assert other.returncode == EXIT_BAD_INPUT, said
    # By the first rank to see it, which the launcher may let the other say too, and by the command itself.
    assert said.count("tau is 0.3, the position was saved with 0.05") >= 2
    second = labeller_train(killed, *flags)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert "going on after step" in said
    third = labeller_train(whole, *flags)
    _, said = third.communicate(timeout=300)
    assert third.returncode == 0, said
    bundles = [load_bundle(next(Warehouse.at(str(root)).bundles.glob("*/manifest.json")).parent) for root in (killed, whole)]
    curves = [bundle.metrics["curve"] for bundle in bundles]
    assert curves[0] == curves[1]
    weights = [bundle.encoder.state_dict() for bundle in bundles]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert not place.exists()
