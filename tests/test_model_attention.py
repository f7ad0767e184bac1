"""Attention of packed texts against one text after the other; the GPU's kernel against the padded reference."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from model.attention import Layout, attention, has_kernel
from tests.test_model_encoder import CONFIG, packed_texts, plain, random_encoder

GROUPS = [(1, 2), (3, 4), (7, 1)]
TOKENS = sum(length * count for length, count in GROUPS)
WIDE = replace(CONFIG, bag=False, dim=32, hidden=32, heads=2, feature_weights=False, token_weights=False)
"""Heads of 16: the kernel wants a multiple of 8."""


def one_by_one(q, k, v) -> torch.Tensor:
    lengths = [length for length, count in GROUPS for _ in range(count)]
    parts = [[y.transpose(0, 1) for y in text] for text in zip(*(y.split(lengths) for y in (q, k, v)), strict=True)]
    return torch.cat([F.scaled_dot_product_attention(*part).transpose(0, 1) for part in parts])


def test_texts_attend_to_themselves_alone():
    inputs = [torch.randn(TOKENS, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    target = torch.randn(TOKENS, 3, 5, dtype=torch.float64)
    found = attention(*inputs, Layout.of(GROUPS, torch.device("cpu")), dropout=0.0)
    expected = one_by_one(*inputs)
    assert torch.allclose(found, expected, atol=1e-12)
    gradients = (torch.autograd.grad((y * target).sum(), inputs) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_the_layout_says_where_each_text_begins():
    layout = Layout.of(GROUPS, torch.device("cpu"))
    assert layout.offsets.tolist() == [0, 1, 2, 5, 8, 11, 14, 21]
    assert layout.offsets.dtype == torch.int32


def test_attention_is_dropped_out_in_training_only():
    encoder = random_encoder(replace(WIDE, attention_dropout=0.5)).train()
    assert not torch.allclose(encoder(packed_texts()), encoder(packed_texts()))
    assert torch.equal(encoder.eval()(packed_texts()), random_encoder(WIDE)(packed_texts()))


@pytest.mark.parametrize(
    ("device", "dtype", "width"),
    [
        ("cpu", torch.bfloat16, 64),
        ("cuda", torch.float32, 64),
        ("cuda", torch.bfloat16, 12),
        ("cuda", torch.float16, 264),
    ],
)
def test_heads_that_the_kernel_does_not_take_are_left_to_the_groups(device, dtype, width):
    assert not has_kernel(torch.device(device), dtype, width)


@pytest.mark.gpu
def test_the_variable_length_kernel_has_the_vectors_and_gradients_of_the_padded_reference():
    reference = random_encoder(WIDE)
    on_gpu = copy.deepcopy(reference).cuda()
    assert has_kernel(torch.device("cuda"), torch.bfloat16, WIDE.hidden // WIDE.heads)
    target = torch.randn(len(packed_texts()), WIDE.dim)
    expected = plain(reference)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = on_gpu(packed_texts().to("cuda"))
    (expected * target).sum().backward()
    (found.float() * target.cuda()).sum().backward()
    assert (found.float().cpu() - expected).norm(dim=1).max() < 0.03  # bf16 has 8 bits
    # Of all together: of a query's or key's weights alone bf16 loses a tenth, in whatever kernel.
    ours, theirs = (torch.cat([p.grad.flatten().cpu() for p in each.parameters()]) for each in (on_gpu, reference))
    assert (ours - theirs).norm() < 0.03 * theirs.norm()


@pytest.mark.gpu
def test_single_precision_on_a_gpu_has_the_vectors_of_the_padded_reference():
    reference = random_encoder(WIDE)
    found = copy.deepcopy(reference).cuda()(packed_texts().to("cuda"))
    assert torch.allclose(found.cpu(), plain(reference), atol=1e-4)
