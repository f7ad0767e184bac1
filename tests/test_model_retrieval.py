import numpy as np
import pytest

from model.retrieval import top_k


def test_rows_come_best_first():
    corpus = np.eye(4, dtype=np.float32)
    scores, found = top_k(np.array([[0.1, 0.9, 0.5, -1]], dtype=np.float32), corpus, 3)
    assert found.tolist() == [[1, 2, 0]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.5, 0.1])


def test_equal_scores_stand_by_index_even_beyond_what_was_fetched():
    rng = np.random.default_rng(0)
    corpus = np.repeat(rng.normal(size=(2, 8)).astype(np.float32), [300, 5], axis=0)
    _, found = top_k(corpus[:1], corpus, 10)
    assert found.tolist() == [list(range(10))]


def test_the_result_is_that_of_a_full_sort():
    rng = np.random.default_rng(1)
    queries, corpus = rng.normal(size=(20, 16)).astype(np.float32), rng.normal(size=(500, 16)).astype(np.float32)
    _, found = top_k(queries, corpus, 30)
    assert (found == np.argsort(-(queries @ corpus.T), axis=1, kind="stable")[:, :30]).all()


def test_k_is_limited_by_the_corpus():
    assert top_k(np.ones((2, 3), np.float32), np.ones((1, 3), np.float32), 5)[1].tolist() == [[0], [0]]
    assert top_k(np.zeros((0, 3), np.float32), np.ones((1, 3), np.float32), 5)[0].shape == (0, 1)
