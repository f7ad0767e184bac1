"""Clean the click log of the window that ends with a day into query-item pairs, and count what each rule dropped.

Reads click_log and catalogue, writes pairs, title_groups and etl_counts. Users and sessions end here; a query leaves only if
enough distinct users asked it and it holds no personal data.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import cleaning, config, duplicates, propensity, sampling, sessions, splits, support
from etl.catalogue import read_catalogue, with_title_id
from etl.config import SparkJobConfig
from etl.contracts import CATALOGUE, CLICK_LOG, ETL_COUNTS, PAIRS, SPLITS, TITLE_GROUPS
from etl.inputs import no_rows, read_input, version_of
from etl.job import run_job
from etl.late_events import affected_days, count_arrivals, days_with_pairs, say_what_came_late
from etl.pairs_config import PairsConfig
from etl.propensity import as_counts
from etl.quarantine import with_quarantine
from etl.rule_counts import Counts, reconcile, refuse_nothing, require_same, totals
from etl.runs import record_stage
from etl.session import settle, start_session
from etl.tables import read, write_slice
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

KEPT_COLUMNS = ("day", "query_id", "query", "query_group", "item_id", "title_id", "user", "weight")
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What cleaning a window gives."""

    kept: DataFrame
    counts: Counts
    late: Mapping[dt.date, int]
    """Acts of the newest partition by their own, earlier day."""
    theta: np.ndarray | None
    """Propensity by position, see :mod:`etl.propensity`; None: every position weighs the same."""


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(PairsConfig, "labeller pairs", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), PairsConfig, run, argv)


def run(config: PairsConfig) -> Mapping[str, Any]:
    """Build PAIRS, TITLE_GROUPS and ETL_COUNTS of one day; returns the figures of the summary.

    Raises:
        InputError: a table, column or the day is missing, more files than allowed cannot be read, or no pair is left;
            what was there stays.
    """
    started = time.monotonic()
    usual = PairsConfig.model_fields["min_users"].default
    if config.min_users < usual:
        log.warning(
            "[pairs] min_users is %d: queries that fewer than %d people asked leave the log; keep that to invented shoppers",
            config.min_users, usual,
        )  # fmt: skip
    warehouse = Warehouse.of(config)
    spark = start_session("labeller pairs", config)

    def work(without: frozenset[str]) -> tuple[dict[str, str], dict[str, int | str]]:
        return _build(spark, warehouse, config, without)

    (inputs, summary), left_out = with_quarantine(work, config.max_bad_files)
    summary["bad_files"] = len(left_out)
    seconds = time.monotonic() - started
    record_stage(
        spark, warehouse, config.ds, "pairs", inputs=inputs, counts=summary, seconds=seconds, settings=identity(config)
    )
    return summary | {"table": warehouse.table(PAIRS)}


def identity(config: PairsConfig) -> dict[str, Any]:
    """Settings that the pairs depend on."""
    fields = set(PairsConfig.model_fields) - set(SparkJobConfig.model_fields)
    return config.model_dump(mode="json", include=fields)


def _build(
    spark: SparkSession, warehouse: Warehouse, config: PairsConfig, without: frozenset[str]
) -> tuple[dict[str, str], dict[str, int | str]]:
    """Write the three tables; returns versions of what was read, and the figures of the summary."""
    events = read_window(spark, warehouse, config, without)
    catalogue = read_catalogue(spark, warehouse, config.ds, config.product_text)
    inputs = {
        CLICK_LOG.name: version_of(spark, warehouse, CLICK_LOG, config.partitions, without),
        CATALOGUE.name: version_of(spark, warehouse, CATALOGUE, [config.ds]),
    }
    if without:
        inputs["click_log, left out"] = ", ".join(sorted(without))
    where = {"ds": config.ds}
    items = settle(with_title_id(catalogue.select("item_id", "title", "text", "masked"), config.normaliser))
    groups = title_groups(items, config)
    cleaned = clean(events, items, groups, config)
    rows = reconcile(cleaned.counts)
    refuse_nothing(rows, config)
    affected = days_with_pairs(spark, warehouse, affected_days(cleaned.late, config))
    say_what_came_late(cleaned.late, affected, config)
    log.info("%d events are kept; next the pairs", totals(rows)["kept"])
    pairs = as_weighted_pairs(cleaned.kept).transform(as_pairs(items, groups, config))
    metadata = {"stage": "pairs", "inputs": inputs, "propensity": as_counts(cleaned.theta)}
    dated = groups.withColumn("ds", F.lit(config.ds))
    grouped = write_slice(dated, warehouse.table(TITLE_GROUPS), TITLE_GROUPS, where, metadata)
    written = write_slice(pairs, warehouse.table(PAIRS), PAIRS, where, metadata)
    frame = spark.createDataFrame([(config.ds, *row) for row in rows], ETL_COUNTS.ddl).coalesce(1)
    write_slice(frame, warehouse.table(ETL_COUNTS), ETL_COUNTS, where, metadata)
    counts: dict[str, int | str] = {
        "late": sum(cleaned.late.values()),
        "affected_days": " ".join(map(str, affected)) or "none",
        "masked_titles": items.where("masked").count(),
    }
    counts |= {"title_groups": grouped, "pairs": written} | count_splits(spark, warehouse, config.ds)
    return inputs, totals(rows) | counts


