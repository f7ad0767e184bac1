"""Ranking of held-out queries: what training showed as a query's answers takes no rank from what was held out."""

from __future__ import annotations

import numpy as np
import pytest

from etl.errors import InputError
from model.evaluate import TYPOS, Evaluation, evaluate, rank, searched
from model.fit import draw
from model.metrics import DEPTH, MEASURES
from model.presets import EncoderConfig
from tests.model_data import Shop, small_shop, write_dataset

IDS = np.arange(500, dtype=np.int64) * 2**40 - 7


def asked(query_QD: np.ndarray, title_ND: np.ndarray, gold: list, seen: list | tuple = ()) -> Evaluation:
    columns = {"split": np.full(len(gold), "time"), "query_id": np.arange(len(gold))}
    return rank(columns, gold, IDS[: len(title_ND)], title_ND, query_QD, query_QD, seen=seen)


def test_a_query_that_finds_its_trained_titles_and_then_the_held_out_one_is_answered_perfectly():
    scores = np.linspace(1, 0, 200, dtype=np.float32)[:, None]
    one, trained, gold = np.ones((1, 1), np.float32), IDS[:20].tolist(), [IDS[20:21].tolist()]
    plain, filtered = asked(one, scores, gold), asked(one, scores, gold, [trained])
    assert (plain.values["recall@10"], plain.values["mrr@10"]) == (0.0, 0.0)
    assert all(filtered.values[name] == 1.0 for name in (*MEASURES, TYPOS))
    assert filtered.hits[0].tolist() == [True] + [False] * (DEPTH - 1)


def test_a_query_is_ranked_as_by_sorting_all_titles_without_those_it_was_trained_with():
    rng = np.random.default_rng(0)
    query_QD, title_ND = (rng.normal(size=(n, 8)).astype(np.float32) for n in (40, len(IDS)))
    drawn = [rng.permutation(IDS) for _ in query_QD]
    seen = [ids[: (0, 1, 3, 150, 390)[n % 5]].tolist() for n, ids in enumerate(drawn)]
    gold = [ids[-9:].tolist() for ids in drawn]
    found = asked(query_QD, title_ND, gold, seen)
    for n, scores in enumerate(query_QD @ title_ND.T):
        order = [title for title in IDS[np.argsort(-scores)] if title not in set(seen[n])][:DEPTH]
        assert found.hits[n].tolist() == [title in gold[n] for title in order]


def test_of_few_titles_those_that_are_left_out_stand_behind_all_others():
    found = asked(np.ones((2, 1), np.float32), np.arange(3, 0, -1, np.float32)[:, None], [IDS[2:3]] * 2, [IDS[:2], []])
    assert found.hits.tolist() == [[True, False, False], [False, False, True]]


def test_the_dataset_says_which_titles_a_held_out_query_was_trained_with(tmp_path):
    titles = small_shop(titles=30).titles
    known, last = list(titles)[:-1], list(titles)[-1]
    clicks = [(1, title) for title in known[:20]]
    shop = Shop({1: "sofa", 2: "lamp"}, titles, clicks, thinned=[(1, title) for title in known[20:]])
    shop.heldout = [("time", 1, [last]), ("test", 2, [last])]
    manifest = write_dataset(tmp_path, shop)
    encoder = draw(EncoderConfig(rows=2**12, dim=8, layers=0, bag=True), seed=0)
    found = evaluate(encoder, tmp_path, manifest).figures()
    assert found["time"]["mrr@10"] == found["time"][TYPOS] == 1.0
    assert found["test"]["mrr@10"] < 1.0
    assert [n.tolist() for n in searched(tmp_path, manifest, "time")] == [[1], [1]]
    assert [n.tolist() for n in searched(tmp_path, manifest, "test")] == [[30], [1]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("of", ["titles", "queries"])
def test_vectors_that_are_not_finite_have_no_figures(of, value):
    vectors = {"titles": np.ones((30, 4), np.float32), "queries": np.ones((2, 4), np.float32)}
    vectors[of][1, 2] = value
    with pytest.raises(InputError, match=rf"^1 of {len(vectors[of])} {of} have vectors that are not finite"):
        asked(vectors["queries"], vectors["titles"], [IDS[:1], IDS[1:2]])
