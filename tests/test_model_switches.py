"""What a training may do differently: drop words and features, average its weights, learn from another bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from etl.dataset import verify
from etl.errors import InputError
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from model.augment import thinned
from model.averaging import TAKEN, AveragedEngine
from model.bundle import load_bundle, write_bundle
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import TorchEngine, optimizer, parameter_groups
from model.fit import fit
from model.inference import embed
from model.packing import pack, tokenised
from model.presets import PRESETS
from model.ranks import Ranks
from model.reader import TrainingReader
from model.train_config import TrainConfig
from tests.model_data import DS, small_shop, write_dataset
from tests.trainings import config, cut_off


@pytest.mark.parametrize("special", [0, 1])
def test_a_list_loses_a_share_of_its_values_never_all_of_them_and_keeps_its_ends(special):
    lengths = np.array([0, 1 + 2 * special, 3 + 2 * special, 40, 2 * special] * 50)
    values, offsets = np.arange(lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])
    kept, starts = thinned(values, offsets, 0.4, draw=np.random.default_rng(1), special=special)
    inner = np.diff(starts)[lengths > 2 * special] - 2 * special
    assert inner.min() == 1
    long = np.diff(starts)[lengths == 40] - 2 * special
    assert long.mean() == pytest.approx(0.6 * (40 - 2 * special), rel=0.1)
    assert (np.diff(starts)[lengths <= 2 * special] == lengths[lengths <= 2 * special]).all()
    assert (np.diff(kept) > 0).all()
    for n in np.flatnonzero(lengths == 40):
        text = kept[starts[n] : starts[n + 1]]
        assert set(text) >= {*values[offsets[n] : offsets[n] + special], *values[offsets[n + 1] - special : offsets[n + 1]]}


@pytest.mark.parametrize(("name", "counted"), [("word_dropout", "tokens"), ("feature_dropout", "features")])
def test_dropout_of_words_and_features_is_drawn_anew_in_each_step_and_again_by_a_run_that_goes_on(shop_root, name, counted):
    found = {}
    for share in (0.0, 0.3):
        settings = config(shop_root, **{name: share})
        manifest = verify(settings.dataset)
        reader = TrainingReader(
            settings.dataset, manifest, settings.reader(settings.chosen_preset(manifest).with_settings(batch=32)), Ranks()
        )
        found[share] = list(reader.batches(6))
        if share:
            for again, batch in zip(reader.batches(6, reader.position(4)), found[share][4:], strict=True):
                assert torch.equal(again.texts.features, batch.texts.features)
                assert torch.equal(again.texts.tokens, batch.texts.tokens)
    sizes = {share: sum(len(getattr(batch.texts, counted)) for batch in batches) for share, batches in found.items()}
    assert 0.65 < sizes[0.3] / sizes[0.0] < 0.9  # no word of one n-gram, no text of one word loses it
    assert all((batch.texts.feature_offsets.diff() > 0).all() for batch in found[0.3])


def test_the_averaged_weights_are_the_mean_of_those_after_the_last_steps():
    torch.manual_seed(0)
    model = DualEncoder(Encoder(PRESETS["tiny"].encoder), tau=0.1)
    groups = parameter_groups(model, lr=1e-2, weight_lr=1.0, layers_lr=1.0)
    engine = AveragedEngine(TorchEngine(model, optimizer(groups), Ranks()), Ranks(), start=2, steps=5)
    texts, seen = pack(np.arange(6), np.arange(7), None), []
    for _ in range(5):
        vectors, _ = engine.forward(texts)
        engine.backward(vectors[0] @ vectors[1])
        engine.step({"table": 1.0, "weights": 1.0, "layers": 1.0})
        seen.append(engine.engine.weights()["embeddings.word_embeddings.weight"].clone())
    expected = torch.stack(seen[2:]).double().mean(dim=0)
    assert torch.allclose(engine.weights()["embeddings.word_embeddings.weight"].double(), expected, atol=1e-7)
    assert not torch.allclose(seen[-1].double(), expected, atol=1e-4)


@pytest.mark.parametrize("start", [0, 1, 21, 37, 59])
def test_no_more_than_twenty_weights_are_averaged_the_last_among_them(start):
    model = DualEncoder(Encoder(PRESETS["tiny"].encoder), tau=0.1)
    adam = optimizer(parameter_groups(model, lr=1e-3, weight_lr=1.0, layers_lr=1.0))
    engine = AveragedEngine(TorchEngine(model, adam, Ranks()), Ranks(), start=start, steps=60)
    taken = []
    for _ in range(60):
        engine.step({"table": 1.0, "weights": 1.0, "layers": 1.0})
        taken.append(engine.taken)
    assert taken[-1] - taken[-2] == 1
    assert min(60 - start, TAKEN / 2) <= taken[-1] <= TAKEN


def test_a_training_that_averages_goes_on_after_a_crash_with_the_mean_that_it_had(shop_root, tmp_path, monkeypatch):
    settings = config(shop_root, average_from=0.2)
    manifest = verify(settings.dataset)
    whole = fit(settings, manifest)
    cut_off(settings, tmp_path, 9, monkeypatch)
    rest = fit(settings, manifest, checkpoints=tmp_path)
    for a, b in zip(rest.encoder.state_dict().values(), whole.encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module")
def teacher(shop_root) -> Path:
    settings = config(shop_root, epochs=8.0)
    encoder = fit(settings, verify(settings.dataset)).encoder
    bundles, tokenizer = Warehouse.at(str(shop_root)).bundles, load_tokenizer(settings.dataset)
    return write_bundle(bundles, encoder, tokenizer, ds=DS, metrics={"heldout": {}}, lineage={"inputs": {}})


def ranking(encoder: Encoder, settings: TrainConfig) -> torch.Tensor:
    """[Q, N]: log of the softmax over the titles of each query."""
    shop, tokenizer = small_shop(), load_tokenizer(settings.dataset)
    sides = (shop.queries, "query"), (shop.titles, "title")
    query_QD, title_ND = (embed(encoder, *tokenised(tokenizer, list(texts.values()), side)) for texts, side in sides)
    return torch.from_numpy(query_QD @ title_ND.T / PRESETS["tiny"].tau).log_softmax(dim=1)


def test_a_student_ranks_titles_more_as_its_teacher_does_than_one_that_learns_alone(shop_root, teacher):
    wanted = ranking(load_bundle(teacher).encoder, config(shop_root))
    distance = {}
    for name, changes in {"alone": {}, "taught": {"distil_from": str(teacher), "distil_weight": 10.0}}.items():
        settings = config(shop_root, seed=7, **changes)
        found = ranking(fit(settings, verify(settings.dataset)).encoder, settings)
        distance[name] = float(torch.nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True))
    assert distance["taught"] < 0.7 * distance["alone"], distance


def test_a_teacher_of_another_tokenizer_is_refused(shop_root, teacher, tmp_path):
    write_dataset(tmp_path / "datasets" / f"ds={DS}", small_shop(), rows=2**11)
    settings = config(tmp_path, distil_from=str(teacher))
    with pytest.raises(InputError, match="whose tokenizer is not that of the dataset"):
        fit(settings, verify(settings.dataset))


def test_features_cannot_be_dropped_where_a_token_is_its_only_one(tmp_path):
    write_dataset(tmp_path / "datasets" / f"ds={DS}", small_shop(), kind="wordpiece")
    settings = config(tmp_path, preset="published", batch=8, feature_dropout=0.1)
    manifest = verify(settings.dataset)
    with pytest.raises(InputError, match="no n-grams to leave out"):
        TrainingReader(settings.dataset, manifest, settings.reader(settings.chosen_preset(manifest)), Ranks())


def test_layers_that_rest_do_not_enter_the_mean(shop_root):
    found = {}
    for start in (0.0, 0.5):
        settings = config(shop_root, layers_from=0.5, average_from=start)
        found[start] = fit(settings, verify(settings.dataset)).encoder.state_dict()
    assert all(torch.equal(found[0.0][name], value) for name, value in found[0.5].items())
