"""One item or query with nine tenths of the clicks: the same results as of any other, and no list of all of it."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from labeling import copy_keywords, term_candidates
from labeling.copy_keywords import clicked_phrases
from labeling.predict import evidence
from labeling.term_candidates import supported_queries

pytestmark = pytest.mark.fault("hot-key")

PAIRS = 20_000
MOST = 3
EXECUTOR_BYTES = 1_000_000_000
"""Of a Java of 512 MB with what it holds beside its heap; lists of all of a key took it to the end of that heap."""


def hot_item(spark: SparkSession, pairs: int = PAIRS) -> DataFrame:
    """Columns of PAIRS: nine tenths of the rows are on one item, of a query each."""
    n = F.col("id")
    is_hot = n % 10 != 0
    return spark.range(pairs).select(
        F.concat(F.lit("i"), F.when(is_hot, 0).otherwise(n % 500)).alias("item_id"),
        F.concat(F.lit("query "), n).alias("query"),
        F.floor(n / 5).alias("query_group"),
        (1 + n % 7).alias("clicks"),
        (1 + n % 3).alias("users"),
        ((n * 7919) % 97).cast("double").alias("weight"),
    )


def hot_query(spark: SparkSession, pairs: int = PAIRS) -> DataFrame:
    """Columns of PAIRS: nine tenths of the rows are of one query, on an item each."""
    n = F.col("id")
    is_hot = n % 10 != 0
    return spark.range(pairs).select(
        F.concat(F.lit("i"), n).alias("item_id"),
        F.when(is_hot, 0).otherwise(1 + n % 7).alias("query_group"),
        F.when(is_hot, "shoes").otherwise(F.concat(F.lit("query "), 1 + n % 7)).alias("query"),
        (1 + (n * 7919) % 97).alias("clicks"),
        F.lit(9).cast("bigint").alias("users"),
    )


def by(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found


def is_cut_before_it_is_listed(frame: DataFrame) -> bool:
    """Whether Spark drops what is not wanted of a key while it reads its rows in order, before any of them is kept."""
    return "WindowGroupLimit" in frame._jdf.queryExecution().executedPlan().toString()


def strongest(row: Row) -> tuple[float, str]:
    return -row["weight"], row["query"]


def test_the_evidence_of_a_hot_item_is_its_strongest_queries_and_the_others_keep_theirs(spark: SparkSession) -> None:
    pairs = hot_item(spark).localCheckpoint()
    found = evidence(pairs, MOST)
    rows = dict(map(tuple, found.collect()))
    expected = by(pairs.collect(), "item_id")
    assert len(expected["i0"]) > 0.9 * PAIRS
    assert rows == {item: [row["query"] for row in sorted(of, key=strongest)[:MOST]] for item, of in expected.items()}
    assert is_cut_before_it_is_listed(found)


def test_the_phrases_of_a_hot_item_are_its_strongest_ones_of_each_group(spark: SparkSession) -> None:
    pairs = hot_item(spark).localCheckpoint()
    found = clicked_phrases(pairs, min_users=2)
    rows = {row["item_id"]: [phrase["query"] for phrase in row["phrases"]] for row in found.collect()}
    expected = {}
    for item, of in by((row for row in pairs.collect() if row["users"] >= 2), "item_id").items():
        groups = [min(group, key=strongest) for group in by(of, "query_group").values()]
        expected[item] = [row["query"] for row in sorted(groups, key=strongest)][: copy_keywords.MOST_PHRASES]
    assert len(expected["i0"]) == copy_keywords.MOST_PHRASES
    assert rows == expected
    assert is_cut_before_it_is_listed(found)


def test_the_items_of_a_hot_query_are_its_most_clicked_ones(spark: SparkSession) -> None:
    n, pairs = F.col("id"), hot_query(spark).localCheckpoint()
    best = F.struct(F.concat(F.lit("t"), n % 5).alias("term_id"))
    live = spark.range(PAIRS).select(F.concat(F.lit("i"), n).alias("item_id"), F.array(best).alias("terms"))
    found = supported_queries(pairs, live, min_clicks=1, min_users=1, min_items=1)
    rows = {row["query_group"]: row for row in found.collect()}
    assert len(rows) == 8
    assert rows[0]["items"] == 0.9 * PAIRS
    for group, of in by(pairs.collect(), "query_group").items():
        expected = sorted(of, key=lambda row: (-row["clicks"], row["item_id"]))[: term_candidates.MOST_ITEMS]
        clicked = [(item["item_id"], item["term_id"]) for item in rows[group]["clicked"]]
        assert clicked == [(row["item_id"], f"t{int(row['item_id'][1:]) % 5}") for row in expected]
    assert is_cut_before_it_is_listed(found)


@pytest.mark.slow
def test_a_hot_item_and_a_hot_query_fit_executors_of_half_a_gigabyte(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.hot_key_worker", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    peak, items, queries = map(int, done.stdout.split())
    assert (items, queries) == (50, 8)
    assert peak < EXECUTOR_BYTES
