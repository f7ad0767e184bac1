from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from benchmarks.speed import spark_transfer
from benchmarks.speed.spark_transfer import PEERS, Look, compare, items, same_terms, same_vectors, unit_vectors

ROWS = 50


@pytest.fixture(scope="module")
def vector_sides(spark):
    look = Look(spark.sparkContext.broadcast(unit_vectors()))
    return spark_transfer.vector_sides(items(spark, ROWS), look)


@pytest.fixture(scope="module")
def term_sides(spark):
    look = Look(spark.sparkContext.broadcast(unit_vectors()))
    return spark_transfer.term_sides(items(spark, ROWS), look, unit_vectors()[:3])


def compared(sides, check):
    return compare("a case", sides, check, 1, {"pandas_udf": 10.0}, ROWS)


def test_every_way_out_gives_the_vectors_that_the_product_lays_down(vector_sides):
    found = compared(vector_sides, same_vectors)
    assert [one.peer for one in found] == list(PEERS)
    assert [one.goal for one in found] == [10.0, None, None, None]
    assert all(one.unit == "rows/CPU s" and one.ours and one.theirs and one.check.startswith("50 rows") for one in found)


def test_every_way_in_gives_the_terms_of_the_vectors_that_the_product_stored(term_sides):
    assert [one.peer for one in compared(term_sides, same_terms)] == list(PEERS)


def test_a_way_that_gives_other_vectors_ends_the_measurement(vector_sides):
    theirs = vector_sides["mapInArrow, array<float>"]
    other = theirs.withColumn("vector", F.transform("vector", lambda x: x * F.lit(1.01).cast("float")))
    with pytest.raises(RuntimeError, match="vectors are others"):
        compared({"ours": vector_sides["ours"], "mapInPandas": other}, same_vectors)


def test_a_way_that_loses_a_row_ends_the_measurement(vector_sides, term_sides):
    for sides, check in ((vector_sides, same_vectors), (term_sides, same_terms)):
        fewer = sides["mapInArrow, array<float>"].where("item_id <> 'item00000007'")
        with pytest.raises(RuntimeError, match="50 rows and 49 rows of the other side"):
            compared({"ours": sides["ours"], "mapInPandas": fewer}, check)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("score", "score + 0.01", "apart"), ("term", "'term 9'", "of the items have the same term")],
)
def test_a_way_that_gives_other_terms_ends_the_measurement(term_sides, column, value, message):
    other = term_sides["mapInArrow, array<float>"].withColumn(column, F.expr(value))
    with pytest.raises(RuntimeError, match=message):
        compared({"ours": term_sides["ours"], "mapInPandas": other}, same_terms)
