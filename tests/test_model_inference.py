from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from etl.text import normalise
from etl.tokenizer import WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from model.encoder import Encoder
from model.inference import embed, out_of_memory
from model.packing import offsets_of, pack, tokenised
from model.presets import PRESETS

ROWS = 3_000


def encoder(preset: str, **changes) -> Encoder:
    """As drawn, but for the layers' way out, which starts at zero."""
    torch.manual_seed(1)
    made = Encoder(replace(PRESETS[preset].encoder, rows=ROWS, dropout=0.0, **changes))
    if hasattr(made, "projection"):
        torch.nn.init.normal_(made.projection.weight, std=0.1)
    return made


def texts(n: int, longest: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, ROWS, rng.integers(0, longest)) for _ in range(n)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_text_has_the_same_vector_to_the_last_bit_alone_and_in_any_company(preset):
    torch.set_num_threads(1)  # as on Spark's workers
    made, rows = encoder(preset), texts(150 if preset == "published" else 400)
    whole = embed(made, rows, None)
    order = np.random.default_rng(2).permutation(len(rows))
    for part in np.split(order, [1, 2, 3, 40, 77]):
        assert np.array_equal(embed(made, [rows[i] for i in part], None), whole[part])


@pytest.mark.parametrize("preset", ["bag", "hybrid", "hybrid-both"])
def test_words_of_several_features_have_the_same_vectors_in_any_company_too(preset):
    torch.set_num_threads(1)
    made, rng = encoder(preset), np.random.default_rng(4)
    words = ["kettle", "red", "sneakers", "连衣裙", "红色", "x", "café", "5.5mm", "waterproof"]
    titles = [" ".join(rng.choice(words, size=n)) for n in rng.integers(0, 12, 120)]
    tokenizer = WordHashTokenizer(TokenizerSpec(rows=ROWS, normaliser=normalise.hash))
    rows, table = tokenised(tokenizer, titles, "title")
    assert np.diff(table.offsets).max() > 3
    whole = embed(made, rows, table)
    order = rng.permutation(len(titles))
    for part in np.split(order, [1, 2, 3, 40, 77]):
        assert np.array_equal(embed(made, *tokenised(tokenizer, [titles[i] for i in part], "title")), whole[part])


class Limited:
    """A pre-forward hook: more tokens than ``most`` in a call are too many for the device; ``calls`` are their tokens."""

    def __init__(self, most: int, allocate: bool = False) -> None:
        self.most, self.allocate, self.calls = most, allocate, []

    def __call__(self, _module, inputs) -> None:
        self.calls.append(len(inputs[0].tokens))
        if self.calls[-1] > self.most:
            if self.allocate:
                torch.empty(2**60, dtype=torch.uint8)  # what torch itself says on a CPU
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("preset", "allocate"), [("bag", False), ("hybrid", False), ("hybrid", True), ("published", False)])
def test_calls_that_the_memory_does_not_hold_are_halved_and_counted(preset, allocate):
    torch.set_num_threads(1)
    made, rows = encoder(preset), texts(60)
    expected = embed(made, rows, None)
    limited, halvings = Limited(100, allocate), []
    made.register_forward_pre_hook(limited)
    found = embed(made, rows, None, halved=lambda: halvings.append(1))
    assert len(halvings) == sum(tokens > 100 for tokens in limited.calls) > 0
    assert np.abs(found - expected).max() < 1e-6


def test_a_text_that_alone_is_too_much_for_the_memory_is_an_error():
    made = encoder("hybrid")
    limited = Limited(8)
    made.register_forward_pre_hook(limited)
    with pytest.raises(torch.OutOfMemoryError):
        embed(made, [np.arange(9), np.arange(3)], None)
    assert min(limited.calls) <= 9


def test_another_failure_of_the_device_is_no_lack_of_memory():
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


@pytest.mark.parametrize("preset", ["hybrid", "published"])
def test_few_texts_cost_few_calls_whatever_their_lengths(preset):
    made, calls = encoder(preset), Limited(10**9)
    made.register_forward_pre_hook(calls)
    rows = texts(64)
    embed(made, rows, None)
    assert set(calls.calls) == {512}
    assert len(calls.calls) <= sum(map(len, rows)) // 512 + 1


@pytest.mark.parametrize("preset", ["bag", "hybrid", "published"])
def test_the_vectors_are_those_of_one_plain_call(preset):
    made, rows = encoder(preset, positions=8).eval(), texts(60)
    with torch.inference_mode():
        expected = made(pack(np.concatenate(rows), offsets_of(rows), None)).numpy()
    assert np.abs(embed(made, rows, None) - expected).max() < 1e-5


def test_texts_without_tokens_and_no_texts_at_all():
    made = encoder("hybrid")
    found = embed(made, [np.zeros(0, np.int64), np.array([1, 2])], None)
    assert np.linalg.norm(found, axis=1) == pytest.approx([0, 1], abs=1e-6)
    assert embed(made, [], None).shape == (0, made.config.dim)


def test_a_poisonous_text_does_not_reach_its_neighbours():
    made, rows = encoder("hybrid"), [np.array([1, 2]), np.array([3, 4]), np.array([5, 2])]
    expected = embed(made, rows, None)
    with torch.no_grad():
        made.embeddings.word_embeddings.weight[3] = float("nan")
    found = embed(made, rows, None)
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], expected[[0, 2]])


def test_raw_texts_share_their_words():
    tokenizer = WordHashTokenizer(TokenizerSpec(rows=ROWS, normaliser=normalise.hash))
    rows, table = tokenised(tokenizer, ["Red kettle", "", "kettle red"], "title")
    found = embed(encoder("bag"), rows, table)
    assert len(table.ids) == 2
    assert found[0] == pytest.approx(found[2], abs=1e-6)
