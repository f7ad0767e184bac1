"""Each measure beside trec_eval's own figures, query by query, and the bootstrap beside theory."""

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from model.metrics import MEASURES, hits_of, intervals, measure, ndcg, recall, recall_at_random, reciprocal_rank

TREC = dict(zip(MEASURES, (R @ 10, R @ 100, RR @ 10, nDCG @ 10), strict=True))


def ranked(queries: int, items: int, depth: int, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Random lists, and 1 to 150 relevant items each, some of them beyond the list."""
    rng = np.random.default_rng(seed)
    found = np.stack([rng.permutation(items)[:depth] for _ in range(queries)])
    gold = [rng.choice(items, size=min(items, int(1.5 ** rng.uniform(0, 12.4))), replace=False) for _ in range(queries)]
    return found, gold


@pytest.mark.parametrize(("items", "depth"), [(300, 100), (40, 40), (7, 7)])
def test_every_query_has_the_figures_of_trec_eval(items, depth):
    found, gold = ranked(60, items, depth)
    ours = measure(*hits_of(found, gold))
    qrels = [ir_measures.Qrel(str(q), str(i), 1) for q, ids in enumerate(gold) for i in ids]
    run = [ir_measures.ScoredDoc(str(q), str(i), float(-rank)) for q, row in enumerate(found) for rank, i in enumerate(row)]
    theirs = {(m.measure, int(m.query_id)): m.value for m in ir_measures.iter_calc(TREC.values(), qrels, run)}
    for name, values in ours.items():
        assert values.tolist() == pytest.approx([theirs[TREC[name], q] for q in range(len(gold))], abs=1e-9)
    assert ours["recall@100"].mean() > 0.2


def test_measures_of_a_list_that_can_be_checked_by_hand():
    hits, relevant = hits_of(np.array([[9, 1, 8, 2, 7]]), [np.array([1, 2, 3])])
    assert recall(hits, relevant, 2).tolist() == [1 / 3]
    assert reciprocal_rank(hits, 10).tolist() == [0.5]
    assert reciprocal_rank(hits, 1).tolist() == [0.0]
    best = 1 + 1 / np.log2(3) + 1 / 2
    assert ndcg(hits, relevant, 10).tolist() == pytest.approx([(1 / np.log2(3) + 1 / np.log2(5)) / best])


def test_a_query_without_anything_relevant_is_refused_not_counted_as_a_miss():
    with pytest.raises(ValueError, match="1 of 2 queries have no relevant id: leave them out"):
        hits_of(np.zeros((2, 3), dtype=int), [np.array([1]), np.array([], dtype=int)])


def test_without_queries_there_is_no_hit_and_no_error():
    hits, relevant = hits_of(np.zeros((0, 3), dtype=int), [])
    assert (hits.shape, relevant.shape) == ((0, 3), (0,))


def test_the_interval_of_a_mean_is_that_of_theory_and_the_same_each_time():
    values = {"x": np.random.default_rng(1).normal(0.5, 0.2, size=900)}
    found = intervals(values)["x"]
    error = values["x"].std() / np.sqrt(900)
    assert found.mean == pytest.approx(values["x"].mean(), abs=1e-6)
    assert [found.low, found.high] == pytest.approx([found.mean - 1.96 * error, found.mean + 1.96 * error], abs=error / 5)
    assert intervals(values)["x"] == found


def test_the_interval_covers_the_true_mean_in_nineteen_of_twenty_samples():
    rng = np.random.default_rng(2)
    samples = (intervals({"x": rng.random(80) < 0.3})["x"] for _ in range(200))
    covered = [found.low <= 0.3 <= found.high for found in samples]
    assert 0.89 <= np.mean(covered) <= 0.985


def test_paired_differences_tell_systems_apart_whose_own_intervals_overlap():
    rng = np.random.default_rng(3)
    hard = rng.random(400)
    worse, better = hard, np.minimum(hard + rng.uniform(0, 0.04, size=400), 1)
    apart = intervals({"worse": worse, "better": better})
    assert apart["worse"].high > apart["better"].low
    assert intervals({"difference": better - worse})["difference"].low > 0


def test_one_query_alone_has_no_interval():
    assert intervals({"x": np.array([0.25])})["x"] == (0.25, None, None)


def test_random_rankings_find_as_much_as_theory_says_and_all_of_ten():
    one = recall_at_random(np.array([4]), np.array([1]), 1)
    assert one.mean() == pytest.approx(0.25, abs=0.04)
    among, relevant = np.array([200, 150, 400]), np.array([1, 30, 7])
    drawn = recall_at_random(among, relevant, 10)
    assert drawn.mean() == pytest.approx((10 / among).mean(), abs=0.01)
    assert np.array_equal(drawn, recall_at_random(among, relevant, 10))
    assert (recall_at_random(np.array([10, 3]), np.array([2, 3]), 10) == 1.0).all()
