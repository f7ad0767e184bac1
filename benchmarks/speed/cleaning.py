"""How long cleaning and aggregation of a click log take, beside DuckDB and Polars doing the same on the same files.

Measures, on a made-up log of acts: the ratio to either, the price of each further part of `labeller pairs` and `dataset`,
what one hot query or item costs, and whether the rate holds on a tenth and on ten times the clicks; then CPU seconds of the
three in turn, on a tenth. Spark and DuckDB get as many threads, Polars those of its pool.
`--only-peers` does the last alone. `--skew` instead gives one query nine tenths of the clicks and the executors 1 GB each.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl
from pydantic import Field
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.table import Table

from benchmarks.speed import cleaning_duckdb, cleaning_polars
from benchmarks.speed.click_log import DAYS, LogShape, write_log
from benchmarks.speed.comparison import Comparison, faster, in_turn, record
from benchmarks.unleased import Unleased
from etl import build_pairs, duplicates, sampling, splits
from etl.config import SparkJobConfig, arg_parser
from etl.dataset_config import DatasetConfig
from etl.dataset_rows import as_examples
from etl.job import run_job
from etl.pairs_config import PairsConfig
from etl.petastorm_write import write_petastorm
from etl.session import settle, start_session
from etl.tokenize_texts import Tokenise
from etl.tokenizer import WordHashTokenizer
from labeling.machine import hardware
from labeling.terminal import console

log = logging.getLogger(__name__)

# The optimising compiler pays on a log of this size; see etl/session.py for why small local jobs go without.
WARM_JVM = {"spark.driver.extraJavaOptions": "-XX:+UseParallelGC"}

# Ten and a hundred times what the first query (.4%) and the first item (.2%) have of the log anyway.
HOT_QUERY, HOT_ITEM = (0.04, 0.4), (0.02, 0.2)

OURS, DUCKDB, POLARS = "Spark", "DuckDB", "Polars"
PEERS = {DUCKDB: cleaning_duckdb.clean, POLARS: cleaning_polars.clean}
GOALS = {DUCKDB: 1 / 4.5}
"""Least ratio: Spark is to cost at most 4.5 times as much."""


class CleaningConfig(Unleased, SparkJobConfig):
    """Settings of the benchmark."""

    root: str
    """Directory for the logs; those that are there are read again."""

    ds: dt.date = dt.date(2024, 5, 7)
    """Last day of the logs."""

    clicks: Annotated[int, Field(ge=10_000)] = 6_000_000
    """Acts in the log."""

    larger: Annotated[int, Field(ge=0)] = 10
    """Also of a log of so many times as many, measured once; 0: not."""

    threads: Annotated[int, Field(ge=1)] = 2
    """Of either engine."""

    rounds: Annotated[int, Field(ge=1)] = 3
    """Times that all but the larger log and the further parts are measured; the best counts."""

    turns: Annotated[int, Field(ge=1)] = 5
    """Of each of the three on a tenth of the log, in CPU seconds; the median counts."""

    results: Path | None = None
    """Append a line of JSON for the comparison with each peer to this file."""

    only_peers: bool = False
    """Measure only these turns, on the whole log: of 600,000 clicks in minutes."""

    skew: bool = False
    """Measure only the log of which one query has nine tenths, with executors of 1 GB."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(
        arg_parser(CleaningConfig, "python -m benchmarks.speed.cleaning", __doc__ or ""), CleaningConfig, run, argv
    )