def count_splits(spark: SparkSession, warehouse: Warehouse, ds: dt.date) -> dict[str, int]:
    """Pairs of a day by their split: of ``unused`` ones many mean that held-out texts have many near-duplicates."""
    rows = read(spark, warehouse.table(PAIRS), PAIRS, ds=ds).groupBy("split").count().collect()
    found = {row["split"]: row["count"] for row in rows}
    return {split: found.get(split, 0) for split in SPLITS}


def read_window(
    spark: SparkSession, warehouse: Warehouse, config: PairsConfig, without: frozenset[str] = frozenset()
) -> DataFrame:
    """CLICK_LOG events that arrived in the window, and those of its days in partitions before it and up to ``arrived_by``.

    Days of the window without any are named in the log. Of a log without days, events that are of no day come as of ds.

    Raises:
        InputError: as :func:`etl.inputs.read_input`, of all these days at once; ds itself has no events.
    """
    events = read_input(spark, warehouse, CLICK_LOG, days=config.partitions, without=without)
    found = {row["ds"] for row in events.select("ds").distinct().collect()}
    if config.ds not in found:
        raise no_rows(spark, warehouse, CLICK_LOG, config.ds)
    missing = [day for day in config.partitions if day not in found]
    if missing:
        days = ", ".join(map(str, missing))
        log.warning("click_log has no events on %d of %d days: %s", len(missing), len(config.partitions), days)
    if None in found:
        # A log without days has events that are of none, see read_input: they count as arrived on ds, and are rejected.
        events = events.withColumn("ds", F.coalesce("ds", F.lit(config.ds)))
    # Of partitions around the window only what belongs to it was ever asked for.
    inside = F.col("ds").between(F.lit(config.first_day), F.lit(config.ds))
    start, end = cleaning.midnight(config.first_day), cleaning.midnight(config.ds + _DAY)
    return events.where(inside | ((F.col("event_time") >= start) & (F.col("event_time") < end)))


