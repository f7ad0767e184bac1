"""Clean the click log of the window that ends with a day into query-item pairs, and count what each rule dropped.

Reads click_log and catalogue, writes pairs and etl_counts. Users and sessions end here; a query leaves only if
enough distinct users asked it and it holds no personal data.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import cleaning, config
from etl.catalogue import read_catalogue, with_item_group
from etl.config import SparkJobConfig
from etl.contracts import CATALOGUE, CLICK_LOG, ETL_COUNTS, PAIRS
from etl.errors import InputError
from etl.inputs import check_days, read_day, read_input, version_of
from etl.job import run_job
from etl.runs import record_stage
from etl.session import hold, start_session
from etl.tables import write_slice
from etl.text_config import TextConfig
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

Counts = Mapping[tuple[dt.date, str | None], int]
"""Events by (partition day, first rule violated); None for those kept."""


class PairsConfig(TextConfig, SparkJobConfig):
    """Settings of the job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "text", "pairs")

    window_days: Annotated[int, Field(ge=1, le=400)] = 14
    """Days of clicks, the last of which is ds."""

    min_users: Annotated[int, Field(ge=1)] = 10
    """Distinct users who must have asked a query in the window for it to be used (k-anonymity)."""

    max_query_characters: Annotated[int, Field(ge=1)] = 200
    """Longest raw query that is used."""

    max_actions_per_hour: Annotated[int, Field(ge=1)] = 60
    """Clicks, carts and orders of one user in one hour above which all of them are a bot's: one a minute, without rest."""

    min_dwell_ms: Annotated[int, Field(ge=0)] = 2_000
    """Milliseconds on the item's page below which a click without cart or order is a misclick."""

    click_weight: Annotated[int, Field(ge=1)] = 1
    """Weight of a session whose strongest event is a click."""

    cart_weight: Annotated[int, Field(ge=1)] = 2
    """Weight of a session whose strongest event is a cart."""

    order_weight: Annotated[int, Field(ge=1)] = 3
    """Weight of a session whose strongest event is an order."""

    valid_share: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of queries held out for calibration and early looks."""

    test_share: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of queries held out for the promotion gate."""

    @property
    def first_day(self) -> dt.date:
        return self.ds - dt.timedelta(days=self.window_days - 1)

    @property
    def window(self) -> list[dt.date]:
        return [self.first_day + dt.timedelta(days=n) for n in range(self.window_days)]

    @property
    def weights(self) -> dict[str, int]:
        return {"click": self.click_weight, "cart": self.cart_weight, "order": self.order_weight}


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(PairsConfig, "labeller pairs", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), PairsConfig, run, argv)


def run(config: PairsConfig) -> Mapping[str, Any]:
    """Build PAIRS and ETL_COUNTS of one day; returns the figures of the summary.

    Raises:
        InputError: a table, column or the day is missing, or no pair is left; nothing is written then.
    """
    started = time.monotonic()
    warehouse = Warehouse.at(config.root)
    spark = start_session("labeller pairs", config)
    events = read_window(spark, warehouse, config)
    items = read_catalogue(spark, warehouse, config.ds, config.product_text)
    read = {CLICK_LOG: config.window, CATALOGUE: [config.ds]}
    inputs = {table.name: version_of(spark, warehouse, table, days) for table, days in read.items()}
    metadata = {"stage": "pairs", "inputs": inputs}
    with ExitStack() as held:
        kept, counts = clean(events, items, config, held)
        rows = reconcile(counts)
        _refuse_nothing(rows, config)
        log.info("%d events are kept; next the pairs", totals(rows)["kept"])
        pairs = hold(as_weighted_pairs(kept), held).transform(as_pairs(items, config))
        written = write_slice(pairs, warehouse.table(PAIRS), PAIRS, {"ds": config.ds}, metadata)
    frame = spark.createDataFrame([(config.ds, *row) for row in rows], ETL_COUNTS.ddl).coalesce(1)
    write_slice(frame, warehouse.table(ETL_COUNTS), ETL_COUNTS, {"ds": config.ds}, metadata)
    summary = totals(rows) | {"pairs": written}
    record_stage(spark, warehouse, config.ds, "pairs", inputs=inputs, counts=summary, seconds=time.monotonic() - started)
    return summary | {"table": warehouse.table(PAIRS)}


def read_window(spark: SparkSession, warehouse: Warehouse, config: PairsConfig) -> DataFrame:
    """CLICK_LOG partitions of the window; days without any are named in the log.

    Raises:
        InputError: as :func:`etl.inputs.read_day` for ds itself.
    """
    read_day(spark, warehouse, CLICK_LOG, config.ds)
    check_days(warehouse, CLICK_LOG, config.window)
    in_window = F.col("ds").between(F.lit(config.first_day), F.lit(config.ds))
    events = read_input(spark, warehouse, CLICK_LOG).where(in_window)
    found = {row["ds"] for row in events.select("ds").distinct().collect()}
    missing = [day for day in config.window if day not in found]
    if missing:
        days = ", ".join(map(str, missing))
        log.warning("click_log has no events on %d of %d days of the window: %s", len(missing), config.window_days, days)
    return events


