"""Check every input table of a day before anything expensive starts: existence, columns, types, rows, ids, tree.

Names table, column and value of everything that is wrong, all at once. Single rows that a later stage can set aside
(titles that are null, empty or too long) are counted, not refused.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config
from etl.build_pairs import read_window
from etl.catalogue import read_catalogue, with_title_id
from etl.cleaning import EVENT_KINDS
from etl.config import SparkJobConfig, from_args
from etl.contracts import MAX_TITLE_CHARACTERS, OVERRIDES
from etl.errors import InputError, TryLater
from etl.inputs import read_input
from etl.job import run_job
from etl.pairs_config import PairsConfig
from etl.quarantine import naming_bad_files, with_quarantine
from etl.session import start_session
from etl.taxonomy import load_taxonomy
from etl.text_config import TextConfig
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

MOST_KINDS = 20
"""Most unknown kinds of events that are told by name: logs have a dozen, queries and users are thousands."""

_KIND = r"\A[a-z_-]{1,32}\z"


class CheckConfig(TextConfig, SparkJobConfig):
    """Settings of the job: those of every Spark job, and what of an item and of a text counts."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "text")

    @property
    def writes(self) -> bool:
        """It only looks."""
        return False


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(CheckConfig, "labeller check", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), CheckConfig, run, argv)


def run(config: CheckConfig) -> Mapping[str, Any]:
    """Check the inputs; returns the figures of the summary.

    Raises:
        InputError: everything that stands in the way of a run.
    """
    if {"taxonomy", "vocabulary"} <= set(config.absent):
        raise InputError(
            "both taxonomy and vocabulary are declared absent (expected one at least): nothing could be labelled"
        )
    warehouse = Warehouse.of(config)
    spark = start_session("labeller check", config)
    figures: dict[str, int] = {}
    problems = []
    for check in _checks(spark, warehouse, config):
        try:
            with naming_bad_files():
                figures |= check()
        except TryLater:
            raise
        except InputError as error:
            problems.append(str(error).replace("\n", "\n    "))
    if problems:
        raise InputError.of(problems, heading=f"inputs under {warehouse.root} cannot be used for ds={config.ds}:")
    return figures


def _checks(spark: SparkSession, warehouse: Warehouse, config: CheckConfig) -> list[Callable[[], dict[str, int]]]:
    """One function per table; each returns its figures or raises InputError."""

    def clicks() -> dict[str, int]:
        window = from_args(PairsConfig, argparse.Namespace(config=None, root=config.root, ds=config.ds))

        def count(without: frozenset[str]) -> int:
            events = read_window(spark, warehouse, window, without)
            return count_events(events.where(F.col("ds") == F.lit(config.ds)), config.ds)

        found, left_out = with_quarantine(count, window.max_bad_files)
        return {"events": found, "bad_files": len(left_out)}

    def catalogue() -> dict[str, int]:
        return title_figures(spark, warehouse, config)

    def vocabulary() -> dict[str, int]:
        return {"terms": len(load_vocabulary(spark, warehouse).terms)}

    def taxonomy() -> dict[str, int]:
        return {"categories": len(load_taxonomy(spark, warehouse).nodes)}

    def overrides() -> dict[str, int]:
        return {"overrides": read_input(spark, warehouse, OVERRIDES).count()}

    checks = [clicks, catalogue]
    for name, check in (("vocabulary", vocabulary), ("taxonomy", taxonomy)):
        if name in config.absent:
            log.info("%s is declared absent in warehouse.toml: not checked, and that half of the labels is skipped", name)
        else:
            checks.append(check)
    return [*checks, overrides] if warehouse.has(OVERRIDES) else checks


def count_events(events: DataFrame, ds: dt.date) -> int:
    """Number of CLICK_LOG events of ``ds``.

    Raises:
        InputError: not one is of a known kind.
    """
    kinds = events.groupBy("event").count()
    is_known = F.coalesce(F.col("event").isin(*EVENT_KINDS), F.lit(False))
    total, known = kinds.agg(F.sum("count"), F.sum(F.when(is_known, F.col("count")).otherwise(0))).collect()[0]
    if known >= total / 2:
        return int(total)
    found = _told(kinds.where(~is_known), total - known)
    expected = f"expected {', '.join(EVENT_KINDS[:-1])} or {EVENT_KINDS[-1]}; found {found}"
    if not known:
        raise InputError(
            f"table click_log, ds={ds}: column event is of a known kind in none of {total} rows ({expected}): write them "
            "under these names, or read the log through a view that does"
        )
    log.warning("click_log/ds=%s: %d of %d events are of no known kind and make no pairs (%s)",
                ds, total - known, total, expected)  # fmt: skip
    return int(total)


def _told(others: DataFrame, events: int) -> str:
    """The most frequent unknown kinds (event, count), in words, of so many events.

    A column that is mapped to the wrong one of theirs may hold queries or users: what does not look like a kind is counted
    alone, and so is all of a column of more values than a log has kinds.
    """
    named = []
    if others.count() <= MOST_KINDS:
        named = others.where(F.col("event").rlike(_KIND)).orderBy(F.desc("count"), "event").limit(5).collect()
    words = [f"{row['event']!r} {row['count']} times" for row in named]
    if hidden := events - sum(row["count"] for row in named):
        words.append(f"other values {hidden} times")
    return ", ".join(words)


def title_figures(spark: SparkSession, warehouse: Warehouse, config: CheckConfig) -> dict[str, int]:
    """Items of the day, and how many of their titles are good, null, without a word, or too long.

    Raises:
        InputError: as :func:`etl.catalogue.read_catalogue`; not one title is good.
    """
    items = read_catalogue(spark, warehouse, config.ds, config.product_text)
    long = F.length("text") > MAX_TITLE_CHARACTERS
    counts = with_title_id(items.select("text"), config.normaliser).agg(
        F.count(F.lit(1)).alias("items"),
        F.count("title_id").alias("titles_good"),
        F.count_if(F.col("text").isNull()).alias("titles_null"),
        F.count_if(F.col("title_id").isNull() & F.col("text").isNotNull() & ~long).alias("titles_empty"),
        F.count_if(long).alias("titles_too_long"),
    )
    figures: dict[str, int] = counts.collect()[0].asDict()
    bad = {name: count for name, count in figures.items() if name.startswith("titles_") and name != "titles_good"}
    if not figures["titles_good"]:
        raise InputError(
            f"table catalogue, ds={config.ds}: {config.product_text} is good in none of {figures['items']} rows "
            f"(expected >= 1; found {bad}; at most {MAX_TITLE_CHARACTERS} characters with at least one word)"
        )
    if any(bad.values()):
        log.warning("catalogue/ds=%s: %s; these items get an outcome with the reason, and no pairs", config.ds, bad)
    return figures


if __name__ == "__main__":
    sys.exit(main())
