"""Say whether a night has to train: exit code 0 if so, 99 if the last training is young enough (Airflow skips on 99)."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from etl import config as settings
from etl.config import JobConfig
from etl.errors import EXIT_NOTHING_DUE
from etl.job import run_job
from etl.warehouse import Warehouse
from model.bundle import CANDIDATE, CHAMPION, alias, champion

log = logging.getLogger(__name__)


class TrainDueConfig(JobConfig):
    """Settings of `labeller train-due`."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "train_due")

    max_age_days: Annotated[int, Field(ge=1)] = 7
    """Days after the last training (the champion's, or a refused candidate's) at which the next is due."""

    force: bool = False
    """Train in any case."""


def arg_parser() -> argparse.ArgumentParser:
    return settings.arg_parser(TrainDueConfig, "labeller train-due", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), TrainDueConfig, run, argv)


def run(config: TrainDueConfig) -> Mapping[str, Any] | int:
    """The reason to train, or the exit code that says there is none.

    Raises:
        InputError: the champion's alias points nowhere.
    """
    warehouse = Warehouse.of(config)
    live = alias(warehouse, CHAMPION) if champion(warehouse) else None
    reason = why(config, live, alias(warehouse, CANDIDATE))
    if reason is None:
        log.info(
            "the last training is less than %d days old on %s: dataset, train, calibrate and promote are skipped",
            config.max_age_days, config.ds,
        )  # fmt: skip
        return EXIT_NOTHING_DUE
    return {"due": "yes", "reason": repr(reason)}


def why(
    config: TrainDueConfig, champion_entry: Mapping[str, Any] | None, candidate_entry: Mapping[str, Any] | None = None
) -> str | None:
    """Why training is due; None if it is not. A day before the champion's own never trains: it is a backfill.

    A refused candidate counts as a training: the next night's data are nearly the same and would be refused again.
    """
    if config.force:
        return "forced"
    if champion_entry is None:
        return "no champion"
    trained = champion_entry["ds"]
    if candidate_entry and candidate_entry.get("refused"):
        trained = max(trained, candidate_entry["ds"])
    age = (config.ds - dt.date.fromisoformat(trained)).days
    return f"the last training is {age} days old" if age >= config.max_age_days else None


if __name__ == "__main__":
    sys.exit(main())
