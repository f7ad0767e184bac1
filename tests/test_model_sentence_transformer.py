"""Bundles opened by sentence-transformers: BERTs with nothing of ours, word-hashed ones through our loader."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from etl.errors import InputError
from etl.text import Normaliser
from etl.tokenizer import BothTokenizer, WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.wordpiece import WordPieceTokenizer
from model.bundle import Bundle, load_bundle, verify, write_bundle
from model.encoder import Encoder
from model.presets import PRESETS, EncoderConfig
from model.sentence_transformer import as_sentence_transformer
from tests.rows import DS

BERT = replace(PRESETS["published"].encoder, rows=600, dim=32, hidden=32, layers=2, heads=4, ffn=64)

MIXED = (
    "red kettle Größe STRASSE café ÉTÉ ｆｕｌｌ Ｗｉｄｔｈ 红色 连衣裙 運動鞋 ｶﾞ 운동화 हिन्दी ที่นอน İstanbul ß\u0301 Ꮳ ᾳ ſ ǅ "
    '👟🏽 ❤\ufe0f 1\ufe0f\u20e3 sho\xade a\u200bb a\u200db \x00\x07 \ufffd \ue000 \u3000 ^ ` é^ 5.5mm 3/4" @! ##a '
    "ﬁne [SEP] [CLS] [MASK] [UNK] [PAD]"
)

CHINESE = "连衣裙 运动鞋 電風扇 手机壳 充电器 保温杯 儿童 女士 男式 夏季 新款 红色 黑色 純棉 真皮 防水 加厚 大码 套装 官方"

ALONE = """
import json, sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("etl", "model", "labeling", "benchmarks", "tests"):
            raise ImportError(f"{name} is ours")

sys.meta_path.insert(0, Refuse())
from sentence_transformers import SentenceTransformer
import numpy as np
titles = json.loads(Path(sys.argv[1]).read_text())
for path in sys.argv[2:]:
    model = SentenceTransformer(path, device="cpu")
    assert model.max_seq_length == 100
    np.save(path + ".npy", model.encode(titles))
