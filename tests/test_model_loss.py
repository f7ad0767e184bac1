"""The gathered loss against a loop over rows, and its gradient on several ranks against one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import launch
from model.known import KnownPairs
from model.loss import HardNegatives, LossConfig, Rows, contrastive_loss
from model.matches import equal_ids
from model.ranks import Ranks
from model.tiled_cross_entropy import Tile
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


def slow_loss(query, title, rows: Rows, tau: float, clicked: set, config: LossConfig, hard=None) -> torch.Tensor:
    """The module's docstring, one row and one column at a time."""
    total = 0.0
    for i in range(len(rows)):
        for side in ("titles", "queries"):
            negatives, positives = [], []
            own = query[i] @ title[i]
            for j in range(len(rows)):
                q, t = (i, j) if side == "titles" else (j, i)
                logp = rows.item_logp[j] if side == "titles" else rows.query_logp[j]
                logit = query[q] @ title[t] / tau - config.logq * logp
                if i == j:
                    positives.append(logit)
                elif rows.query_group[i] == rows.query_group[j] or rows.item_group[i] == rows.item_group[j]:
                    positives += [logit] * config.multi_positives
                elif (rows.query_group[q], rows.item_group[t]) in clicked:
                    continue
                elif config.margin is None or query[q] @ title[t] <= own + config.margin:
                    negatives.append(logit)
            for vector, item, logp in hard if hard and side == "titles" else ():
                if item != rows.item_group[i] and (rows.query_group[i], item) not in clicked:
                    negatives.append(query[i] @ vector / tau - config.logq * logp)
            each = [torch.logsumexp(torch.stack([p, *negatives]), 0) - p for p in positives]
            total = total + rows.weight[i] * sum(each) / len(each) / 2
    return total / rows.weight.sum()


def clicked_pairs(known: KnownPairs) -> set:
    ends = zip(known.queries, known.offsets, known.offsets[1:], strict=False)
    return {(query, item) for query, start, stop in ends for item in known.items[start:stop]}


def assert_equal_with_gradients(ours: torch.Tensor, theirs: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
        assert b.abs().max() > 1e-3


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(logq=0.5),
        LossConfig(multi_positives=True, logq=0.5),
        LossConfig(margin=-0.3),
        LossConfig(multi_positives=True, margin=0.1, logq=1.0),
    ],
    ids=["plain", "log-q", "several positives", "margin", "all"],
)
@pytest.mark.parametrize("tile", [Tile(), Tile(rows=5, columns=3)], ids=["whole", "tiles"])
def test_the_loss_and_its_gradient_are_those_of_a_loop_over_rows(config, tile):
    rows, known = gradient_worker.joined_rows(), gradient_worker.known_pairs()
    query, title = vectors(len(rows))
    tau = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    fast = contrastive_loss(query, title, rows, tau=tau, ranks=Ranks(), known=known, config=replace(config, tile=tile)).loss
    slow = slow_loss(query, title, rows, tau, clicked_pairs(known), config)
    assert_equal_with_gradients(fast, slow, (query, title, tau))


def test_hard_negatives_are_further_columns_of_the_queries_unless_they_are_an_answer():
    rows, known = gradient_worker.joined_rows(), gradient_worker.known_pairs()
    query, title = vectors(len(rows))
    extra, _ = vectors(6, seed=1)
    items = np.array([3, 77, int(rows.item_group[0]), int(known.items[0]), 78, 79])
    hard = HardNegatives(extra, items, -np.arange(1.0, 7.0))
    config = LossConfig(logq=0.5)
    fast = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks(), known=known, config=config, hard=hard).loss
    listed = list(zip(extra, items, hard.item_logp, strict=True))
    slow = slow_loss(query, title, rows, 0.2, clicked_pairs(known), config, listed)
    assert_equal_with_gradients(fast, slow, (query, title, extra))


def test_a_row_without_any_negative_has_no_loss_and_no_gradient():
    query, title = vectors(3)
    loss = contrastive_loss(query, title, rows_of([1, 1, 1], [1, 2, 3]), tau=0.2, ranks=Ranks()).loss
    assert loss.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, (query, title)))


def test_a_title_that_nobody_drew_is_no_obstacle_where_the_correction_is_off():
    query, title = vectors(3)
    rows = replace(rows_of([1, 2, 3], [1, 2, 3]), item_logp=np.array([-np.inf, -1.0, -1.0]))
    assert torch.isfinite(contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks()).loss)


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
    rows = replace(rows_of(query_groups, items), weight=np.array([1.0, 0.0, 0.0]))
    # Row 0 alone: the other rows count nothing, but stand as columns.
    found = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks(), known=known)
    for gradient in torch.autograd.grad(found.loss, (query, title)):
        assert (gradient[1] == 0).all()
        assert (gradient[2] != 0).any()
    assert found.false_negatives == pytest.approx(4 / 12)


def test_known_pairs_are_found_for_repeated_ids_and_not_for_unknown_ones():
    known = KnownPairs(np.array([5, -2, 5, 5]), np.array([7, 8, 9, 7]))
    found = known.matches(np.array([5, 1, -2, 5]), np.array([9, 8, 7, 9, 100]))
    expected = [(0, 0), (0, 2), (0, 3), (2, 1), (3, 0), (3, 2), (3, 3)]
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == expected
    assert len(NO_PAIRS.matches(np.array([5]), np.array([7]))) == 0


def test_equal_ids_match_each_with_each():
    found = equal_ids(np.array([3, 1, 3]), np.array([3, 3, 2, 1]))
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 3), (2, 0), (2, 1)]


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
    found = known.matches(np.array([query, 100]), np.array([item, 1000]))
    assert {(0, 0), (1, 1)} <= set(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
