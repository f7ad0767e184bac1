from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from benchmarks.speed import cleaning_duckdb, cleaning_polars, comparison
from benchmarks.speed.cleaning import (
    DUCKDB,
    PEERS,
    POLARS,
    CleaningConfig,
    in_turns,
    pairs_config,
    require_same,
    spark_clean,
)
from benchmarks.speed.click_log import LogShape, write_log
from etl.cleaning import RULES

NOON = dt.datetime(2024, 5, 7, 12, tzinfo=dt.UTC)
NEEDS_MORE = {"outside_window", "too_late", "scraper", "not_shown", "unusable_title", "few_pair_users", "later_click"}
"""Rules for impressions, other days, texts and settings that the comparison has not."""


def act(user, minute, query="red shoes", item="i1", **changes):
    """A click at a minute after noon."""
    at = NOON + dt.timedelta(minutes=minute)
    row = {"event_time": at, "user_id": user, "session_id": f"of {user}", "query": query, "item_id": item, "event": "click"}
    return row | {"position": 1, "dwell_ms": 9_000} | changes


def odd_log(directory):
    """A log of which each rule that the comparison has drops something, and its items."""
    acts = [act(f"u{n}", n) for n in range(3)] + [act(f"u{n}", n, item="i2", event="order") for n in range(3)]
    acts += [act("u3", 0, event="view"), act("u3", 1, event_time=NOON + dt.timedelta(days=9)), act("u3", 2, item=None)]
    acts += [act("u3", 3, event_time=dt.datetime(1980, 1, 1, tzinfo=dt.UTC)), act("u3", 4, event="impression")]
    acts += [act("u3", 5, query="x" * 201), act("u3", 6, query=None), act("u3", 7, query="?!")]
    acts += [act("u3", 8, query="mail anna.b@example.org")]
    acts += [act("robot", n / 10) for n in range(6)]
    acts += [act("u4", 0, dwell_ms=10), act("u4", 1, item="i2", dwell_ms=10), act("u4", 2, item="i2", event="cart")]
    acts += [act("u5", 0, dwell_ms=None), act("u5", 0.01, item="i2"), act("u5", 3, item="i2"), act("u5", 300, item="i2")]
    acts += [act("u6", 0, item="gone"), act("u6", 1, query="asked by one")]
    acts += [act(f"u{7 + n % 2}", n, query="gift", item=f"i{n}") for n in range(1, 9)]
    day = directory / "click_log" / "ds=2024-05-07"
    day.mkdir(parents=True)
    kinds = {"event_time": pl.Datetime("us", "UTC"), "position": pl.Int32, "dwell_ms": pl.Int64}
    pl.DataFrame(acts, schema_overrides=kinds, infer_schema_length=None).write_parquet(day / "part-0.parquet")
    items = {"item_id": [f"i{n}" for n in range(1, 9)], "title_id": list(range(1, 9))}
    pl.DataFrame(items).write_parquet(directory / "items.parquet")
    return directory


def strict(config):
    return pairs_config(config).model_copy(update={"min_users": 2, "max_actions_per_hour": 5, "max_query_entropy": 2.5})


def test_duckdb_and_polars_drop_the_same_acts_by_every_rule(tmp_path):
    log, pairs = odd_log(tmp_path), strict(CleaningConfig(root=str(tmp_path)))
    theirs, others = cleaning_duckdb.clean(log, pairs, threads=1), cleaning_polars.clean(log, pairs, threads=1)
    assert others == theirs
    assert set(others["rules"]) == set(RULES) - NEEDS_MORE


@pytest.mark.slow
def test_spark_drops_the_same_acts_as_polars_by_every_rule(spark, tmp_path):
    log, pairs = odd_log(tmp_path), strict(CleaningConfig(root=str(tmp_path)))
    require_same(spark_clean(spark, log, pairs), cleaning_polars.clean(log, pairs, threads=1), POLARS)


@pytest.mark.slow
def test_spark_duckdb_and_polars_clean_one_log_to_the_same_pairs(spark, tmp_path):
    config = CleaningConfig(root=str(tmp_path), clicks=20_000)
    log, pairs = write_log(tmp_path, LogShape(clicks=config.clicks), config.ds), pairs_config(config)
    ours = spark_clean(spark, log, pairs)
    for name, clean in PEERS.items():
        theirs = clean(log, pairs, threads=1)
        require_same(ours, theirs, name)
        assert set(theirs["rules"]) == {"short_dwell", "repeat_in_session", "few_users"}


@pytest.mark.slow
def test_turns_of_all_three_are_kept_as_one_comparison_for_each_peer(spark, tmp_path):
    results = tmp_path / "results.jsonl"
    config = CleaningConfig(root=str(tmp_path), turns=1, threads=1, results=results)
    in_turns(spark, config, clicks=10_000)
    found = comparison.read(results)
    assert [(one.question, one.peer, one.goal) for one in found] == [("etl", DUCKDB, 1 / 4.5), ("etl", POLARS, None)]
    assert all(one.ratio and one.check.startswith("same rows by rule") for one in found)


@pytest.mark.parametrize("changes", [{"pairs": 1}, {"clicks": 1}, {"users": 1}, {"rules": {"bot": 4}}])
def test_a_peer_that_finds_something_else_ends_the_measurement(changes):
    found = {"pairs": 5, "clicks": 9, "users": 7, "rules": {"bot": 3}}
    require_same(found | {"rules": {"bot": 3, "no_query": 0}}, found, DUCKDB)
    with pytest.raises(RuntimeError, match="DuckDB found"):
        require_same(found, found | changes, DUCKDB)
