"""The gathered loss against a loop over rows, and its gradient on several ranks against one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import launch
from model.known import KnownPairs
from model.loss import Ranks, Rows, contrastive_loss, false_negatives
from tests import gradient_worker
from tests.model_data import small_shop, write_dataset

NO_PAIRS = KnownPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def rows_of(query_groups, items) -> Rows:
    n = len(query_groups)
    return Rows(np.array(query_groups), np.array(items), np.ones(n), np.zeros(n), np.zeros(n))


def vectors(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [F.normalize(torch.randn(n, 6, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]
    return made[0].requires_grad_(), made[1].requires_grad_()


def slow_loss(query, title, rows: Rows, tau: float, logq: float, clicked: set) -> torch.Tensor:
    """InfoNCE as the paper writes it, one row and one column at a time."""
    total = 0.0
    for i in range(len(rows)):
        for side in ("titles", "queries"):
            logits = []
            for j in range(len(rows)):
                q, t = (i, j) if side == "titles" else (j, i)
                pair = (rows.query_group[q], rows.item_group[t])
                if i != j and (
                    pair in clicked or rows.query_group[i] == rows.query_group[j] or rows.item_group[i] == rows.item_group[j]
                ):
                    continue
                logp = rows.item_logp[j] if side == "titles" else rows.query_logp[j]
                logits.append((query[q] @ title[t] / tau - logq * logp, i == j))
            own = next(logit for logit, is_own in logits if is_own)
            total = total + rows.weight[i] * (torch.logsumexp(torch.stack([x for x, _ in logits]), 0) - own) / 2
    return total / rows.weight.sum()


def test_the_loss_and_its_gradient_are_those_of_a_loop_over_rows():
    rows, known = gradient_worker.joined_rows(), gradient_worker.known_pairs()
    query, title = vectors(len(rows))
    clicked = {
        (q, i) for q, a, b in zip(known.queries, known.offsets, known.offsets[1:], strict=False) for i in known.items[a:b]
    }
    fast = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks(), known=known, logq=0.5)
    slow = slow_loss(query, title, rows, 0.2, 0.5, clicked)
    assert fast.item() == pytest.approx(slow.item(), abs=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(fast, (query, title)), torch.autograd.grad(slow, (query, title)), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_tiles_give_the_same_gradient_as_one_piece():
    rows, (query, title) = gradient_worker.joined_rows(), vectors(16)
    whole = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks())
    expected = torch.autograd.grad(whole, (query, title))
    tiled = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks(), tile=5)
    assert torch.allclose(tiled, whole)
    for ours, theirs in zip(torch.autograd.grad(tiled, (query, title)), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("query_groups", "items", "known"),
    [
        ([1, 1, 2], [10, 20, 30], NO_PAIRS),
        ([1, 2, 3], [10, 10, 30], NO_PAIRS),
        ([1, 2, 3], [10, 20, 30], KnownPairs(np.array([1, 2]), np.array([20, 10]))),
    ],
    ids=["same query", "same item", "clicked in both directions"],
)
def test_a_false_negative_has_no_influence(query_groups, items, known):
    query, title = vectors(3)
    rows = rows_of(query_groups, items)

    def first_row_losses() -> torch.Tensor:
        """Row 0 alone: the other rows count nothing, but stand as columns."""
        weighted = replace(rows, weight=np.array([1.0, 0.0, 0.0]))
        return contrastive_loss(query, title, weighted, tau=0.2, ranks=Ranks(), known=known)

    for gradient in torch.autograd.grad(first_row_losses(), (query, title)):
        assert (gradient[1] == 0).all()
        assert (gradient[2] != 0).any()


def test_masks_hold_same_query_same_item_and_known_pairs_but_never_the_own_column():
    rows = rows_of([1, 1, 2, 3, 4], [10, 20, 20, 30, 40])
    titles, queries = false_negatives(rows, rows, 0, KnownPairs(np.array([3, 1]), np.array([40, 10])))
    expected = np.zeros((5, 5), dtype=bool)
    expected[[0, 1, 1, 2], [1, 0, 2, 1]] = True
    with_known = expected.copy()
    with_known[3, 4] = with_known[1, 0] = True
    assert (titles == with_known).all()
    with_known = expected.copy()
    with_known[4, 3] = with_known[0, 1] = True
    assert (queries == with_known).all()


def test_known_pairs_are_found_for_repeated_ids_and_not_for_unknown_ones():
    known = KnownPairs(np.array([5, -2, 5, 5]), np.array([7, 8, 9, 7]))
    found = known.matrix(np.array([5, 1, -2, 5]), np.array([9, 8, 7, 9, 100]))
    assert found.astype(int).tolist() == [[1, 0, 1, 1, 0], [0] * 5, [0, 1, 0, 0, 0], [1, 0, 1, 1, 0]]
    assert not NO_PAIRS.matrix(np.array([5]), np.array([7])).any()


@pytest.mark.parametrize("world", [2, 4])
def test_several_ranks_have_the_loss_and_gradient_of_one_process_in_float64(world, tmp_path):
    torch.multiprocessing.spawn(gradient_worker.spawned, (world, str(tmp_path)), nprocs=world)
    found = torch.load(tmp_path / f"world{world}.pt", weights_only=True)
    value, gradients = gradient_worker.torch_gradients(Ranks())
    assert found["loss"] == pytest.approx(value, abs=1e-10)
    for ours, theirs in zip(found["gradients"], gradients, strict=True):
        assert (ours - theirs).abs().max() < 1e-10


@pytest.fixture(scope="module")
def by_stage(tmp_path_factory) -> dict[int, dict]:
    """What two ranks under DeepSpeed's launcher found at each ZeRO stage that we allow."""
    directory = tmp_path_factory.mktemp("stages")
    argv = launch.command("tests.gradient_worker", [str(directory)], ranks=2)
    assert launch.run_watched(argv, launch.environment(2, "cpu", local=True)) == 0
    return {stage: torch.load(directory / f"stage{stage}.pt", weights_only=True) for stage in (0, 1, 2)}


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_layers_that_join_late_move_under_deepspeed_as_they_do_without(by_stage, stage):
    # Adam makes a step of the sign of a gradient that is zero but for rounding, so sums of squares are compared.
    assert by_stage[stage]["moved"] == pytest.approx(gradient_worker.torch_moved(), rel=0.05)


def test_deepspeed_on_two_ranks_has_the_gradient_of_one_process(by_stage):
    _, expected = gradient_worker.torch_gradients(Ranks())
    # The gradient of the keys' bias is zero but for rounding (softmax ignores it): nothing to be relative to.
    least = 1e-3 * max(gradient.norm() for gradient in expected)
    for stage, found in by_stage.items():
        assert found["norm"] == pytest.approx(float(torch.cat([g.flatten() for g in expected]).norm()), rel=1e-5)
        for ours, theirs in zip(found["gradients"], expected, strict=True):
            assert (ours - theirs).norm() / max(theirs.norm(), least) < 1e-5, f"stage {stage}"


def test_known_pairs_are_those_of_the_part_known_also_where_they_were_thinned_out(tmp_path):
    shop = small_shop()
    shop.thinned = [(100, 1000)]
    known = KnownPairs.load(tmp_path, write_dataset(tmp_path, shop))
    query, item = shop.clicks[0]
    assert known.matrix(np.array([query, 100]), np.array([item, 1000])).diagonal().tolist() == [True, True]
