"""The bag of table rows against torch's own embedding_bag."""

import pytest
import torch
from torch.nn import functional as F

from model.feature_bag import feature_bag

ROWS = 200_000  # row numbers of more than 16 bits, of which the CPU sorts each half


def bags() -> tuple[torch.Tensor, torch.Tensor]:
    """Features and offsets: rows in several bags, one twice in a bag, a bag without any."""
    features = torch.tensor([3, 65_539, 199_999, 3, 3, 131_075, 0, 65_539])
    return features, torch.tensor([0, 3, 5, 5, 8])


@pytest.mark.parametrize("weighted", [True, False])
def test_a_bag_and_its_gradients_are_those_of_torchs_embedding_bag(weighted):
    features, offsets = bags()
    table = torch.randn(ROWS, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.linspace(-1, 1, ROWS, dtype=torch.float64).requires_grad_() if weighted else None
    counts = offsets.diff()
    scale = (1 / counts.double()).repeat_interleave(counts) * (weights[features].exp() if weighted else 1)
    theirs = F.embedding_bag(features, table, offsets, mode="sum", per_sample_weights=scale, include_last_offset=True)
    ours = feature_bag(table, weights, features, offsets)
    assert torch.allclose(ours, theirs, atol=1e-14)
    target = torch.arange(20.0, dtype=torch.float64).reshape(4, 5) - 7
    wanted = [table, weights] if weighted else [table]
    found = [torch.autograd.grad((bag * target).sum(), wanted) for bag in (ours, theirs)]
    for mine, other in zip(*found, strict=True):
        assert torch.allclose(mine, other, atol=1e-13)
        assert other.count_nonzero() >= 5


def test_no_bags_at_all_have_no_vectors_and_a_gradient_of_zero():
    table, weights = torch.ones(4, 2, requires_grad=True), torch.zeros(4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    bag = feature_bag(table, weights, none, torch.zeros(1, dtype=torch.int64))
    assert bag.shape == (0, 2)
    for gradient in torch.autograd.grad(bag.sum(), (table, weights)):
        assert (gradient == 0).all()
