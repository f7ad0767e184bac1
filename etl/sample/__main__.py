"""Make a sample warehouse: a generated shop in Chinese and English, with the truth to measure against."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from etl import config, storage
from etl.config import JobConfig
from etl.errors import InputError
from etl.job import run_job
from etl.sample.catalogue import stock
from etl.sample.clicks import click_log, plan_traffic
from etl.sample.terms import capacity
from etl.sample.world import build_world
from etl.sample.writing import TABLES, lay_down, present, refuse_foreign

log = logging.getLogger(__name__)

FEWEST_ITEMS_PER_TERM = 5  # below it a term may be left with a single item


class SampleConfig(JobConfig):
    """Settings of the generator; the same settings give the same bytes."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "sample")

    ds: dt.date = dt.date(2024, 5, 8)
    """Last day of the sample, YYYY-MM-DD (UTC)."""

    clicks: Annotated[int, Field(ge=2_000, le=10_000_000)] = 320_000
    """Clicks in the log, about; there are six to eight times as many events."""

    items: Annotated[int, Field(ge=50, le=1_000_000)] | None = None
    """Items on sale on each day (default: clicks / 16, at most 20,000)."""

    terms: Annotated[int, Field(ge=10)] | None = None
    """Terms of the vocabulary (default: clicks / 50 up to 40, then clicks / 320, at most 1,000)."""

    days: Annotated[int, Field(ge=1, le=60)] = 8
    """Days of log and catalogue; eight give the last two a window of seven each."""

    seed: Annotated[int, Field(ge=0)] = 13
    """Seed of everything random."""

    if_missing: bool = False
    """Do nothing, and say so, where the input tables are there already."""

    @property
    def writes(self) -> bool:
        """Inputs of many days, where there is no warehouse yet."""
        return False


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(SampleConfig, "labeller sample", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), SampleConfig, run, argv)


def run(settings: SampleConfig) -> Mapping[str, Any]:
    """Make the sample under ``root``.

    Raises:
        InputError: ``root`` holds tables that were not generated or is on a store, or the sizes do not go together.
    """
    if storage.is_uri(settings.root):
        raise InputError(f"a sample is generated on a mounted path (found {settings.root}): copy its tables to the store")
    root = Path(settings.root).expanduser().resolve()
    if settings.if_missing and len(present(root)) == len(TABLES):
        log.info("input tables are in %s already: nothing is generated", root)
        return {"generated": 0, "root": root}
    refuse_foreign(root)
    n_items, n_terms = sizes(settings)
    root.mkdir(parents=True, exist_ok=True)
    days = [settings.ds - dt.timedelta(days=back) for back in reversed(range(settings.days))]
    world = build_world(settings.seed, n_terms, n_items)
    shelf = stock(world, settings.seed, n_items, len(days))
    log.info("drew %d items of %d terms in %d series", len(shelf.items), n_terms, len(world.series))
    traffic = plan_traffic(world, shelf, settings.seed, settings.clicks, len(days))
    events = click_log(world, shelf, settings.seed, traffic, days)
    elsewhere = {"root", "absent", "pins", "local_dir", "lock_dir", "if_missing"}
    kept = settings.model_dump(mode="json", exclude=elsewhere) | {"items": n_items, "terms": n_terms}
    figures = lay_down(root, world, shelf, events, days, kept, min_users=3 if settings.clicks >= 50_000 else 2)
    return {"generated": 1, "root": root, "days": len(days), "terms": n_terms, **figures}


def sizes(settings: SampleConfig) -> tuple[int, int]:
    """Items and terms, by default in proportion to the clicks.

    Raises:
        InputError: more terms than the words can make, or too few items for them.
    """
    terms = settings.terms or min(1_000, max(min(40, settings.clicks // 50), settings.clicks // 320))
    items = settings.items or min(20_000, max(settings.clicks // 16, FEWEST_ITEMS_PER_TERM * terms))
    problems = []
    if terms > capacity():
        problems.append(f"terms is {terms} (expected at most {capacity()}: that is what the generator's words make)")
    if items < FEWEST_ITEMS_PER_TERM * terms:
        problems.append(f"items is {items} (expected at least {FEWEST_ITEMS_PER_TERM} for each of {terms} terms)")
    if problems:
        raise InputError.of(problems, heading="the sizes of the sample do not go together:")
    return items, terms


if __name__ == "__main__":
    sys.exit(main())
