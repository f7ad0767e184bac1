"""The stages of a night on generated warehouses of several sizes, each metered; and what their outputs say there was."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.growth.meter import Cost, metered
from etl.contracts import CLICK_LOG, RUNS, VOCABULARY

DS = dt.date(2024, 5, 7)
DAYS = 7
"""All of them are the window of DS."""
TINY = 2_000
"""Clicks of the warehouse by which the fixed cost is known: the fewest that a sample has."""
TERMS = 100
"""At every size: with a vocabulary that grows too, retrieval would grow with both."""
CLICKS_PER_ITEM = 16
FEWEST_ITEMS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A command of the night."""

    name: str
    of: str = ""
    """What its cost is to grow with, linearly; empty: the night needs it, nothing is claimed."""
    flags: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    """Tables that are removed before: an attempt that was ended may have left rows, with which there is less to do."""
    seconds: tuple[float, float]
    """Of the wall, rough: fixed, and for each 100,000 clicks."""


LABELS = ("item_terms", "item_categories", "labels_current", "label_changes", "annotation_sample")
RELATED = ("similar_items", "query_items", "copy_keywords", "category_mismatch", "term_candidates", "item_index")
# The gates of the audit are opened: a shop of 500 items need not pass them, and it is the cost that is measured.
OPEN = ("--max-abstention", "1", "--max-top-share", "1", "--block-calibration-error", "1")
CHAIN = (
    Stage(name="sample", seconds=(3, 4)),
    # The same threshold at every size, where `sample` writes another for larger ones.
    Stage(
        name="pairs",
        of="clicks",
        flags=("--min-users", "2"),
        writes=("pairs", "title_groups", "etl_counts"),
        seconds=(45, 12),
    ),
    Stage(name="dataset", of="clicks", seconds=(45, 5)),
    # Few epochs, since their cost is that of one times their number.
    Stage(name="train", of="pairs", flags=("--no-resume", "--epochs", "2"), seconds=(35, 40)),
    Stage(name="calibrate", seconds=(50, 4)),
    Stage(name="promote", seconds=(9, 1)),
    Stage(name="embed", of="encoded", writes=("item_embeddings",), seconds=(35, 6)),
    Stage(name="predict", of="items", writes=("staging",), seconds=(40, 5)),
    Stage(name="audit", of="items", flags=OPEN, writes=("quality",), seconds=(40, 3)),
    Stage(name="publish", of="items", writes=LABELS, seconds=(55, 5)),
    Stage(name="relate", of="items", writes=RELATED, seconds=(75, 15)),
)
STAGES = {stage.name: stage for stage in CHAIN}
CLAIMED = tuple(stage.name for stage in CHAIN if stage.of)
CALLED = {"encoded": "changed items"}
"""Units in words."""


def items(clicks: int) -> int:
    return max(clicks // CLICKS_PER_ITEM, FEWEST_ITEMS)


def chain_to(names: Sequence[str]) -> list[Stage]:
    """What has to run for the last of these stages to run; nothing where there is none."""
    last = max((number for number, stage in enumerate(CHAIN) if stage.name in names), default=-1)
    return list(CHAIN[: last + 1])


def warehouse(root: Path, turn: int, clicks: int, variant: str = "") -> Path:
    return root / f"round-{turn}" / f"{clicks}-clicks{variant}"


def run(stage: Stage, where: Path, more: Sequence[str] = ()) -> Cost:
    """Run a stage on a warehouse as its user would."""
    for name in stage.writes:
        shutil.rmtree(where / name, ignore_errors=True)
    argv = [sys.executable, "-m", "labeling.cli", stage.name, "--root", str(where), "--ds", str(DS)]
    return metered([*argv, *stage.flags, *more], where.with_name(f"{where.name}-{stage.name}.log"))


def generate(where: Path, clicks: int) -> Cost:
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    sizes = ("--clicks", clicks, "--items", items(clicks), "--terms", TERMS, "--days", DAYS)
    return run(STAGES["sample"], where, list(map(str, sizes)))


def counts(where: Path) -> dict[str, float]:
    """Clicks of the window, pairs trained on, items, and texts encoded, as far as there are stages that say so."""
    log = pl.scan_parquet(where / CLICK_LOG.name / "**" / "*.parquet")
    clicks = log.filter(pl.col("event").cast(pl.String) == "click").select(pl.len()).collect().item()
    found: dict[str, float] = {"clicks": clicks}
    if not (where / RUNS.name).is_dir():
        return found
    rows = pl.read_delta(str(where / RUNS.name)).filter(pl.col("ds") == DS)
    of_stage = {stage: json.loads(text) for stage, text in rows.select("stage", "counts").iter_rows()}
    for stage, name in (("dataset", "pairs"), ("embed", "items"), ("embed", "encoded"), ("embed", "reused")):
        if stage in of_stage:
            found[name] = of_stage[stage][name]
    return found


def copy(source: Path, target: Path, without: Sequence[str] = ()) -> None:
    """A warehouse of its own for what would change another; nothing where it is there."""
    if target.exists():
        return
    aside = target.with_name(f"{target.name}.copying")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside, ignore=shutil.ignore_patterns(*without))
    aside.rename(target)


def retire_a_term(where: Path) -> None:
    """One of the most popular becomes inactive; again changes nothing."""
    file = where / VOCABULARY.name / "part-0.parquet"
    number = pl.int_range(pl.len())
    retired = pl.when(number == 2).then(pl.lit("retired")).otherwise("status").alias("status")
    pl.read_parquet(file).with_columns(retired).write_parquet(file)