def run(config: CleaningConfig) -> Mapping[str, Any]:
    """Measure and print; returns the figures, which but for the turns alone are also written to ROOT/cleaning.json."""
    if config.only_peers:
        return ratios(in_turns(warm_session(config), config, config.clicks))
    figures = skewed(config) if config.skew else compared(config)
    figures["hardware"] = hardware()
    Path(config.root, "skew.json" if config.skew else "cleaning.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def compared(config: CleaningConfig) -> dict[str, Any]:
    """Everything but the skewed log of `--skew`."""
    pairs = pairs_config(config)
    big = write_log(Path(config.root), LogShape(clicks=config.clicks), config.ds)
    # First and in turn: both at once want more than 16 GB.
    others = {name: timed(partial(clean, big, pairs, config.threads), config.rounds) for name, clean in PEERS.items()}
    spark = warm_session(config)
    seconds, found = timed(lambda: spark_clean(spark, big, pairs), config.rounds)
    for name, (_, theirs) in others.items():
        require_same(found, theirs, name)
    figures: dict[str, Any] = {"spark_s": seconds}
    for name, (theirs_s, _) in others.items():
        figures |= {f"{name.lower()}_s": theirs_s, f"spark_to_{name.lower()}": seconds / theirs_s}
    figures["parts_s"] = parts(spark, big, pairs)
    hot = [LogShape(clicks=config.clicks, hot_query=share) for share in HOT_QUERY]
    hot += [LogShape(clicks=config.clicks, hot_item=share) for share in HOT_ITEM]
    hot_seconds = {h.name: timed(spark_of(spark, h, config, pairs), config.rounds, warm=False)[0] for h in hot}
    # Anew: by now the JVM has compiled more than it had before them.
    base, _ = timed(lambda: spark_clean(spark, big, pairs), config.rounds, warm=False)
    figures["hot"] = {name: found / base for name, found in hot_seconds.items()}
    rates = {config.clicks: config.clicks / seconds}
    for clicks, rounds in ((config.clicks // 10, config.rounds), (config.clicks * config.larger, 1)):
        if clicks:
            part, _ = timed(spark_of(spark, LogShape(clicks=clicks), config, pairs), rounds, warm=clicks < config.clicks)
            rates[clicks] = clicks / part
    figures["rows_per_s"] = {str(clicks): rate for clicks, rate in sorted(rates.items())}
    show(figures)
    return figures | ratios(in_turns(spark, config, config.clicks // 10))


def in_turns(spark: SparkSession, config: CleaningConfig, clicks: int) -> list[Comparison]:
    """Spark beside each peer on a log of ``clicks``, in CPU seconds of this process and all below it; shown and kept.

    Raises:
        RuntimeError: a peer found something else.
    """
    pairs = pairs_config(config)
    directory = write_log(Path(config.root), LogShape(clicks=clicks), config.ds)
    sides: dict[str, Callable[[], Mapping[str, Any]]] = {OURS: partial(spark_clean, spark, directory, pairs)}
    sides |= {name: partial(clean, directory, pairs, config.threads) for name, clean in PEERS.items()}
    costs, found = in_turn(sides, config.turns)
    for name in PEERS:
        require_same(found[OURS], found[name], name)
    ours = found[OURS]
    check = f"same rows by rule, {ours['pairs']:,} pairs, {ours['clicks']:,} clicks, {ours['users']:,} users"
    threads = dict.fromkeys(PEERS, config.threads) | {POLARS: pl.thread_pool_size()}
    comparisons = [
        faster(
            "etl", f"{clicks:,} acts, {config.threads} threads, peer {threads[name]}", name, costs[OURS], costs[name],
            check=check, goal=GOALS.get(name), work=clicks, unit="acts/CPU s",
        )
        for name in PEERS
    ]  # fmt: skip
    record(comparisons, config.results)
    return comparisons


def ratios(found: Sequence[Comparison]) -> dict[str, float]:
    return {f"cpu_ratio_{one.peer.lower()}": one.ratio for one in found if one.ratio is not None}


def require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], peer: str) -> None:
    """See that both found the same pairs, clicks and users, and dropped as many rows by each rule.

    Raises:
        RuntimeError: they did not.
    """
    dropped = [{rule: n for rule, n in found["rules"].items() if n} for found in (ours, theirs)]
    if dropped[0] != dropped[1] or any(ours[name] != theirs[name] for name in ("pairs", "clicks", "users")):
        raise RuntimeError(f"{peer} found {dict(theirs)} (expected as Spark: {dict(ours)})")


def skewed(config: CleaningConfig) -> dict[str, Any]:
    """Seconds for a log of which one query has nine tenths, with two executors of 1 GB."""
    spark = session(config, "local-cluster[2,1,1024]", {"spark.executor.memory": "1g"})
    shape = LogShape(clicks=config.clicks, hot_query=0.9)
    seconds, found = timed(spark_of(spark, shape, config, pairs_config(config)), 1, warm=False)
    return {"skew_s": seconds, "pairs": found["pairs"]}


def spark_of(
    spark: SparkSession, shape: LogShape, config: CleaningConfig, pairs: PairsConfig
) -> Callable[[], Mapping[str, Any]]:
    directory = write_log(Path(config.root), shape, config.ds)
    return lambda: spark_clean(spark, directory, pairs)


def spark_clean(spark: SparkSession, directory: Path, config: PairsConfig) -> Mapping[str, Any]:
    """What `labeller pairs` does up to the weighted pairs, on a log of :func:`benchmarks.speed.click_log.write_log`."""
    found = cleaned(spark, directory, config)
    pairs = build_pairs.as_weighted_pairs(found.kept)
    row = pairs.agg(F.count(F.lit(1)), F.sum("clicks"), F.sum("users")).collect()[0]
    rules: dict[str, int] = {}
    for (_, rule), n in found.counts.items():
        if rule is not None:
            rules[rule] = rules.get(rule, 0) + n
    return {"rules": rules, "pairs": row[0], "clicks": row[1], "users": row[2]}


def parts(spark: SparkSession, directory: Path, config: PairsConfig) -> dict[str, float]:
    """Seconds of each further part of `labeller pairs` and `labeller dataset`, alone, once."""
    split = settle(
        build_pairs.as_weighted_pairs(cleaned(spark, directory, config).kept)
        .withColumns({"heldout": F.lit(False), "item_group": F.col("title_id")})
        .withColumn("split", splits.split_of(config))
    )
    # Titles of ten words, the last of which tells them apart: each shares its first nine with two others.
    words = F.concat_ws(" ", *(F.xxhash64((F.col("title_id") / 3).cast("bigint"), F.lit(n)) for n in range(9)), "title_id")
    titles = spark.read.parquet(str(directory / "items.parquet")).select("title_id", words.alias("text"))
    texts = settle(titles.withColumns({"item_group": F.col("title_id"), "heldout": F.lit(False)}))
    asked = settle(split.select("query_id", F.col("query").alias("text")).distinct())
    measured: dict[str, float] = {}

    def part(name: str, work: Callable[[], Any]) -> Any:
        measured[name], found = timed(work, 1, warm=False)
        return found

    part(f"near-duplicates of {texts.count():,} texts", lambda: duplicates.near_duplicates(texts, 0.8).count())
    thinned = sampling.with_sampling(1e-3, 1e-3)
    part("thinning, log-probabilities", lambda: split.transform(thinned).write.format("noop").mode("overwrite").save())
    drawn = settle(split.transform(sampling.with_sampling(0.0, 0.0)))
    with TemporaryDirectory() as scratch:
        WordHashTokenizer(DatasetConfig(root=scratch, ds=config.ds).spec()).save(Path(scratch))
        tokenise = Tokenise.of(Path(scratch))
        number = texts.count() + asked.count()
        queries, shown = part(
            f"tokenising {number:,} texts",
            lambda: (
                settle(asked.transform(tokenise.ids("query", "query"))),
                settle(texts.transform(tokenise.ids("title", "title"))),
            ),
        )
        examples = as_examples(drawn, queries, shown)
        cut = part(f"pairs with both texts, {drawn.count():,}", lambda: settle(examples.transform(tokenise.cut_titles)))
        rows = cut.drop("cut")
        place = Path(scratch) / "pairs"
        part("Petastorm", lambda: write_petastorm(rows, place, keys=["pair_id"], files=16, row_group_mb=16))
    return measured


def cleaned(spark: SparkSession, directory: Path, config: PairsConfig) -> build_pairs.Cleaned:
    items = spark.read.parquet(str(directory / "items.parquet"))
    no_groups = items.limit(0).select("title_id", F.col("title_id").alias("item_group"))
    return build_pairs.clean(spark.read.parquet(str(directory / "click_log")), items, no_groups, config)


def pairs_config(config: CleaningConfig) -> PairsConfig:
    """Default settings: the log has no impressions, so no position bias can be estimated."""
    return PairsConfig(root=config.root, ds=config.ds, window_days=DAYS, require_impressions="never", position_bias="none")


def warm_session(config: CleaningConfig) -> SparkSession:
    return session(config, f"local[{config.threads}]", WARM_JVM)


def session(config: CleaningConfig, master: str, conf: Mapping[str, str]) -> SparkSession:
    settings = {"master": master, "driver_memory": "8g", "spark_conf": {**conf, **config.spark_conf}}
    return start_session("benchmark of cleaning", config.model_copy(update=settings))


def timed(work: Callable[[], Any], rounds: int, *, warm: bool = True) -> tuple[float, Any]:
    """Best wall time of ``rounds``, seconds, and what the last gave."""
    seconds = []
    for _ in range(rounds + warm):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
        log.info("%.1f s", seconds[-1])
    return min(seconds[warm:]), found


def show(figures: Mapping[str, Any]) -> None:
    table = Table("what", "figure", title=f"cleaning and aggregation on {hardware()}")
    ours = figures["spark_s"]
    for peer in PEERS:
        theirs, ratio = figures[f"{peer.lower()}_s"], figures[f"spark_to_{peer.lower()}"]
        table.add_row(f"Spark / {peer}, warm", f"{ours:.1f} s / {theirs:.1f} s = {ratio:.2f}")
    for name, seconds in figures["parts_s"].items():
        table.add_row(name, f"{seconds:.1f} s")
    for clicks, rate in figures["rows_per_s"].items():
        table.add_row(f"{int(clicks):,} clicks", f"{rate:,.0f} rows/s")
    for name, ratio in figures["hot"].items():
        table.add_row(name, f"{ratio:.2f} x")
    console().print(table)


if __name__ == "__main__":
    sys.exit(main())
