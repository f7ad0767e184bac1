from __future__ import annotations

import math
from collections import Counter

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from etl.sampling import draw, with_sampling


def pairs(spark: SparkSession, queries: float = 0.0, items: float = 0.0, partitions: int = 2) -> list[Row]:
    """Query 0 with 3,000 texts, 1,000 queries with one text each, of which a third is the text 1; some rows held out."""
    rows = [(0, text, "train") for text in range(10_000, 13_000)]
    rows += [(query, 1 if query % 3 == 0 else 20_000 + query, "train") for query in range(1, 1_001)]
    rows += [(0, 1, "test"), (5_000, 2, "test"), (0, 10_000, "train")]  # the last: two items of one text
    frame = spark.createDataFrame(rows, "query_id bigint, title_id bigint, split string").repartition(partitions)
    found = frame.transform(with_sampling(queries, items)).collect()
    assert len(found) == len(rows)
    return sorted(found, key=lambda row: (row["query_id"], row["title_id"], row["split"]))


def drawn(found: list[Row]) -> set[tuple[int, int]]:
    return {(row["query_id"], row["title_id"]) for row in found if row["sampled"]}


def test_without_thresholds_all_of_the_training_split_is_drawn_and_nothing_else(spark):
    found = pairs(spark)
    assert len(drawn(found)) == 4_000
    assert all(row["sampled"] == (row["split"] == "train") for row in found)


def test_the_log_probabilities_are_those_of_the_rows_that_are_left(spark):
    found = pairs(spark, queries=0.01, items=0.01)
    left = drawn(found)
    for key, logp, place in (("query_id", "query_logp", 0), ("title_id", "item_logp", 1)):
        counts = Counter(row[place] for row in left)
        shares = {row[key]: row[logp] for row in found}
        assert all((value is None) == (id_ not in counts) for id_, value in shares.items())
        assert all(shares[id_] == pytest.approx(math.log(n / len(left))) for id_, n in counts.items())
        assert sum(math.exp(value) for value in shares.values() if value is not None) == pytest.approx(1)


def test_a_hot_query_and_a_hot_item_are_thinned_by_the_square_root_of_their_excess(spark):
    left = drawn(pairs(spark, queries=0.01, items=0.01))
    hot_query, hot_item = sum(q == 0 for q, _ in left), sum(i == 1 for _, i in left)
    assert hot_query == pytest.approx(3_000 * math.sqrt(0.01 / 0.75), abs=60)
    assert hot_item == pytest.approx(333 * math.sqrt(0.01 / (333 / 4_000)), abs=30)
    assert sum(q > 0 and i != 1 for q, i in left) == 667


def test_the_draw_is_the_same_at_any_number_of_partitions(spark):
    assert pairs(spark, 0.01, 0.01, partitions=2) == pairs(spark, 0.01, 0.01, partitions=7)


def test_draws_are_uniform(spark):
    row = spark.range(20_000).select(draw("id").alias("u")).agg(F.min("u"), F.avg("u"), F.max("u"), F.var_pop("u")).head()
    assert 0 <= row[0] < row[2] < 1
    assert (row[1], row[3]) == (pytest.approx(0.5, abs=0.01), pytest.approx(1 / 12, abs=0.003))
