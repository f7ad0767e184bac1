"""Search by bf16 and an exact second look: the same terms as faiss' flat index, and who takes it."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from labeling import nearest, term_search
from labeling.nearest import nearest_in
from labeling.term_search import TermIndex, TermSearch
from labeling.tiled_search import TiledSearch
from model import precision

D = 64


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors(kind: str, count: int = 3_001) -> np.ndarray:
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(count, D))
    if kind == "near ties":  # differences of 1e-4 between neighbours, far below what bf16 tells apart
        rows = draw.normal(size=(7, D))[draw.integers(7, size=count)] + 1e-4 * rows
    if kind == "equal":  # of each vector 300
        rows = rows[draw.integers(count // 300, size=count)]
    if kind == "all on the far side":
        rows = -np.abs(rows)
    if kind == "long and short":
        return unit(rows) * draw.uniform(0.1, 3.0, size=(count, 1)).astype(np.float32)
    return unit(rows)


def exact(rows: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Places of the k nearest by a scan in float64, ties by place."""
    scores = np.stack([np.einsum("pd,d->p", rows, query, dtype=np.float64) for query in queries])
    places = np.broadcast_to(np.arange(len(rows)), scores.shape)
    return np.lexsort((places, -scores), axis=1)[:, :k]


@pytest.mark.parametrize("kind", ["random", "near ties", "equal", "all on the far side", "long and short"])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_tiled_search_finds_what_a_scan_in_float64_finds_with_ties_by_place(kind, k):
    rows = vectors(kind)
    queries = np.concatenate([rows[:40], np.abs(vectors("random", 41))])
    np.testing.assert_array_equal(TiledSearch(rows).nearest(queries, k), exact(rows, queries, k))


def test_tiled_search_gives_all_rows_where_as_many_are_asked_for():
    rows = vectors("random", 45)
    found = TiledSearch(rows).nearest(rows, 45)
    assert (np.sort(found, axis=1) == np.arange(45)).all()
    assert (found[:, 0] == np.arange(45)).all()
    assert TiledSearch(rows).nearest(rows[:0], 3).shape == (0, 3)


def test_no_bf16_product_is_further_off_than_the_margin_and_some_come_near():
    rows, queries = vectors("long and short"), vectors("random", 100)
    searching = TiledSearch(rows)
    full = searching.margin(queries)
    truth = queries.astype(np.float64) @ rows.astype(np.float64).T
    off = np.abs(searching.approximate(queries) - truth).max(axis=1)
    assert (off <= full).all()
    assert (off >= full / 10).any()  # else more would be scored than need be


def term_index(rows: np.ndarray) -> TermIndex:
    """Every third form is a synonym of the term before."""
    owners = np.arange(len(rows)) - np.arange(len(rows)) // 3
    names = tuple(f"t{n:05}" for n in range(owners.max() + 1))
    return TermIndex(names, names, owners, tuple("x" for _ in rows), tuple(("x",) for _ in rows), rows, rows)


@pytest.mark.parametrize("kind", ["random", "near ties", "equal"])
def test_terms_and_scores_are_those_of_flat_search(monkeypatch, kind):
    index, queries = term_index(vectors(kind)), vectors("random", 200).astype(np.float64)
    flat = TermSearch(index).candidates(queries, [""] * len(queries))
    monkeypatch.setattr(term_search, "nearest_in", lambda rows: TiledSearch(rows).nearest)
    tiled = TermSearch(index).candidates(queries, [""] * len(queries))
    if kind == "equal":  # of more equal forms than are fetched faiss takes any
        flat, tiled = ([[[candidate.score for candidate in row] for row in found[0]]] for found in (flat, tiled))
    assert tiled == flat


@pytest.mark.parametrize("amx", [True, False])
def test_the_search_is_chosen_by_looking_at_the_cpu(monkeypatch, amx):
    monkeypatch.setattr(precision, "has_amx", lambda: amx)
    monkeypatch.setattr(nearest, "LARGE", 3_001)
    chosen = nearest_in(vectors("random"))
    assert isinstance(getattr(chosen, "__self__", None), TiledSearch) == amx
    assert not isinstance(getattr(nearest_in(vectors("random", 3_000)), "__self__", None), TiledSearch)  # a small one


def test_a_chunk_of_items_is_searched_by_a_product_of_matrices():
    nearest_in(vectors("random"))
    assert faiss.cvar.distance_compute_blas_threshold <= 20 * vectors("random").shape[1]  # of fewer, one by one is as fast


@pytest.mark.gpu
def test_a_gpu_that_the_task_was_given_finds_what_the_cpu_finds(monkeypatch):
    if not faiss.get_num_gpus():
        pytest.skip("faiss finds no GPU")
    rows, queries = vectors("random"), vectors("random", 50)
    monkeypatch.setattr(nearest, "_task_gpu", lambda: "0")
    np.testing.assert_array_equal(np.sort(nearest_in(rows)(queries, 10)), np.sort(exact(rows, queries, 10)))
