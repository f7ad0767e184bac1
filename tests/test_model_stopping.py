"""A training that goes wrong ends on every rank, before the optimizer's step."""

from __future__ import annotations

import pytest
import torch

from tests import stopping_worker


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict[str, tuple[str, bool]]]:
    """What ended each of them, by case."""
    directory = tmp_path_factory.mktemp("stopping")
    torch.multiprocessing.spawn(stopping_worker.spawned, (str(directory),), nprocs=2)
    return [torch.load(directory / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(
    ("case", "what"),
    [("loss", "loss is nan"), ("gradient", "gradient norm is nan"), ("collapse", "titles have a mean cosine of 0.99")],
)
def test_what_goes_wrong_ends_both_ranks_before_the_step(two_ranks, case, what):
    for rank, found in enumerate(two_ranks):
        said, same_weights = found[case]
        assert said.startswith(what)
        assert f"at step 1 of 1 (rank {rank}" in said
        assert same_weights
