"""The gathered loss against a loop over rows, and its gradient on several ranks against one process."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from etl.errors import InputError
from model import launch
from model.engines import TorchEngine
from model.known import KnownPairs
from model.loss import NO_ITEM, HardNegatives, LossConfig, Rows, contrastive_loss
from model.matches import equal_ids
from model.ranks import Ranks
from model.tiled_cross_entropy import Tile
from model.trainer import LoopConfig, contrastive_step
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
                elif not config.masks:
                    negatives.append(logit)
                elif rows.query_group[i] == rows.query_group[j] or rows.item_group[i] == rows.item_group[j]:
                    positives += [logit] * config.multi_positives
                elif (rows.query_group[q], rows.item_group[t]) in clicked:
                    continue
                elif config.margin is None or query[q] @ title[t] <= own + config.margin:
                    negatives.append(logit)
            for vector, item in hard if hard and side == "titles" else ():
                near = config.margin is not None and query[i] @ vector > own + config.margin
                if item == rows.item_group[i]:
                    positives += [query[i] @ vector / tau] * config.multi_positives
                elif item != NO_ITEM and (rows.query_group[i], item) not in clicked and not near:
                    negatives.append(query[i] @ vector / tau)
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
        LossConfig(masks=False, logq=0.5),
        LossConfig(multi_positives=True, margin=0.1, logq=1.0),
    ],
    ids=["plain", "log-q", "several positives", "margin", "no masks", "all"],
)
@pytest.mark.parametrize("tile", [Tile(), Tile(rows=5, columns=3)], ids=["whole", "tiles"])
def test_the_loss_and_its_gradient_are_those_of_a_loop_over_rows(config, tile):
    rows, known = gradient_worker.joined_rows(), gradient_worker.known_pairs()
    query, title = vectors(len(rows))
    tau = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    fast = contrastive_loss(query, title, rows, tau=tau, ranks=Ranks(), known=known, config=replace(config, tile=tile)).loss
    slow = slow_loss(query, title, rows, tau, clicked_pairs(known), config)
    assert_equal_with_gradients(fast, slow, (query, title, tau))


def test_several_positives_without_masks_are_refused():
    with pytest.raises(InputError, match="masks are off, but with multi_positives"):
        LossConfig(multi_positives=True, masks=False)


@pytest.mark.parametrize("tile", [Tile(), Tile(rows=3, columns=5)], ids=str)
@pytest.mark.parametrize("changes", [{}, {"multi_positives": True, "margin": 0.1}], ids=str)
def test_hard_negatives_are_further_columns_of_the_queries_unless_they_are_an_answer_or_none(tile, changes):
    rows, known = gradient_worker.joined_rows(), gradient_worker.known_pairs()
    query, title = vectors(len(rows))
    extra, _ = vectors(6, seed=1)
    items = np.array([3, 77, int(rows.item_group[0]), int(known.items[0]), 78, NO_ITEM])
    hard, config = HardNegatives(extra, items), LossConfig(logq=0.5, tile=tile, **changes)
    fast = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks(), known=known, config=config, hard=hard).loss
    slow = slow_loss(query, title, rows, 0.2, clicked_pairs(known), config, list(zip(extra, items, strict=True)))
    assert_equal_with_gradients(fast, slow, (query, title, extra))


def test_the_matryoshka_loss_is_the_mean_over_the_first_coordinates_and_all():
    rows, known = gradient_worker.joined_rows(), gradient_worker.known_pairs()
    query, title = vectors(len(rows))
    config = LossConfig(logq=0.5, margin=0.1)
    nested = replace(config, matryoshka=(2, 4))
    fast = contrastive_loss(query, title, rows, tau=0.2, ranks=Ranks(), known=known, config=nested).loss
    cuts = [[F.normalize(x[:, :dim], dim=1) for x in (query, title)] for dim in (2, 4)]
    slow = sum(slow_loss(*cut, rows, 0.2, clicked_pairs(known), config) for cut in [*cuts, (query, title)]) / 3
    assert_equal_with_gradients(fast, slow, (query, title))


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


@pytest.fixture(scope="module", params=[2, 4])
def spawned(request, tmp_path_factory) -> dict[str, tuple[float, list[torch.Tensor]]]:
    """What 2 and 4 ranks find in float64, by case."""
    directory, world = tmp_path_factory.mktemp("spawned"), request.param
    torch.multiprocessing.spawn(gradient_worker.spawned, (world, str(directory)), nprocs=world)
    return torch.load(directory / f"world{world}.pt", weights_only=True)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("case", gradient_worker.CASES)
def test_several_ranks_have_the_loss_and_gradient_of_one_process_in_float64(case, checkpointing, spawned):
    # The cached ones are compared with the whole batch in one piece.
    whole = "plain" if case == "cached" else case.removeprefix("cached ")
    value, expected = gradient_worker.torch_gradients(Ranks(), whole)
    found, gradients = spawned[case, checkpointing]
    assert found == pytest.approx(value, abs=1e-10)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-10


def test_layers_that_join_late_move_on_several_ranks_as_they_do_on_one(spawned):
    assert spawned["moved"] == pytest.approx(gradient_worker.torch_moved(Ranks(), torch.float64), rel=1e-6)


def test_the_cached_gradient_with_dropout_is_that_of_the_vectors_that_the_loss_saw():
    found = {}
    for parts in (1, 2):
        model = gradient_worker.model(dropout=0.5).double().train()
        engine = TorchEngine(model, torch.optim.SGD(model.parameters()), Ranks())
        batch = gradient_worker.share(Ranks())
        known = gradient_worker.known_pairs()
        torch.manual_seed(9)
        if parts == 1:  # by hand: two forward passes with their graphs, one loss
            halves = [engine.forward(part)[0] for part in batch.texts.parts(16)]
            queries, titles = torch.cat(halves).split(16)
            tau = engine.model.log_tau.exp()
            found[parts] = contrastive_loss(queries, titles, batch.rows, tau=tau, ranks=Ranks(), known=known).loss
            engine.backward(found[parts])
        else:
            loop = LoopConfig(steps=1, cache_texts=16)
            contrast, backward = contrastive_step(engine, batch, loop, Ranks(), known)
            backward()
            found[parts] = contrast.loss
        found[parts, "grads"] = [p.grad for p in model.parameters()]
    assert found[1].item() == pytest.approx(found[2].item(), abs=1e-12)
    for ours, theirs in zip(found[1, "grads"], found[2, "grads"], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def under_deepspeed(request, tmp_path_factory) -> dict[str, dict]:
    """What 1, 2 and 4 ranks under DeepSpeed's launcher find in fp32, by variant."""
    directory = tmp_path_factory.mktemp("stages")
    argv = launch.command("tests.gradient_worker", [str(directory)], ranks=request.param)
    assert launch.run_watched(argv, launch.environment(request.param, "cpu", local=True)) == 0
    return torch.load(directory / "found.pt", weights_only=True)


