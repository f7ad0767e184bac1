"""A dataset, a checkpoint or a bundle that somebody laid down to run code when it is opened runs none.

Each file is first shown to be live: opened by what its format's own reader does, it makes the canary.
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from petastorm.etl.dataset_metadata import UNISCHEMA_KEY, get_schema_from_dataset_url
from safetensors import SafetensorError

from etl.dataset import DataFile, Manifest, verify
from etl.durable import SEAL, write_sealed
from etl.errors import InputError
from model.bundle import _bundle_id, _sha256, load_bundle
from model.checkpoints import COMPLETE, _digest
from model.fit import fit
from model.ranks import Ranks
from model.reader import ReaderConfig, TrainingReader
from model.safe_load import weights_only
from tests.bundles import promote_untrained_bundle
from tests.model_data import small_shop, write_dataset
from tests.trainings import config, cut_off, unsealed

pytestmark = pytest.mark.fault("malicious")


class Canary:
    """Pickled, it makes a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return eval, (f"__import__('pathlib').Path({str(self.file)!r}).touch()",)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def runs_code(file: Path, canary: Path) -> bool:
    """Whether a file does what it is meant to, opened without care."""
    torch.load(io.BytesIO(file.read_bytes()), weights_only=False)
    return canary.exists()


def poison(dataset: Path, canary: Path) -> None:
    """A Unischema that runs code, where petastorm looks for it and in the footers of the rows too."""
    unischema = {UNISCHEMA_KEY: pickle.dumps(Canary(canary))}
    for file in sorted((dataset / "pairs").glob("*.parquet")):
        table = pq.read_table(file)
        pq.write_table(table.replace_schema_metadata(unischema), file)
    pq.write_metadata(table.schema.with_metadata(unischema), dataset / "pairs" / "_common_metadata")


def list_again(dataset: Path) -> Manifest:
    """The manifest of whoever may write all of it, hashes and all."""
    manifest = Manifest.read(dataset)
    paths = {part: [dataset / file.path for file in files] for part, files in manifest.parts.items()}
    paths["pairs"].append(dataset / "pairs" / "_common_metadata")
    replace(manifest, parts={p: tuple(DataFile.of(dataset, f) for f in fs) for p, fs in paths.items()}).write(dataset)
    return verify(dataset)


def test_a_dataset_with_a_pickle_that_runs_code_is_refused_and_trains_without_opening_it(tmp_path, canary):
    dataset = tmp_path / "ds=2024-05-07"
    write_dataset(dataset, small_shop())
    poison(dataset, canary)
    with pytest.raises(InputError, match="pairs/_common_metadata is not in the manifest"):
        verify(dataset)
    reader = TrainingReader(dataset, list_again(dataset), ReaderConfig(batch=10, crops=0.0), Ranks())
    assert len(list(reader.batches(reader.steps_per_epoch))) == reader.steps_per_epoch > 0
    assert not canary.exists()
    get_schema_from_dataset_url(f"file://{dataset}/pairs")
    assert canary.exists()


def replace_file(checkpoint: Path, name: str, canary: Path) -> None:
    """Put a pickle that runs code in the place of a file, and say in the manifest that it belongs there."""
    torch.save({"model": Canary(canary)}, checkpoint / name)
    manifest = unsealed(checkpoint)
    manifest["files"][name] = _digest(checkpoint / name)
    write_sealed(checkpoint / COMPLETE, manifest)


@pytest.mark.parametrize("name", ["torch.pt", "random-0.pt", "average.pt"])
def test_a_checkpoint_with_a_pickle_that_runs_code_is_an_error_and_runs_none(shop_root, tmp_path, monkeypatch, canary, name):
    settings = config(shop_root, average_from=0.01)
    cut_off(settings, tmp_path / "checkpoints", 3, monkeypatch)
    checkpoint = tmp_path / "checkpoints" / "step-00000003"
    replace_file(checkpoint, name, canary)
    with pytest.raises(RuntimeError, match=r"cannot be loaded: rank 0: UnpicklingError: Weights only load failed"):
        fit(settings, verify(settings.dataset), checkpoints=tmp_path / "checkpoints")
    assert not canary.exists()
    assert runs_code(checkpoint / name, canary)


def test_deepspeeds_way_to_open_a_checkpoint_runs_no_code_while_it_loads_ours(tmp_path, canary):
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    torch.save({"x": Canary(canary)}, tmp_path / "evil.pt")
    own = {"zero_stage": ZeroStageEnum(2), "loss_scaler": LossScaler(4.0), "moments": torch.ones(2)}
    torch.save(own, tmp_path / "own.pt")
    engine = TorchCheckpointEngine()
    with weights_only():
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            engine.load(str(tmp_path / "evil.pt"))
        loaded = engine.load(str(tmp_path / "own.pt"))
    assert (loaded["zero_stage"], loaded["loss_scaler"].cur_scale) == (ZeroStageEnum(2), 4.0)
    assert not canary.exists()
    engine.load(str(tmp_path / "evil.pt"))  # as DeepSpeed does by itself
    assert canary.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "encoder.json", "tokenizer_spec.json", "metrics.json"])
def test_a_bundle_with_a_pickle_in_the_place_of_a_file_runs_no_code(root, canary, name):
    path = root / "bundles" / promote_untrained_bundle(root)
    torch.save(Canary(canary), path / name)
    with pytest.raises(InputError, match=f"{name} has SHA-256"):
        load_bundle(path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = _sha256(path / name)
    manifest["id"] = _bundle_id(manifest["files"])
    del manifest[SEAL]
    write_sealed(path / "manifest.json", manifest)
    path = path.rename(path.with_name(manifest["id"]))
    with pytest.raises((SafetensorError, UnicodeDecodeError, InputError)):
        load_bundle(path)
    assert not canary.exists()
    assert runs_code(path / name, canary)