def clean(events: DataFrame, items: DataFrame, config: PairsConfig, held: ExitStack) -> tuple[DataFrame, Counts]:
    """CLICK_LOG events of the window -> those kept, with query_id, query, item_group and weight, and all counts."""
    marked = events.transform(cleaning.with_event_rules(config.first_day, config.ds, config.max_query_characters))
    bots = hold(marked.transform(cleaning.bot_hours(config.max_actions_per_hour)), held)
    marked = marked.transform(cleaning.with_bot_rule(bots))
    counts = Counter({key: n for key, n in cleaning.count_by_rule(marked).items() if key[1] is not None})

    # Says again what the rule says, in a form that reaches the files: impressions are not even decoded whole.
    acting = marked.where(F.col("event").isin(*cleaning.ACTIONS) & F.col("rule").isNull())
    queries = cleaning.normalise_queries(acting.select(F.col("query").alias("raw")).distinct(), config.normaliser)
    marked = hold(
        acting.transform(cleaning.with_query_rules(queries))
        .transform(cleaning.with_session_rules(config.min_dwell_ms, config.weights))
        .transform(cleaning.with_item_rules(with_item_group(items.select("item_id", "text"), config.normaliser)))
        .select("ds", "query_id", "query", "item_id", "item_group", "weight", "rule", F.xxhash64("user_id").alias("user")),
        held,
    )
    log.info("bots and events that are no acts are set aside; next queries, sessions and items")
    left = cleaning.count_by_rule(marked)
    counts.update({key: n for key, n in left.items() if key[1] is not None})

    asked = hold(marked.where(F.col("rule").isNull()).transform(cleaning.popular_queries(config.min_users)), held)
    kept = marked.where(F.col("rule").isNull()).join(asked, "query_id", how="left_semi")
    kept_counts = {row["ds"]: row["count"] for row in kept.groupBy("ds").count().collect()}
    for day, count in ((day, n) for (day, rule), n in left.items() if rule is None):
        counts[day, None] = kept_counts.get(day, 0)
        counts[day, "few_users"] = count - counts[day, None]
    return kept, counts


def as_weighted_pairs(kept: DataFrame) -> DataFrame:
    """Kept events -> one row per (query, item): clicks, distinct users, weight. The user's hash ends here."""
    return kept.groupBy("query_id", "query", "item_id", "item_group").agg(
        F.count(F.lit(1)).alias("clicks"),
        F.count_distinct("user").alias("users"),
        F.sum("weight").cast("double").alias("weight"),
    )


def as_pairs(items: DataFrame, config: PairsConfig) -> Callable[[DataFrame], DataFrame]:
    """Weighted pairs -> PAIRS, with titles, log sampling probabilities of both sides and the split."""

    def transform(pairs: DataFrame) -> DataFrame:
        total = pairs.agg(F.sum("weight").alias("_total"))
        joined = pairs.crossJoin(F.broadcast(total))
        for key, into in (("query_id", "query_logp"), ("item_group", "item_logp")):
            shares = pairs.groupBy(key).agg(F.sum("weight").alias("_weight"))
            joined = joined.join(shares, key, how="inner").withColumn(into, F.ln(F.col("_weight") / F.col("_total")))
            joined = joined.drop("_weight")
        titled = joined.join(items.select("item_id", "title"), "item_id", how="inner")
        split = split_of(F.col("query_id"), config.valid_share, config.test_share)
        return titled.withColumns({"split": split, "ds": F.lit(config.ds)}).select(*PAIRS.names)

    return transform


def split_of(query_id: Column, valid_share: float, test_share: float) -> Column:
    """train, valid or test by a hash of the query: the same on every day, whatever else is in the log."""
    place = F.pmod(F.xxhash64(query_id, F.lit("split")), F.lit(1_000_000)) / F.lit(1_000_000.0)
    return F.when(place < test_share, "test").when(place < test_share + valid_share, "valid").otherwise("train")


def reconcile(counts: Counts) -> list[tuple[dt.date, int, str, int, int, int]]:
    """Rows of ETL_COUNTS without ds: (day, step, rule, rows in, dropped, kept) of every day and rule."""
    rows = []
    for day in sorted({day for day, _ in counts}):
        left = sum(count for (of, _), count in counts.items() if of == day)
        for step, rule in enumerate(cleaning.RULES, start=1):
            dropped = counts.get((day, rule), 0)
            rows.append((day, step, rule, left, dropped, left - dropped))
            left -= dropped
        assert left == counts.get((day, None), 0)
    return rows


def totals(rows: Sequence[tuple[dt.date, int, str, int, int, int]]) -> dict[str, int]:
    """Events in, dropped by each rule, and kept, over all days."""
    dropped = {rule: sum(row[4] for row in rows if row[2] == rule) for rule in cleaning.RULES}
    events = sum(row[3] for row in rows if row[1] == 1)
    return {"events": events} | dropped | {"kept": events - sum(dropped.values())}


def _refuse_nothing(rows: Sequence[tuple[dt.date, int, str, int, int, int]], config: PairsConfig) -> None:
    figures = totals(rows)
    if figures["kept"]:
        return
    dropped = [f"{rule} dropped {figures[rule]}: {why}" for rule, why in cleaning.RULES.items() if figures[rule]]
    window = f"{config.first_day} to {config.ds}"
    heading = f"pairs/ds={config.ds} would have 0 rows (expected >= 1): none of {figures['events']} events"
    raise InputError.of(dropped, heading=f"{heading} in click_log, {window}, is left; see [pairs] in warehouse.toml:")


if __name__ == "__main__":
    sys.exit(main())
