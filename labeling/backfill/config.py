"""What a backfill is asked for, and what each of its stages is told."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from etl.code import code_version
from etl.config import ConfigT, SparkConfig, arg_parser, flag, from_args

STAGES = ("pairs", "embed", "predict", "audit", "publish", "relate")
"""Commands that make a day, in their order; training is not among them: a backfill labels with a bundle that is there."""

TO_AUDIT = STAGES[: STAGES.index("publish")]
"""Those after which nothing is live yet."""


class BackfillConfig(SparkConfig):
    """Which days, with what, and how many side by side."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark")

    from_: dt.date
    """First day of the range, YYYY-MM-DD."""

    to: dt.date
    """Last day of the range, YYYY-MM-DD."""

    mode: Literal["today", "as-it-was"] = "today"
    """today: with the champion (or --bundle), inputs and settings of now; as-it-was: with bundle, settings and versions of
    inputs that each day's lineage names."""

    code: str = ""
    """Version of this package that has to run, as rows and `runs` name it in ``code``; empty: whichever does."""

    bundle: str = ""
    """Bundle to label with, by its id; empty: the champion."""

    window_days: Annotated[int, Field(ge=1)] | None = None
    """Days of clicks that end with each day; as [pairs] says unless given."""

    order: Literal["newest", "oldest"] = "newest"
    """Which day is made first."""

    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Days that are made side by side, each with a Spark driver of its own ([spark] driver_memory)."""

    publish: bool = True
    """Whether days are published; else they are made up to their audit, for `labeller backfill diff` to look at."""

    force: bool = False
    """Run every stage, also those that are done with the same pins."""

    examples: Annotated[int, Field(ge=0, le=1_000)] = 5
    """Items that a diff shows of each cause."""

    dry_run: bool = False
    """Only plan."""

    @model_validator(mode="after")
    def _days_and_mode_fit(self) -> Self:
        if self.to < self.from_:
            raise ValueError(f"the range is {self.from_} to {self.to} (expected --to on or after --from)")
        if self.mode == "as-it-was" and (self.bundle or self.window_days or self.pins):
            raise ValueError(
                "mode is as-it-was, which takes bundle, window and versions of each day's lineage: leave out yours"
            )
        return self

    @model_validator(mode="after")
    def _code_runs(self) -> Self:
        if self.code and self.code != code_version():
            raise ValueError(
                f"code is {self.code!r} (found {code_version()!r} here): run it from the checkout of that revision"
            )
        return self

    @property
    def days(self) -> list[dt.date]:
        """Days of the range, in the order in which they are made."""
        days = [self.from_ + dt.timedelta(days=n) for n in range((self.to - self.from_).days + 1)]
        return days[::-1] if self.order == "newest" else days


def as_flags(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings as JSON knows them -> the flags that say them."""
    flags: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, bool):
            flags.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
        elif isinstance(value, list):
            flags += [flag(name), *map(str, value)]
        elif isinstance(value, Mapping):
            flags += [part for key, entry in value.items() for part in (flag(name), f"{key}={entry}")]
        else:
            flags += [flag(name), str(value)]
    return tuple(flags)


def passed_on(args: argparse.Namespace) -> tuple[str, ...]:
    """Flags of the command line that its stages get too; settings of the file they read themselves."""
    given = {name: value for name, value in vars(args).items() if name in SparkConfig.model_fields and name != "root"}
    flags = [part for entry in given.pop("spark_conf", ()) for part in ("--spark-conf", entry)]
    flags += [part for entry in given.pop("pins", ()) for part in ("--pins", entry)]
    if args.config:
        flags += ["--config", str(args.config)]
    return (*flags, *as_flags(given))


def stage_settings(kind: type[ConfigT], flags: tuple[str, ...]) -> ConfigT:
    """The settings that a stage will have, given these flags.

    Raises:
        InputError: as :func:`etl.config.from_args`.
    """
    return from_args(kind, arg_parser(kind, "labeller backfill", "").parse_args(list(flags)))
