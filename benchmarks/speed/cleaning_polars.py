"""The cleaning of :mod:`etl.build_pairs` written for Polars, as somebody with one large machine would: the comparison.

Sorted once by who acted and when, a row's neighbours are those of its session: shifts stand where SQL has windows. Polars
takes as many threads as its pool has (``POLARS_MAX_THREADS``), whatever the others are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.speed.cleaning_duckdb import judged
from etl.cleaning import ACTIONS, EVENT_KINDS
from etl.contracts import EARLIEST
from etl.pairs_config import PairsConfig

ACTED = ("ds", "event_time", "user_id", "session_id", "query", "item_id", "event", "position", "dwell_ms")
SAME_SESSION = ("usr", "session")
SAME_ITEM = ("visit", "query_id", "item_id")


def clean(directory: Path, config: PairsConfig, threads: int) -> Mapping[str, Any]:
    """Rows by rule, and number, clicks and users of the pairs, of a log of :func:`benchmarks.speed.click_log.write_log`.

    ``threads`` is how many processes judge the queries.
    """
    events = pl.scan_parquet(directory / "click_log/*/*.parquet", hive_partitioning=True)
    marked = events.select(*ACTED, rule=event_rule(config)).pipe(with_bots, config).collect(engine="streaming")
    rules = by_rule(marked)
    acts = marked.lazy().filter(pl.col("rule").is_null()).drop("rule")
    raw = acts.select(pl.col("query").unique()).collect()["query"].to_list()
    known = pl.DataFrame(judged(raw, threads))
    queries = known.lazy().select(query="raw", norm="norm", rule="query_rule")
    asked = acts.join(queries, on="query", how="left")
    rules += by_rule(asked.select("rule").collect(engine="streaming"))
    items = pl.scan_parquet(directory / "items.parquet")
    visited = asked.filter(pl.col("rule").is_null()).pipe(with_visits, config).pipe(with_session_rules)
    found = visited.join(items, on="item_id", how="left").pipe(with_item_rule).collect()
    rules += by_rule(found)
    supported = found.lazy().filter(pl.col("rule").is_null()).drop("rule").pipe(with_support, config).collect()
    rules += by_rule(supported)
    pairs = supported.lazy().filter(pl.col("rule").is_null()).pipe(as_pairs).collect()
    totals = pairs.select(pl.len().alias("pairs"), pl.sum("clicks"), pl.sum("users"))
    return {"rules": dict(rules), **totals.row(0, named=True)}


def event_rule(config: PairsConfig) -> pl.Expr:
    """The rules that look at one event only."""
    time, query = pl.col("event_time"), pl.col("query")
    day_after = pl.col("ds").cast(pl.Datetime("us", "UTC")) + pl.duration(days=1, minutes=config.clock_skew_minutes)
    lacking = pl.any_horizontal(pl.col("event", "event_time", "user_id", "item_id").is_null())
    return (
        pl.when(lacking | ~pl.col("event").is_in(EVENT_KINDS))
        .then(pl.lit("unknown_event"))
        .when((time < pl.lit(EARLIEST)) | (time >= day_after))
        .then(pl.lit("bad_date"))
        .when(pl.col("event") == "impression")
        .then(pl.lit("impression"))
        .when(query.str.len_chars() > config.max_query_characters)
        .then(pl.lit("long_query"))
        .when(query.is_null())
        .then(pl.lit("no_query"))
    )


def with_bots(marked: pl.LazyFrame, config: PairsConfig) -> pl.LazyFrame:
    """Acts of a user's hour with too many of them are a bot's."""
    hour = pl.col("event_time").dt.truncate("1h")
    acts = marked.filter(pl.col("rule").is_null()).group_by("user_id", hour.alias("hour")).len()
    bots = acts.filter(pl.col("len") > config.max_actions_per_hour).select("user_id", "hour", bot=pl.lit("bot"))
    joined = marked.with_columns(hour=hour).join(bots, on=["user_id", "hour"], how="left")
    return joined.with_columns(rule=pl.coalesce("rule", "bot")).drop("hour", "bot")


def with_visits(acts: pl.LazyFrame, config: PairsConfig) -> pl.LazyFrame:
    """Acts in the order of their sessions, with ``visit``, ``strength`` and the misclick that each would be (``quick``)."""
    ms, click = pl.col("ms"), pl.col("event") == "click"
    gap = config.session_gap_minutes * 60_000
    acts = acts.select(
        "ds", "item_id", "event", "position", "dwell_ms",
        ms=pl.col("event_time").dt.timestamp("ms"),
        usr=pl.col("user_id").hash(), session=pl.col("session_id").hash(), query_id=pl.col("norm").hash(), query="norm",
        strength=pl.col("event").replace_strict(ACTIONS, range(1, len(ACTIONS) + 1), return_dtype=pl.Int8),
    ).sort(*SAME_SESSION, "ms", "query_id", "item_id", "event", "ds")  # fmt: skip
    ahead = ms.shift(-1) - ms
    elsewhere = same_as(SAME_SESSION, -1) & (ahead <= gap) & (pl.col("item_id").shift(-1) != pl.col("item_id"))
    quick = (
        pl.when(click & (pl.col("dwell_ms") < config.min_dwell_ms))
        .then(pl.lit("short_dwell"))
        .when(click & pl.col("dwell_ms").is_null() & elsewhere & (ahead < config.min_return_ms))
        .then(pl.lit("fast_return"))
    )
    goes_on = same_as(SAME_SESSION, 1) & (ms - ms.shift(1) <= gap)
    return acts.with_columns(visit=(~goes_on).cum_sum(), quick=quick)


def with_session_rules(acts: pl.LazyFrame) -> pl.LazyFrame:
    """Misclicks, where nothing stronger followed, and repeats within a visit, query and item."""
    order = [*SAME_ITEM, "strength", pl.col("quick").is_not_null(), "ms", "ds", "position"]
    descending = [name == "strength" for name in (*SAME_ITEM, "strength", "quick", "ms", "ds", "position")]
    first = ~same_as(SAME_ITEM, 1)
    strongest = pl.when(first).then("strength").forward_fill()
    misclick = pl.when(strongest == 1).then("quick")
    repeat = pl.when(~first).then(pl.lit("repeat_in_session"))
    marked = acts.sort(order, descending=descending).with_columns(rule=pl.coalesce(misclick, repeat))
    return marked.select("ds", "query", "query_id", "item_id", "usr", "rule", weight="strength")


def with_item_rule(acts: pl.LazyFrame) -> pl.LazyFrame:
    unknown = pl.when(pl.col("title_id").is_null()).then(pl.lit("not_in_catalogue"))
    return acts.with_columns(rule=pl.coalesce("rule", unknown))


def with_support(kept: pl.LazyFrame, config: PairsConfig) -> pl.LazyFrame:
    """The rules that need all acts of a query: how many users asked it, and over how many items its clicks are spread."""
    n, total = pl.col("n"), pl.col("n").sum()
    users = kept.group_by("query_id").agg(users=pl.col("usr").n_unique())
    texts = kept.group_by("query_id", "title_id").agg(n=pl.len())
    entropies = texts.group_by("query_id").agg(entropy=total.log(2) - (n * n.log(2)).sum() / total)
    rule = (
        pl.when(pl.col("users") < config.min_users)
        .then(pl.lit("few_users"))
        .when(pl.col("entropy") > config.max_query_entropy)
        .then(pl.lit("diffuse_query"))
    )
    joined = kept.join(users, on="query_id", how="left").join(entropies, on="query_id", how="left")
    return joined.with_columns(rule=rule).drop("users", "entropy")


def as_pairs(kept: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each query and item."""
    return kept.group_by("query_id", "item_id", "title_id").agg(
        pl.first("query"),
        clicks=pl.len(),
        users=pl.col("usr").n_unique(),
        weight=pl.col("weight").cast(pl.Int64).sum(),
        first_day=pl.col("ds").min(),
    )


def same_as(names: tuple[str, ...], back: int) -> pl.Expr:
    """Whether a row has the same in all these columns as the one so many rows before it; false where there is none."""
    return pl.all_horizontal(pl.col(name) == pl.col(name).shift(back) for name in names).fill_null(value=False)


def by_rule(marked: pl.DataFrame) -> Counter[str]:
    """Rows that violate a rule, by the rule."""
    counts = marked.lazy().filter(pl.col("rule").is_not_null()).group_by("rule").len().collect()
    return Counter(dict(counts.iter_rows()))
