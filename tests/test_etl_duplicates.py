from __future__ import annotations

import numpy as np
from pyspark.sql import SparkSession

from etl.duplicates import connected, near_duplicates


def groups(spark: SparkSession, texts: list[str], threshold: float = 0.8) -> dict[int, int]:
    frame = spark.createDataFrame(list(enumerate(texts)), "title_id bigint, text string")
    return {row["title_id"]: row["item_group"] for row in near_duplicates(frame, threshold).collect()}


def similarity(one: str, other: str) -> float:
    first, second = set(one.split()), set(other.split())
    return len(first & second) / len(first | second)


def test_colour_variants_of_a_long_title_share_a_group_and_others_are_in_none(spark):
    base = "acme zoom running shoe for men with cushioned sole in"
    assert groups(spark, [f"{base} red", "steel kettle", f"{base} blue", f"{base} navy", "acme zoom shoe"]) == {
        0: 0, 2: 0, 3: 0,
    }  # fmt: skip


def test_of_all_pairs_above_the_threshold_nearly_all_share_a_group_and_none_far_below_does(spark):
    rng = np.random.default_rng(5)
    bases = [" ".join(f"w{n}" for n in rng.choice(400, 12, replace=False)) for _ in range(80)]
    texts = []
    for base in bases:
        for _ in range(3):
            words = base.split()
            for _ in range(int(rng.integers(0, 3))):
                words[int(rng.integers(12))] = f"w{rng.integers(400)}"
            texts.append(" ".join(words))
    texts = list(dict.fromkeys(texts))
    found = groups(spark, texts)
    pairs = [(i, j) for i in range(len(texts)) for j in range(i) if similarity(texts[i], texts[j]) >= 0.8]
    together = sum(found.get(i, i) == found.get(j, j) for i, j in pairs)
    assert len(pairs) > 40
    assert together >= 0.97 * len(pairs)
    joined = [(i, j) for i in found for j in found if i < j and found[i] == found[j]]
    assert min(similarity(texts[i], texts[j]) for i, j in joined) > 0.5  # by a neighbour between, never by nothing


def test_groups_are_the_same_at_any_number_of_partitions(spark):
    base = "one two three four five six seven eight nine"
    rows = [(n, f"{base} {colour}") for n, colour in enumerate(("red", "blue", "green", "white"))]
    frame = spark.createDataFrame(rows, "title_id bigint, text string")
    found = [sorted(near_duplicates(frame.repartition(n), 0.8).collect()) for n in (1, 3)]
    assert found[0] == found[1] == [(n, 0) for n in range(4)]


def test_a_chain_and_a_ring_get_the_smallest_id_that_can_be_reached(spark):
    chain = [(n, n + 1) for n in range(40)]
    ring = [(100, 105), (101, 105), (101, 103), (103, 104), (100, 104)]
    edges = spark.createDataFrame(chain + ring, "one bigint, other bigint")
    found = {row["title_id"]: row["item_group"] for row in connected(edges).collect()}
    assert found == dict.fromkeys(range(41), 0) | dict.fromkeys((100, 101, 103, 104, 105), 100)