assert not {name.partition(".")[0] for name in sys.modules} & {"etl", "model", "labeling"}
"""


def mixed_titles(number: int = 1_000) -> list[str]:
    """Titles of two scripts and more, half of them mostly Chinese, some without a word, some with more than 100 tokens."""
    rng = np.random.default_rng(1)
    found = ["", " ", "👟", "[SEP] kettle"]
    while len(found) < number:
        words = [str(word) for word in rng.choice(MIXED.split(" "), size=int(rng.integers(1, 14)))]
        letters = "".join(map(chr, rng.integers(0xA1, 0x2100, size=3)))
        if rng.random() < 0.5:
            characters = "".join(map(chr, rng.integers(0x4E00, 0xA000, size=int(rng.integers(1, 9)))))
            words = [*words[:2], *map(str, rng.choice(CHINESE.split(" "), size=int(rng.integers(1, 9)))), characters]
            rng.shuffle(words)
        title = ("" if rng.random() < 0.3 else " ").join([*words, letters])
        found.append(title * (20 if rng.random() < 0.02 else 1))
    return found


def random_encoder(config: EncoderConfig) -> Encoder:
    torch.manual_seed(1)
    encoder = Encoder(config)
    for name, value in encoder.named_parameters():
        if "LayerNorm" not in name:
            torch.nn.init.normal_(value, std=0.1)
    return encoder


def write(root, config: EncoderConfig = BERT, **spec):
    normaliser = Normaliser(simplified=spec.get("simplified_chinese", False)).hash
    made = TokenizerSpec(kind=config.tokens, rows=config.rows, normaliser=normaliser, **spec)
    tokenizer = WordHashTokenizer(made)
    if config.tokens == "both":
        tokenizer = BothTokenizer.train(replace(made, pieces=600), mixed_titles(30))
    if config.tokens == "wordpiece":
        tokenizer = WordPieceTokenizer.train(made, mixed_titles(300))
        config = replace(config, rows=tokenizer.tokenizer.get_vocab_size())
    return write_bundle(root / "bundles", random_encoder(config), tokenizer, ds=DS, metrics={}, lineage={})


@pytest.fixture(scope="module")
def opened_alone(tmp_path_factory) -> dict[int, tuple[Bundle, np.ndarray]]:
    """By dim, two bundles and the vectors that a process without any package of ours has of the titles."""
    root = tmp_path_factory.mktemp("alone")
    bundles = {dim: load_bundle(write(root, replace(BERT, dim=dim))) for dim in (32, 24)}
    (root / "titles.json").write_text(json.dumps(mixed_titles()))
    argv = [sys.executable, "-I", "-c", ALONE, str(root / "titles.json"), *(str(b.path) for b in bundles.values())]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {dim: (bundle, np.load(f"{bundle.path}.npy")) for dim, bundle in bundles.items()}


@pytest.mark.parametrize("dim", [32, 24], ids=["without head", "with head"])
def test_sentence_transformers_alone_gives_a_bert_bundles_vectors(opened_alone, dim):
    bundle, theirs = opened_alone[dim]
    titles = mixed_titles()
    assert max(len(bundle.tokenizer.ids(title, "title")) for title in titles) == 100
    ours = bundle.encode(titles, "title")
    assert theirs.shape == ours.shape == (1_000, dim)
    assert np.sum(theirs * ours, axis=1).min() >= 0.9999
    assert (theirs[:100] @ theirs[:100].T).mean() < 0.99  # they differ at all


@pytest.mark.parametrize("name", ["bag", "hybrid", "hybrid-both"])
def test_a_hashed_bundle_gives_its_vectors_through_our_loader(tmp_path, name):
    config = replace(PRESETS[name].encoder, rows=2**10, dim=32, hidden=16, heads=2, ffn=32)
    bundle = load_bundle(write(tmp_path, config))
    model = as_sentence_transformer(bundle.path)
    titles = [title for title in mixed_titles() if len(bundle.tokenizer.ids(title, "title"))]
    assert len(titles) > 900
    assert np.sum(model.encode(titles) * bundle.encode(titles, "title"), axis=1).min() >= 0.9999
    assert np.allclose(model.encode([""]), bundle.encode([""], "title"), atol=1e-6)
    assert model.encode([""]).any() == bool(len(bundle.tokenizer.ids("", "title")))  # WordPiece has [CLS] and [SEP]
    assert model.get_embedding_dimension() == 32
    assert model.max_seq_length == 100


def test_our_loader_cuts_queries_at_their_own_limit(tmp_path):
    bundle = load_bundle(write(tmp_path, max_query_tokens=4))
    query = ["red kettle red kettle red kettle"]
    model = as_sentence_transformer(bundle.path)
    assert np.allclose(model.encode_query(query), bundle.encode(query, "query"), atol=1e-6)
    assert not np.allclose(model.encode(query), bundle.encode(query, "query"), atol=1e-3)


@pytest.mark.parametrize(("config", "spec"), [(PRESETS["tiny"].encoder, {}), (BERT, {"simplified_chinese": True})])
def test_a_bundle_that_is_no_plain_bert_says_so_and_opens_through_our_loader_only(tmp_path, config, spec):
    from sentence_transformers import SentenceTransformer

    path = write(tmp_path, config, **spec)
    assert verify(path)["sentence_transformers"] == "through model.sentence_transformer"
    with pytest.raises((ValueError, OSError)):
        SentenceTransformer(str(path))
    text = ["運動鞋 kettle"]
    assert np.allclose(as_sentence_transformer(path).encode(text), load_bundle(path).encode(text, "title"), atol=1e-6)


def test_a_changed_file_in_a_folder_of_the_bundle_is_refused(tmp_path):
    path = write(tmp_path, replace(BERT, dim=24))
    assert verify(path)["sentence_transformers"] == "opens it"
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (path / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"(?s)1_Pooling/config.json has SHA-256.*2_Dense/model.safetensors is missing"):
        load_bundle(path)


def test_our_jobs_do_not_import_sentence_transformers():
    code = "import sys, model.sentence_transformer, model.worker; assert 'sentence_transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
