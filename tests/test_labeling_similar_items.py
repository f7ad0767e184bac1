from __future__ import annotations

import numpy as np
import pytest

from labeling.similar_items import similar_items
from tests.labeling_data import write_index

D = 16


@pytest.fixture(scope="module")
def index(spark, tmp_path_factory):
    vectors = np.random.default_rng(3).integers(-1, 2, (60, D)) + 0.25
    texts = {(f"i{n:02}", f"j{n:02}") if n % 4 == 0 else (f"i{n:02}",): vector for n, vector in enumerate(vectors)}
    return write_index(spark, tmp_path_factory.mktemp("similar"), texts)


def rows(spark, index, k: int, partitions: int) -> list[tuple]:
    frame = similar_items(spark, index, k, partitions)
    assert frame.rdd.getNumPartitions() == partitions
    return sorted(map(tuple, frame.collect()))


def test_similar_items_are_the_same_at_any_partitioning_and_what_a_full_scan_finds(spark, index):
    found = rows(spark, index, 5, 1)
    assert found == rows(spark, index, 5, 7)
    every = [(item, place) for place in range(60) for item in index.items_at(place)]
    scores = (index.vectors.astype(np.float64) @ index.vectors.astype(np.float64).T).round(6)
    expected = []
    for item, place in every:
        others = sorted((-scores[place, there], other) for other, there in every if there != place)
        expected += [(item, rank, other, -score) for rank, (score, other) in enumerate(others[:5], start=1)]
    assert found == sorted(expected)


def test_neither_the_item_itself_nor_one_of_equal_text_is_similar_to_it(spark, index):
    near = {(item, other) for item, _, other, _ in rows(spark, index, 75, 2)}
    assert len(near) == 75 * 74 - 2 * 15
    assert not {("i00", "i00"), ("i00", "j00"), ("j00", "i00")} & near


def test_other_texts_with_the_very_same_vector_are_similar_in_the_order_of_their_ids(spark, root):
    index = write_index(spark, root, {(f"i{n:02}",): np.eye(D)[0] for n in range(40)})
    found = rows(spark, index, 2, 2)
    assert found[:4] == [("i00", 1, "i01", 1.0), ("i00", 2, "i02", 1.0), ("i01", 1, "i00", 1.0), ("i01", 2, "i02", 1.0)]
    assert found[-2:] == [("i39", 1, "i00", 1.0), ("i39", 2, "i01", 1.0)]


def test_a_single_text_has_no_similar_item(spark, root):
    assert rows(spark, write_index(spark, root, {("i1", "i2"): np.eye(D)[0]}), 3, 1) == []
