"""The cleaning of :mod:`etl.build_pairs` written for DuckDB, as somebody with one large machine would: the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from etl.cleaning import judge
from etl.pairs_config import PairsConfig
from etl.privacy import COUNTRIES
from etl.text import normalise


def judge_all(queries: list[str]) -> list[tuple[str, str, str | None]]:
    return [judge(query, normalise, COUNTRIES) for query in queries]


@cache
def judges(processes: int) -> ProcessPoolExecutor:
    """The processes that judge; not forked from this one, whose sockets to Spark's Java they would share."""
    return ProcessPoolExecutor(processes, mp_context=get_context("forkserver"))


def judged(raw: list[str], processes: int) -> pa.Table:
    """Queries with their normalised form, key and rule, see :func:`etl.cleaning.judge`: columns raw, norm, key, query_rule.

    What takes the time is Python's; Spark has it in as many processes, which it keeps too.
    """
    shares = [raw[n::processes] for n in range(processes)]
    rows = [row for part in judges(processes).map(judge_all, shares) for row in part]
    columns = ([query for share in shares for query in share], *zip(*rows, strict=True))
    return pa.table([pa.array(column, pa.string()) for column in columns], names=["raw", "norm", "key", "query_rule"])


def clean(directory: Path, config: PairsConfig, threads: int) -> Mapping[str, Any]:
    """Rows by rule, and number, clicks and users of the pairs, of a log of :func:`benchmarks.speed.click_log.write_log`."""
    with duckdb.connect(config={"threads": threads}) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(_EVENTS, [str(directory / "click_log/*/*.parquet"), config.max_actions_per_hour])
        raw = con.execute("SELECT DISTINCT query FROM events WHERE rule IS NULL").fetch_arrow_table()["query"].to_pylist()
        con.register("judged", judged(raw, threads))
        items = str(directory / "items.parquet")
        con.execute(_ACTS, [config.session_gap_minutes * 60_000, items, config.min_dwell_ms, config.min_return_ms])
        con.execute(_SUPPORTED, [config.min_users, config.max_query_entropy])
        con.execute(_PAIRS)
        counts = dict(con.execute("SELECT rule, count(*) FROM events WHERE rule IS NOT NULL GROUP BY rule").fetchall())
        for table in ("acts", "supported"):
            found = con.execute(f"SELECT rule, count(*) FROM {table} WHERE rule IS NOT NULL GROUP BY rule").fetchall()
            counts |= {rule: counts.get(rule, 0) + n for rule, n in found}
        totals = con.execute("SELECT count(*), sum(clicks)::BIGINT, sum(users)::BIGINT FROM pairs").fetchall()[0]
        return {"rules": counts, **dict(zip(("pairs", "clicks", "users"), totals, strict=True))}


_EVENTS = """
CREATE TABLE events AS
WITH read AS (
  SELECT *, CASE
    WHEN event NOT IN ('impression', 'click', 'cart', 'order') OR event_time IS NULL OR user_id IS NULL OR item_id IS NULL
      THEN 'unknown_event'
    WHEN event_time < '2000-01-01' OR event_time >= ds + INTERVAL 1 DAY + INTERVAL 1 HOUR THEN 'bad_date'
    WHEN event = 'impression' THEN 'impression'
    WHEN length(query) > 200 THEN 'long_query' WHEN query IS NULL THEN 'no_query' END AS rule
  FROM read_parquet($1, hive_partitioning = true)),
robots AS (
  SELECT user_id, date_trunc('hour', event_time) AS hour FROM read WHERE rule IS NULL GROUP BY ALL HAVING count(*) > $2)
SELECT read.* REPLACE (CASE WHEN robots.hour IS NOT NULL AND rule IS NULL THEN 'bot' ELSE rule END AS rule)
FROM read LEFT JOIN robots ON read.user_id = robots.user_id AND date_trunc('hour', event_time) = robots.hour
"""

_ACTS = """
CREATE TABLE acts AS
WITH joined AS (
  SELECT ds, epoch_ms(event_time) AS ms, hash(user_id) AS usr, hash(session_id) AS session, item_id, event, position,
    dwell_ms, norm AS query, hash(norm) AS query_id, query_rule AS rule
  FROM events JOIN judged ON events.query = judged.raw WHERE events.rule IS NULL),
paused AS (
  SELECT *, (ms - lag(ms) OVER w > $1)::INT AS pause,
    CASE WHEN lead(ms) OVER w - ms <= $1 AND lead(item_id) OVER w <> item_id THEN lead(ms) OVER w - ms END AS return_ms
  FROM joined WINDOW w AS (PARTITION BY usr, session, rule IS NULL ORDER BY ms, query_id, item_id, event, ds)),
visits AS (
  SELECT *, coalesce(sum(pause) OVER w, 0) AS visit,
    CASE event WHEN 'click' THEN 1 WHEN 'cart' THEN 2 ELSE 3 END AS strength,
    CASE WHEN event = 'click' AND dwell_ms < $3 THEN 'short_dwell'
      WHEN event = 'click' AND dwell_ms IS NULL AND return_ms < $4 THEN 'fast_return' END AS quick
  FROM paused WINDOW w AS (PARTITION BY usr, session, rule IS NULL ORDER BY ms, query_id, item_id, event, ds)),
ranked AS (
  SELECT *, first(strength) OVER w AS strongest, row_number() OVER w AS rank
  FROM visits WINDOW w AS (PARTITION BY usr, session, rule IS NULL, visit, query_id, item_id
    ORDER BY strength DESC, quick IS NOT NULL, ms, ds, position))
SELECT ds, query, query_id, ranked.item_id, title_id, usr, strength AS weight,
  coalesce(rule, CASE WHEN strongest = 1 THEN quick END, CASE WHEN rank > 1 THEN 'repeat_in_session' END,
    CASE WHEN title_id IS NULL THEN 'not_in_catalogue' END) AS rule
FROM ranked LEFT JOIN read_parquet($2) AS items ON ranked.item_id = items.item_id
"""

_SUPPORTED = """
CREATE TABLE supported AS
WITH kept AS (SELECT * EXCLUDE rule FROM acts WHERE rule IS NULL),
users AS (SELECT query_id, count(DISTINCT usr) AS users FROM kept GROUP BY query_id),
texts AS (SELECT query_id, title_id, count(*) AS n FROM kept GROUP BY ALL),
entropies AS (SELECT query_id, log2(sum(n)) - sum(n * log2(n)) / sum(n) AS entropy FROM texts GROUP BY query_id)
SELECT kept.*, CASE WHEN users < $1 THEN 'few_users' WHEN entropy > $2 THEN 'diffuse_query' END AS rule
FROM kept JOIN users USING (query_id) JOIN entropies USING (query_id)
"""

_PAIRS = """
CREATE TABLE pairs AS
SELECT query_id, query, item_id, title_id, count(*) AS clicks, count(DISTINCT usr) AS users, sum(weight) AS weight,
  min(ds) AS first_day
FROM supported WHERE rule IS NULL GROUP BY ALL
"""
