"""What the CPU's tests say, once more on a GPU: fp32 has the CPU's numbers, half precision trains under DeepSpeed.

Kernels on a GPU may add in another order with each run, so equal here means close.
"""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from pyspark import TaskContext
from pyspark.resource import ResourceInformation

from etl.dataset import verify
from etl.errors import EXIT_OK
from etl.warehouse import Warehouse
from labeling import encoding
from model import train
from model.bundle import candidate, load_bundle
from model.fit import Fitted, fit
from model.inference import embed
from model.loss import LossConfig, contrastive_loss
from model.ranks import Ranks
from model.tiled_cross_entropy import Tile
from tests import gradient_worker
from tests.labeling_data import write_small_bundle
from tests.model_data import DS
from tests.test_labeling_encoding import batches_of, encoded
from tests.test_model_inference import encoder, texts
from tests.test_model_loss import vectors
from tests.trainings import config, cut_off

pytestmark = pytest.mark.gpu


def losses(fitted: Fitted) -> list[float]:
    return [point[1] for point in fitted.curve.points]


@pytest.mark.parametrize("changes", [{}, {"cache_texts": 48}, {"learn_tau": True, "logq": 0.5}], ids=str)
def test_a_training_in_single_precision_has_the_loss_curve_of_the_cpu(shop_root, changes):
    settings = config(shop_root, precision="fp32", log_every=5, **changes)
    manifest = verify(settings.dataset)
    found, expected = (losses(fit(settings, manifest, device=device)) for device in ("cuda", "cpu"))
    assert len(found) > 5
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_training_goes_on_from_its_checkpoint_on_a_gpu(shop_root, tmp_path, monkeypatch, caplog):
    settings = config(shop_root, precision="fp32", device="cuda")
    manifest = verify(settings.dataset)
    whole = fit(settings, manifest, device="cuda")
    with monkeypatch.context() as patch:
        patch.setattr("tests.trainings.fit", lambda *args, **more: fit(*args, **more, device="cuda"))
        cut_off(settings, tmp_path / "checkpoints", 12, monkeypatch)
    with caplog.at_level(logging.INFO):
        found = fit(settings, manifest, device="cuda", checkpoints=tmp_path / "checkpoints")
    assert "going on after step 12" in caplog.text
    assert losses(found) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_deepspeed_trains_in_half_precision_at_every_stage(shop_root, root, stage, precision):
    shutil.copytree(shop_root / "datasets", root / "datasets")
    settings = root / "deepspeed.json"
    settings.write_text(json.dumps({"gradient_clipping": 0, "zero_optimization": {"stage": stage}}))
    flags = ["--root", str(root), "--ds", str(DS), "--preset", "tiny", "--epochs", "4", "--ranks", "1", "--log-every", "5"]
    more = ["--device", "cuda", "--precision", precision, "--deepspeed-config", str(settings)]
    assert train.main([*flags, *more]) == EXIT_OK
    bundle = load_bundle(candidate(Warehouse.at(str(root))))
    assert bundle.metrics["settings"]["precision"] == precision
    single = losses(fit(config(root, precision="fp32", log_every=5), verify(root / "datasets" / f"ds={DS}")))
    found = [point[1] for point in bundle.metrics["curve"]]
    assert found[-1] == pytest.approx(single[-1], rel=0.1)
    assert found[-1] < 0.8 * found[0]


@pytest.mark.parametrize("tile", [Tile(), Tile(rows=5, columns=3)], ids=["whole", "tiles"])
def test_the_loss_and_its_gradient_are_those_of_the_cpu(tile):
    rows, known, settings = gradient_worker.joined_rows(), gradient_worker.known_pairs(), LossConfig(logq=0.5, tile=tile)
    found = []
    for device in ("cpu", "cuda"):
        query, title = (vector.detach().to(device).requires_grad_() for vector in vectors(len(rows)))
        tau = torch.tensor([0.2], dtype=torch.float64, device=device)
        loss = contrastive_loss(query, title, rows, tau=tau, ranks=Ranks(), known=known, config=settings).loss
        found.append([loss.cpu(), *(gradient.cpu() for gradient in torch.autograd.grad(loss, (query, title)))])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("preset", ["bag", "hybrid", "published"])
def test_a_text_has_the_same_vector_on_a_gpu_in_any_company_and_that_of_the_cpu_nearly(preset):
    made, rows = encoder(preset), texts(400)
    on_cpu = embed(made, rows, None)
    whole = embed(made, rows, None, "cuda")
    for part in np.split(np.random.default_rng(2).permutation(len(rows)), [1, 2, 40]):
        assert np.array_equal(embed(made, [rows[i] for i in part], None, "cuda"), whole[part])
    assert np.abs(whole - on_cpu).max() < 1e-5


def test_the_labelling_s_mapped_function_encodes_arrow_batches_on_the_gpu_that_spark_gave(root, monkeypatch):
    bundle = write_small_bundle(root, poison="cursed")
    batches = batches_of([f"kettle {n}" for n in range(700)] + [None, "cursed kettle"], 100)
    on_cpu = encoded(bundle, batches)
    monkeypatch.setattr(TaskContext, "_taskContext", None)  # a new one makes itself the process's, and stays
    context = TaskContext()
    context._resources = {"gpu": ResourceInformation("gpu", ["0"])}
    assert encoding.task_device() == "cuda:0"
    found = encoded(bundle, batches)
    assert encoding.worker_bundle(str(bundle.path), bundle.id, "cuda:0").encoder.projection.weight.is_cuda
    assert {key: row[1:] for key, row in found.items()} == {key: row[1:] for key, row in on_cpu.items()}
    for key, (vector, *_) in found.items():
        assert (vector is None) == (on_cpu[key][0] is None)
        if vector is not None:
            assert np.abs(np.frombuffer(vector, "<f2") - np.frombuffer(on_cpu[key][0], "<f2")).max() <= 2e-3


def test_vectors_in_brain_floats_are_near_those_in_single_precision():
    made, rows = encoder("published"), texts(400, 60)
    single = embed(made, rows, None, "cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        half = embed(made, rows, None, "cuda")
    found = np.flatnonzero(np.linalg.norm(single, axis=1))
    assert (single[found] * half[found]).sum(axis=1).min() > 0.999
