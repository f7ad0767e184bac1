"""Small trainings, whole or cut off, and what they left."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from etl.dataset import verify
from etl.durable import SEAL, write_sealed
from model.checkpoints import COMPLETE, Checkpoints
from model.engines import TorchEngine
from model.fit import Fitted, fit
from model.train_config import TrainConfig
from tests.model_data import DS


def config(root: Path, **changes) -> TrainConfig:
    """A training of 34 steps, with a checkpoint after every third, on the dataset of ``small_shop`` under ``root``."""
    return TrainConfig(root=str(root), ds=DS, **({"preset": "tiny", "epochs": 4.0, "save_every": 3} | changes))


class CutOff(RuntimeError):
    pass


def cut_off(settings: TrainConfig, checkpoints: Path, after: int, monkeypatch) -> None:
    """Train until the checkpoint after step ``after`` is there, and no further."""
    save = Checkpoints.save

    def save_and_stop(self, engine, position, progress):
        save(self, engine, position, progress)
        if position.step >= after:
            raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(CutOff):
            fit(settings, verify(settings.dataset), checkpoints=checkpoints)


def stopping_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Have plain torch fail in the step after so many."""
    step, taken = TorchEngine.step, itertools.count(1)

    def step_or_stop(self, scales):
        if next(taken) > steps:
            raise CutOff
        step(self, scales)

    patch.setattr(TorchEngine, "step", step_or_stop)


def same(one: Fitted, other: Fitted) -> bool:
    pairs = zip(one.encoder.state_dict().values(), other.encoder.state_dict().values(), strict=True)
    return one.curve.points == other.curve.points and all(torch.equal(a, b) for a, b in pairs)


def as_if_two_ranks_had_saved(path: Path) -> None:
    """Plain torch saves the same state on any number of ranks; so only the manifest says how many they were."""
    manifest = unsealed(path)
    manifest["position"]["world"] = 2
    manifest["position"]["settings"] |= {"ranks": 2, "batch": 15, "crops": 15, "steps": 34}
    write_sealed(path / COMPLETE, manifest)


def unsealed(path: Path) -> dict[str, Any]:
    """What the manifest of a checkpoint says."""
    manifest = json.loads((path / COMPLETE).read_text())
    del manifest[SEAL]
    return manifest
