"""Acts that came after their own day: how many, of which days, and whose pairs lack them."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.contracts import PAIRS
from etl.pairs_config import PairsConfig
from etl.tables import read
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

_DAY = dt.timedelta(days=1)


def count_arrivals(marked: DataFrame, newest: dt.date) -> tuple[Counter[tuple[dt.date, str | None]], dict[dt.date, int]]:
    """Events by (partition, rule), and acts of the partition ``newest`` by their own, earlier day."""
    day = F.to_date("event_time")
    late_day = F.when(F.col("rule").isNull() & (day < F.col("ds")), day)
    rows = marked.groupBy("ds", "rule", late_day.alias("late_day")).count().collect()
    counts: Counter[tuple[dt.date, str | None]] = Counter()
    for row in rows:
        counts[row["ds"], row["rule"]] += row["count"]
    late = {row["late_day"]: row["count"] for row in rows if row["late_day"] is not None and row["ds"] == newest}
    return counts, dict(sorted(late.items()))


def affected_days(late: Mapping[dt.date, int], config: PairsConfig) -> list[dt.date]:
    """Days whose pairs, if they have been made, lack what came late, by its own day; those of ds are being made with it."""
    if not late:
        return []
    days = (min(late) + n * _DAY for n in range((config.last_arrival - min(late)).days))
    return [day for day in days if day != config.ds]


def days_with_pairs(spark: SparkSession, warehouse: Warehouse, days: Sequence[dt.date]) -> list[dt.date]:
    """Those of ``days`` that have rows in PAIRS: on a first night none can lack anything."""
    if not days or not warehouse.has(PAIRS):
        return []
    pairs = read(spark, warehouse.table(PAIRS), PAIRS).where(F.col("ds").isin(list(days)))
    return sorted(row["ds"] for row in pairs.select("ds").distinct().collect())


def say_what_came_late(late: Mapping[dt.date, int], affected: Sequence[dt.date], config: PairsConfig) -> None:
    """Name the days whose pairs were made before these events came, and how to make them again."""
    if not affected:
        return
    log.info(
        "%d acts in click_log/ds=%s are of earlier days (%s); pairs of %s lack them: rerun with `labeller pairs --ds DAY "
        "--arrived-by %s` where that matters",
        sum(late.values()), config.last_arrival, ", ".join(f"{day}: {n}" for day, n in late.items()),
        ", ".join(map(str, affected)), config.last_arrival,
    )  # fmt: skip