@pytest.mark.parametrize("stage", range(4))
def test_layers_that_join_late_move_under_deepspeed_as_they_do_without(under_deepspeed, stage):
    # Adam makes a step of the sign of a gradient that is zero but for rounding, so sums of squares are compared.
    assert under_deepspeed["moved"][stage] == pytest.approx(gradient_worker.torch_moved(Ranks()), rel=0.05)


def test_a_checkpoint_without_what_deepspeed_saved_is_refused_at_every_stage(under_deepspeed):
    for said in under_deepspeed["refused"]:
        assert re.fullmatch(r"/.*/engine holds nothing that DeepSpeed saved \(expected \*model_states.pt\)", said), said


@pytest.mark.parametrize(("stage", "case", "checkpointing"), list(gradient_worker.variants()))
def test_deepspeed_has_the_gradient_of_one_process_on_any_number_of_ranks(under_deepspeed, stage, case, checkpointing):
    _, expected = gradient_worker.torch_gradients(Ranks(), case)
    # The gradient of the keys' bias is zero but for rounding (softmax ignores it): nothing to be relative to.
    least = 1e-3 * max(gradient.norm() for gradient in expected)
    norm, gradients = under_deepspeed["gradients"][stage, case, checkpointing]
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in expected]).norm()), rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours - theirs).norm() / max(theirs.norm(), least) < 1e-5


def test_known_pairs_are_those_of_the_part_known_also_where_they_were_thinned_out(tmp_path):
    shop = small_shop()
    shop.thinned = [(100, 1000)]
    known = KnownPairs.load(tmp_path, write_dataset(tmp_path, shop))
    query, item = shop.clicks[0]
    found = known.matches(np.array([query, 100]), np.array([item, 1000]))
    assert {(0, 0), (1, 1)} <= set(zip(found.rows.tolist(), found.columns.tolist(), strict=True))


@pytest.mark.slow
def test_peak_memory_grows_with_the_batch_and_not_with_its_square():
    peaks = {}
    for size in (4096, 8192, 16384):
        argv = [sys.executable, "-m", "tests.loss_memory_worker", str(size)]
        peaks[size] = float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    whole = 16384**2 * 4 / 2**20
    assert peaks[16384] < whole / 4, peaks
    # A tile of rows stays the same, a tile of columns is full from 8,192 on; 16 MiB is what the allocator may round.
    assert peaks[16384] - peaks[8192] < 2 * (peaks[8192] - peaks[4096]) + 16, peaks
