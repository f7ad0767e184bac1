"""The packed encoder against a plain, padded one with the same parameters, written for this test."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from etl.errors import InputError
from model.encoder import Encoder
from model.packing import PackedTexts, pack
from model.presets import PRESETS, EncoderConfig, preset
from tests.test_model_packing import TABLE

TEXTS = [[3, 9, -7, 3], [9], [-7, 3], [], [3, 3], [9, -7, 3, 9, 3]]
CONFIG = EncoderConfig(rows=40, dim=8, layers=2, hidden=12, heads=3, ffn=16, positions=6, token_weights=True)
CONFIGS = {
    "bag": replace(CONFIG, layers=0),
    "hybrid": CONFIG,
    "transformer": replace(CONFIG, bag=False, hidden=8, heads=2, feature_weights=False, token_weights=False),
    "head": replace(CONFIG, bag=False, feature_weights=False, token_weights=False),
    "transformer on weighted features": replace(CONFIG, bag=False, hidden=8, heads=2, token_weights=False),
}


def packed_texts() -> PackedTexts:
    return pack(np.array([t for text in TEXTS for t in text]), np.cumsum([0, *map(len, TEXTS)]), TABLE)


def random_encoder(config: EncoderConfig) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(config).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def plain(encoder: Encoder) -> torch.Tensor:
    """[N, D] by loops over words and one padded batch through the layers."""
    embeddings, config = encoder.embeddings, encoder.config
    width = config.positions
    words, weights, keep = (
        torch.zeros(len(TEXTS), width, config.width),
        torch.zeros(len(TEXTS), width),
        torch.zeros(len(TEXTS), width),
    )
    for n, text in enumerate(TEXTS):
        for t, token in enumerate(text):
            row = TABLE.ids.tolist().index(token)
            features = TABLE.features[TABLE.offsets[row] : TABLE.offsets[row + 1]].tolist()
            scale = embeddings.feature_weights[features].exp() if config.feature_weights else torch.ones(len(features))
            words[n, t] = (embeddings.word_embeddings.weight[features] * scale[:, None]).mean(0)
            weights[n, t] = embeddings.token_weights[features].mean().exp() if config.token_weights else 1.0
            keep[n, t] = 1.0
    bag = F.normalize((words * weights[:, :, None]).sum(1), dim=-1)
    if not config.layers:
        return bag
    pooled = plain_bert(encoder, words, keep)
    if config.bag:
        return F.normalize(bag + encoder.projection(pooled), dim=-1)
    return F.normalize(encoder.head(pooled) if config.head else pooled, dim=-1)


def plain_bert(encoder: Encoder, words: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    embeddings, config = encoder.embeddings, encoder.config
    x = embeddings.projection(words) if config.bag else words
    x = embeddings.LayerNorm(x + embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0])
    for layer in encoder.encoder.layer:
        attention, heads = layer.attention.self, config.heads
        q, k, v = (
            f(x).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (attention.query, attention.key, attention.value)
        )
        mask = keep[:, None, None, :].bool() | (keep.sum(1) == 0)[:, None, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = layer.attention.output.LayerNorm(x + layer.attention.output.dense(y))
        y = layer.output.dense(F.gelu(layer.intermediate.dense(x)))
        x = layer.output.LayerNorm(x + y)
    return (x * keep[:, :, None]).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_texts_have_the_vectors_and_gradients_of_a_padded_reference(name):
    encoder = random_encoder(CONFIGS[name])
    target = torch.randn(len(TEXTS), CONFIG.dim)
    results = []
    for vectors in (encoder(packed_texts()), plain(encoder)):
        gradients = torch.autograd.grad((vectors * target).sum(), list(encoder.parameters()), allow_unused=True)
        results.append((vectors, [g for g in gradients if g is not None]))
    (packed, packed_gradients), (padded, padded_gradients) = results
    assert torch.allclose(packed, padded, atol=1e-5)
    assert len(packed_gradients) == len(padded_gradients) == len(list(encoder.parameters()))
    for ours, theirs in zip(packed_gradients, padded_gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_texts_are_unit_vectors_and_one_without_tokens_is_zero():
    norms = random_encoder(CONFIG)(packed_texts()).norm(dim=-1)
    assert torch.allclose(norms, torch.tensor([1.0, 1, 1, 0, 1, 1]), atol=1e-6)


def test_a_fresh_hybrid_is_its_bag():
    torch.manual_seed(1)
    hybrid = Encoder(CONFIG)
    bag = Encoder(CONFIGS["bag"])
    bag.load_state_dict({name: value for name, value in hybrid.state_dict().items() if name in bag.state_dict()})
    assert torch.allclose(hybrid(packed_texts()), bag(packed_texts()), atol=1e-6)


def test_a_text_longer_than_the_positions_is_cut_for_the_layers():
    encoder = random_encoder(replace(CONFIGS["transformer"], positions=2))
    long, short = (pack(np.array(ids), np.array([0, len(ids)]), TABLE) for ids in ([3, 9, -7], [3, 9]))
    assert torch.allclose(encoder(long), encoder(short))


def test_published_has_the_parameter_names_of_bert():
    small = replace(PRESETS["published"].encoder, rows=50, layers=1)
    names = dict(Encoder(small).named_parameters())
    block = "encoder.layer.0."
    expected = ["embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.token_type_embeddings"]
    expected += ["embeddings.LayerNorm", *(f"{block}attention.self.{x}" for x in ("query", "key", "value"))]
    expected += [f"{block}{x}" for x in ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense")]
    expected += [f"{block}output.dense", f"{block}output.LayerNorm"]
    assert {name.rsplit(".", 1)[0] for name in names} == set(expected)
    assert names["embeddings.word_embeddings.weight"].shape == (50, 512)
    assert names[f"{block}intermediate.dense.weight"].shape == (2048, 512)


def test_impossible_encoders_are_refused_with_all_reasons():
    with pytest.raises(InputError, match="no multiple of heads"):
        EncoderConfig(layers=1, hidden=10, heads=4)
    with pytest.raises(InputError, match="leave nothing"):
        EncoderConfig(bag=False, layers=0)
    for dims, instead in (((8,), "4"), ((0, 4), "4"), ((4, 2), "2 4"), ((4, 4), "4"), ((-1,), "4")):
        with pytest.raises(InputError, match=rf"matryoshka = \[.*\], but vectors are 8 wide.*: give {instead}, or"):
            EncoderConfig(dim=8, matryoshka=dims)
    with pytest.raises(InputError, match="needs wordpiece tokens, the dataset has wordhash"):
        preset("published", rows=100, tokens="wordhash", positions=10)
    with pytest.raises(InputError, match=r"preset 'nope' is unknown: expected one of published, hybrid"):
        preset("nope", rows=100, tokens="wordhash", positions=10)