def clean(events: DataFrame, items: DataFrame, groups: DataFrame, config: PairsConfig) -> Cleaned:
    """CLICK_LOG events of the window -> those kept, what each rule dropped, what came late, and the position bias.

    Kept acts have day, query_id, query, query_group, item_id, title_id, user and weight.

    Args:
        events: Rows of CLICK_LOG.
        items: (item_id, title_id) of the catalogue, title_id null where the text is unusable.
        groups: (title_id, item_group) as of :func:`title_groups`.
        config: The parameters of the rules.
    """
    marked = events.transform(cleaning.with_event_rules(config))
    limits = config.max_actions_per_hour, config.max_impressions_per_hour
    marked = marked.transform(cleaning.with_robot_rule(settle(marked.transform(cleaning.robot_hours(*limits)))))
    arrived, late = count_arrivals(marked, config.last_arrival)
    shown = sum(n for (_, rule), n in arrived.items() if rule == "impression")
    acted = sum(n for (_, rule), n in arrived.items() if rule is None)
    theta = propensity.estimate(marked, shown) if config.position_bias == "pbm" and shown else None

    require_shown = config.require_impressions == "always" or (config.require_impressions == "auto" and shown >= acted)
    source = marked if require_shown else marked.where(F.col("event").isin(*cleaning.ACTIONS))
    queries = cleaning.normalise_queries(cleaning.distinct_queries(source), config.normaliser, config.countries)
    # Says again what the rule says, in a form that reaches the files: impressions are not even decoded whole.
    acts = marked.where(F.col("event").isin(*cleaning.ACTIONS) & F.col("rule").isNull())
    judged = settle(
        acts.transform(cleaning.with_query_rules(queries, require_shown))
        .transform(sessions.with_visits(config.session_gap_minutes))
        .transform(sessions.with_session_rules(config))
        .transform(propensity.with_inverse_propensity(theta, config.max_propensity_weight))
        .transform(support.with_item_rules(items))
        .withColumn("day", F.to_date("event_time"))
        .select("ds", "rule", *KEPT_COLUMNS)
    )
    log.info("bots and events that are no acts are set aside; next queries, sessions and items")
    left = cleaning.count_by_rule(judged)
    require_same(arrived, left, "rules on queries, sessions and items")
    supported = judged.where(F.col("rule").isNull()).transform(with_support(groups, config))
    kept = cleaning.count_by_rule(supported)
    require_same(left, kept, "rules on support")
    counts = Counter(kept)
    for found in (arrived, left):  # a rule may drop events in either
        counts.update({key: n for key, n in found.items() if key[1] is not None})
    return Cleaned(supported.where(F.col("rule").isNull()).select(*KEPT_COLUMNS), counts, late, theta)


def with_support(groups: DataFrame, config: PairsConfig) -> cleaning.Transform:
    """Kept acts -> the same with the rules that need all of them."""

    def transform(kept: DataFrame) -> DataFrame:
        wanted = support.query_support(kept)
        kept = kept.transform(support.with_query_support(wanted, config.min_users, config.max_query_entropy))
        if config.min_pair_users > 1:
            kept = kept.transform(support.with_pair_support(config.min_pair_users))
        if config.test_days:
            kept = kept.transform(support.with_later_click_rule(config.first_test_day, groups))
        return settle(kept)

    return transform


def title_groups(items: DataFrame, config: PairsConfig) -> DataFrame:
    """Items with normal and title_id -> TITLE_GROUPS without ds."""
    texts = items.where(F.col("title_id").isNotNull()).select("title_id", F.col("normal").alias("text")).distinct()
    near = texts.limit(0).select("title_id", F.col("title_id").alias("item_group"))
    if config.near_duplicates:
        near = duplicates.near_duplicates(texts, config.near_duplicates)
    return settle(splits.as_title_groups(texts, near, config))


def as_weighted_pairs(kept: DataFrame) -> DataFrame:
    """Kept acts -> one row per (query, item): clicks, distinct users, weight, first day. The user's hash ends here."""
    return kept.groupBy("query_id", "query", "query_group", "item_id", "title_id").agg(
        F.count(F.lit(1)).alias("clicks"),
        F.count_distinct("user").alias("users"),
        # Rounded: the order in which fractions are added up differs from run to run.
        F.round(F.sum("weight"), 6).alias("weight"),
        F.min("day").alias("first_day"),
    )


def as_pairs(items: DataFrame, groups: DataFrame, config: PairsConfig) -> cleaning.Transform:
    """Weighted pairs -> PAIRS, with texts, item groups, the split, and log sampling probabilities of both sides."""

    def transform(pairs: DataFrame) -> DataFrame:
        grouped = pairs.join(groups, "title_id", how="left").withColumns(
            {"item_group": F.coalesce("item_group", "title_id"), "heldout": F.coalesce("heldout", F.lit(False))}
        )
        # Settled: the shares of queries and items, before and after thinning, each ask for it.
        split = settle(grouped.withColumn("split", splits.split_of(config)))
        drawn = split.transform(sampling.with_sampling(config.subsample_queries, config.subsample_items))
        titled = drawn.join(items.select("item_id", "title"), "item_id", how="inner")
        return titled.withColumn("ds", F.lit(config.ds)).select(*PAIRS.names)

    return transform


if __name__ == "__main__":
    sys.exit(main())
