"""How long what is kept: settings of the upkeep, and what a reader needs of each table at least."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from etl.config import SparkJobConfig
from etl.contracts import (
    FILE_RETENTION_DAYS,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    LABEL_CHANGES,
    OUTPUTS,
    PAIRS,
    QUALITY,
    RUNS,
    TITLE_GROUPS,
)

STAGING, CHECKPOINTS = "staging", "checkpoints"
"""What has days and is no table of the contracts: rows that a run staged, checkpoints of trainings that were cut off."""

DATED = tuple(table for table in OUTPUTS if "ds" in table.partition_by)
YEAR_AND_A_MONTH = 400  # so that a season stands beside the one of the year before
DEFAULT_DAYS = dict.fromkeys((table.name for table in DATED), YEAR_AND_A_MONTH) | {
    # A row per pair of a window, and per text: training and evaluation read a day's, late clicks name days of a window.
    PAIRS.name: 35,
    TITLE_GROUPS.name: 35,
    # A row per item and rank: a rollback takes a day of them, an analyst compares quarters.
    ITEM_TERMS.name: 90,
    ITEM_CATEGORIES.name: 90,
    # Ten rows per item: made from what is kept by one command, and read as of the newest day.
    "similar_items": 14,
    "query_items": 14,
    "copy_keywords": 14,
    STAGING: 7,
    CHECKPOINTS: 7,
}


class MaintainConfig(SparkJobConfig):
    """Settings of `labeller maintain`; days are counted back from ``ds``, or from the day that is live if that is older.

    So neither a warehouse that stood still nor a slip of the pen in ``ds`` loses its history.
    """

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "maintain")

    keep_days: dict[str, Annotated[int, Field(ge=2)]] = {}
    """Days of a table to keep, where its default does not suit: 35 of pairs and title_groups, 90 of item_terms and
    item_categories, 14 of similar_items, query_items and copy_keywords, 400 of every other; of staging and checkpoints 7."""

    rollback_days: Annotated[int, Field(ge=1)] = 30
    """Days that a rollback must be able to go back: history, records and files of what was live are kept that long."""

    vacuum_days: Annotated[int, Field(ge=FILE_RETENTION_DAYS)] = FILE_RETENTION_DAYS
    """Age of files that no version of a table younger than that needs, from which on they are removed. A running job reads
    one version of its inputs until it ends, and Delta keeps versions 30 days: more is of no use."""

    compact_days: Annotated[int, Field(ge=0)] = 3
    """Newest days whose small files are put together; older ones were when they were new."""

    keep_bundles: Annotated[int, Field(ge=1)] = 3
    """Newest bundles to keep beside those that something refers to."""

    keep_datasets: Annotated[int, Field(ge=1)] = 2
    """Newest datasets to keep beside those of champion, candidate and best champion."""

    dry_run: bool = False
    """Only say what would go, with rows and bytes; nothing is written."""

    @property
    def writes(self) -> bool:
        """A dry run does not."""
        return not self.dry_run

    @property
    def days(self) -> dict[str, int]:
        """Days to keep, of everything that has days."""
        return DEFAULT_DAYS | self.keep_days

    @model_validator(mode="after")
    def _what_readers_need(self) -> MaintainConfig:
        if unknown := sorted(set(self.keep_days) - set(DEFAULT_DAYS)):
            raise ValueError(f"keep_days names {unknown}, which have no days (expected some of {sorted(DEFAULT_DAYS)})")
        history = self.rollback_days + 1  # the day that is live, and those to go back to
        problems = [
            f"keep_days of {table.name} is {self.days[table.name]} (expected >= {history}: rollback_days and the live day)"
            for table in (ITEM_TERMS, ITEM_CATEGORIES)
            if self.days[table.name] < history
        ]
        longest = max(self.days[table.name] for table in (ITEM_TERMS, ITEM_CATEGORIES))
        problems += [
            f"keep_days of {table.name} is {self.days[table.name]} (expected >= {longest}: the history's records)"
            for table in (RUNS, QUALITY, LABEL_CHANGES)
            if self.days[table.name] < longest
        ]
        if self.vacuum_days < self.rollback_days:
            problems.append(f"vacuum_days is {self.vacuum_days} (expected >= {self.rollback_days}: rollback_days)")
        if problems:
            raise ValueError("; ".join(problems))
        return self
