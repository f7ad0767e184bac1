"""Checkpoints: which are kept, which are passed over as damaged, and which are refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from etl.dataset import verify
from etl.durable import write_sealed
from etl.errors import InputError
from model.checkpoints import COMPLETE, Checkpoints, Found, _problem
from model.fit import Fitted, fit
from model.presets import PRESETS
from model.ranks import Ranks
from model.reader import TrainingReader
from model.settings import training_settings
from model.trainer import LoopConfig
from tests.damage import each_damage
from tests.killed import each_death
from tests.trainings import as_if_two_ranks_had_saved, config, cut_off, same, unsealed


@pytest.fixture(scope="module")
def whole(shop_root) -> Fitted:
    settings = config(shop_root)
    return fit(settings, verify(settings.dataset))


def truncate(path: Path) -> None:
    file = path / "torch.pt"
    file.write_bytes(file.read_bytes()[:-100])


def lose_a_file(path: Path) -> None:
    (path / "random-0.pt").unlink()


def half_write(path: Path) -> None:
    (path / COMPLETE).unlink()


def garble_the_manifest(path: Path) -> None:
    (path / COMPLETE).write_text('{"files": ')


@pytest.mark.fault("model-damaged")
@pytest.mark.parametrize("damage", [truncate, lose_a_file, half_write, garble_the_manifest])
def test_a_damaged_checkpoint_is_passed_over_loudly_for_the_one_before_it(
    shop_root, whole, tmp_path, monkeypatch, caplog, damage
):
    settings = config(shop_root)
    cut_off(settings, tmp_path, 9, monkeypatch)
    damage(tmp_path / "step-00000009")
    with caplog.at_level(logging.WARNING):
        again = fit(settings, verify(settings.dataset), checkpoints=tmp_path)
    assert "step-00000009 is not used" in caplog.text
    assert "going on after step 6" in caplog.text
    assert same(again, whole)


def lose_the_position(path: Path) -> None:
    manifest = unsealed(path)
    del manifest["position"]
    write_sealed(path / COMPLETE, manifest)


def write_a_field_of_another_version(path: Path) -> None:
    manifest = unsealed(path)
    manifest["progress"]["best_loss"] = 0.1
    write_sealed(path / COMPLETE, manifest)


@pytest.mark.fault("model-damaged")
@pytest.mark.parametrize("change", [lose_the_position, write_a_field_of_another_version])
def test_a_checkpoint_of_another_version_is_passed_over_loudly_too(shop_root, tmp_path, monkeypatch, caplog, change):
    cut_off(config(shop_root), tmp_path, 6, monkeypatch)
    change(tmp_path / "step-00000006")
    found = Checkpoints(tmp_path, Ranks()).newest()
    assert found is not None
    assert found.position.step == 3
    assert re.search(
        r"step-00000006 is not used: COMPLETE.json cannot be read \((Key|Type)Error: .*(position|best_loss)", caplog.text
    )


@pytest.mark.fault("model-damaged")
def test_a_training_of_whose_checkpoints_none_is_whole_any_more_is_refused_with_what_is_wrong_with_each(
    shop_root, tmp_path, monkeypatch
):
    settings = config(shop_root)
    cut_off(settings, tmp_path, 6, monkeypatch)
    half_write(tmp_path / "step-00000003")
    truncate(tmp_path / "step-00000006")
    with pytest.raises(InputError, match=r"no checkpoint in .* is whole .*start afresh with --no-resume") as error:
        fit(settings, verify(settings.dataset), checkpoints=tmp_path)
    newer, older = error.value.problems
    assert newer == "step-00000006: torch.pt is not what was written"
    assert older.startswith("step-00000003: COMPLETE.json cannot be read (FileNotFoundError")


def test_a_training_that_never_had_a_whole_checkpoint_starts(shop_root, whole, tmp_path):
    settings = config(shop_root, save_every=0)
    for name in ("step-00000003.partial", "step-00000006.removing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / COMPLETE).write_text("{")
    assert same(fit(settings, verify(settings.dataset), checkpoints=tmp_path), whole)


def test_a_checkpoint_of_before_manifests_had_a_digest_is_gone_on_from(shop_root, tmp_path, monkeypatch):
    cut_off(config(shop_root), tmp_path, 3, monkeypatch)
    path = tmp_path / "step-00000003"
    (path / COMPLETE).write_text(json.dumps(unsealed(path)))
    assert Checkpoints(tmp_path, Ranks()).newest().position.step == 3


@pytest.mark.fault("model-damaged")
def test_a_checkpoint_of_which_any_file_is_cut_or_has_a_flipped_bit_is_refused_by_that_file_s_name(
    shop_root, tmp_path, monkeypatch
):
    cut_off(config(shop_root, average_from=0.01), tmp_path, 3, monkeypatch)
    files = [path for path in (tmp_path / "step-00000003").rglob("*") if path.is_file()]
    assert {file.name for file in files} == {"torch.pt", "average.pt", "random-0.pt", COMPLETE}
    for file in files:
        for damage in each_damage(file):
            with pytest.raises(InputError) as error:
                Checkpoints(tmp_path, Ranks()).newest()
            assert file.name in error.value.problems[0], damage
    assert Checkpoints(tmp_path, Ranks()).newest().position.step == 3


@pytest.mark.fault("killed-at-boundary")
def test_saving_and_removing_checkpoints_leaves_no_damaged_one_wherever_it_is_killed(shop_root, tmp_path, monkeypatch):
    cut_off(config(shop_root), tmp_path / "laid", 6, monkeypatch)
    laid = tmp_path / "laid" / "step-00000006"
    found = Found.of(laid, unsealed(laid))
    engine, directory = _Saves(laid / "torch.pt"), tmp_path / "checkpoints"

    def lay_down() -> Checkpoints:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(tmp_path / "laid", directory)
        return Checkpoints(directory, Ranks())

    def save(keeper: Checkpoints) -> None:
        keeper.save(engine, replace(found.position, step=9), found.progress)

    steps = []
    for keeper in each_death(lay_down, save):
        steps.append(keeper.newest().position.step)
        assert not [path for path in keeper._steps() if _problem(path)]
    assert list(dict.fromkeys(steps)) == [6, 9]
    for keeper in each_death(lay_down, Checkpoints.remove):
        assert not [path for path in keeper._steps() if _problem(path)]
    assert not directory.exists()


def test_only_the_last_two_are_kept_and_nothing_half_written_is_taken_for_one(shop_root, tmp_path, monkeypatch):
    settings = config(shop_root)
    (tmp_path / "step-00000099.partial").mkdir()
    cut_off(settings, tmp_path, 9, monkeypatch)
    assert sorted(p.name for p in tmp_path.glob("step-*[0-9]")) == ["step-00000006", "step-00000009"]
    found = Checkpoints(tmp_path, Ranks()).newest()
    assert found is not None
    assert found.position.step == 9


def test_as_many_as_were_asked_for_are_kept(shop_root, tmp_path, monkeypatch):
    cut_off(config(shop_root, keep_checkpoints=3), tmp_path, 15, monkeypatch)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000009", "step-00000012", "step-00000015"]


def test_a_training_that_goes_on_with_other_epochs_or_batch_is_refused(shop_root, tmp_path, monkeypatch):
    cut_off(config(shop_root), tmp_path, 3, monkeypatch)
    as_if_two_ranks_had_saved(tmp_path / "step-00000003")
    cut_off(config(shop_root), tmp_path, 6, monkeypatch)
    other = config(shop_root, batch=29, epochs=5.0)
    with pytest.raises(InputError, match=r"batch is 29, .* saved with 30\n.*\n.*epochs is 5.0, .* saved with 4.0"):
        fit(other, verify(other.dataset), checkpoints=tmp_path)


@pytest.mark.fault("model-damaged")
def test_a_checkpoint_of_other_settings_is_refused_with_every_difference(shop_root, tmp_path, monkeypatch):
    cut_off(config(shop_root), tmp_path, 3, monkeypatch)
    other = config(shop_root, tau=0.2, seed=5, multi_positives=True)
    with pytest.raises(InputError, match="cannot go on from step 3") as error:
        fit(other, verify(other.dataset), checkpoints=tmp_path)
    for part in ("tau is 0.2, the position was saved with 0.05", "seed is 5", "multi_positives is True"):
        assert part in str(error.value)


@pytest.mark.fault("model-damaged")
def test_a_checkpoint_of_another_encoder_clipping_or_cache_is_refused_with_every_difference(
    shop_root, tmp_path, monkeypatch, caplog
):
    with caplog.at_level(logging.INFO):
        cut_off(config(shop_root), tmp_path, 3, monkeypatch)
    assert "million parameters in reach; no gradient clipping" in caplog.text
    clipped = tmp_path / "clipped.json"
    clipped.write_text('{"gradient_clipping": 0.5}')
    encoder = replace(PRESETS["tiny"].encoder, ffn=64, dropout=0.1)
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], encoder=encoder))
    other = config(shop_root, deepspeed_config=str(clipped), cache_texts=16)
    with caplog.at_level(logging.INFO), pytest.raises(InputError) as error:
        fit(other, verify(other.dataset), checkpoints=tmp_path)
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "cache_texts", "encoder.dropout", "encoder.ffn", "gradient_clipping",
    ]  # fmt: skip
    assert "gradients are clipped at a norm of 0.5" in caplog.text


def test_all_of_deepspeeds_settings_are_kept_each_under_a_name_of_its_own(shop_root, tmp_path):
    file = tmp_path / "stage1.json"
    file.write_text('{"gradient_clipping": 0.5, "zero_optimization": {"stage": 1}, "prescale_gradients": true}')
    settings = config(shop_root, deepspeed_config=str(file))
    manifest = verify(settings.dataset)
    chosen = settings.chosen_preset(manifest)
    reader = TrainingReader(settings.dataset, manifest, settings.reader(chosen), Ranks())
    kept = training_settings(settings, chosen, reader, LoopConfig(steps=1), Ranks(), "fp32", "deepspeed")
    assert {name: value for name, value in kept.items() if name.startswith("deepspeed.")} == {
        "deepspeed.zero_optimization.stage": 1,
        "deepspeed.prescale_gradients": True,
    }
    assert kept["gradient_clipping"] == 0.5


@pytest.mark.fault("model-damaged")
def test_a_checkpoint_that_does_not_load_is_an_error_and_no_fresh_start(shop_root, tmp_path, monkeypatch):
    settings = config(shop_root)
    cut_off(settings, tmp_path, 3, monkeypatch)
    path = tmp_path / "step-00000003"
    torch.save({"model": {}, "adam": {}}, path / "torch.pt")
    found = Found.of(path, json.loads((path / COMPLETE).read_text()))
    Checkpoints(tmp_path, Ranks()).save(_Saves(path / "torch.pt"), found.position, found.progress)
    with pytest.raises(RuntimeError, match=r"step-00000003 cannot be loaded: rank 0: RuntimeError: Error\(s\) in loading"):
        fit(settings, verify(settings.dataset), checkpoints=tmp_path)


class _Saves:
    """An engine that leaves a file instead of its state."""

    device = torch.device("cpu")

    def __init__(self, file: Path) -> None:
        self.content = file.read_bytes()

    def save(self, directory: Path) -> None:
        (directory / "torch.pt").write_bytes(self.content)
