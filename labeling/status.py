"""How the warehouse stands: what is live and how old it is, the last runs, the next training, open checks.

Starts no Spark.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from rich.console import Group
from rich.markup import escape
from rich.table import Table as RichTable

from etl.config import from_args
from etl.contracts import QUALITY, RUNS
from etl.errors import EXIT_OK, InputError
from etl.polars_scan import scan
from etl.warehouse import Warehouse, is_delta
from labeling.live_log import LiveCommit, live_state
from labeling.terminal import add_root_argument, console, day
from model.bundle import CANDIDATE, CHAMPION, alias
from model.train_due import TrainDueConfig, last_training, reason_to_train


@dataclass(frozen=True, slots=True)
class Status:
    """How a warehouse stands on a day."""

    now: dt.date
    live: LiveCommit | None
    """None before the first publishing."""
    age_days: int | None
    """Days from the day that is live to ``now``; the night after a day labels it, so 1 is as new as it gets."""
    champion: str | None
    training_due: dt.date | None
    """Day from which training is due by age; None without a champion."""
    training_reason: str | None
    """Why it is due now; None if it is not."""
    stages: Sequence[Mapping[str, Any]]
    """Row of RUNS that each stage finished last, in order of time."""
    audit: Mapping[str, Any] | None
    """``ds`` and ``run_id`` of the last audit of the day that is live, or of a newer one; before the first, of the last."""
    open_checks: Sequence[Mapping[str, Any]]
    """Rows of QUALITY of that audit that did not pass, hard ones first."""


def status(warehouse: Warehouse, due: TrainDueConfig) -> Status:
    """How the warehouse stands on the day of ``due``, whose settings say when the next training is.

    Raises:
        InputError: an alias of the bundles points nowhere.
    """
    live, champion = live_state(warehouse).now, alias(warehouse, CHAMPION)
    rows = _rows(warehouse)
    last = {row["stage"]: row for row in rows}  # the newest is the last to be put there
    # Of an older day, made again by a backfill, it says nothing of what is live or refused to be.
    audits = [row for row in rows if row["stage"] == "audit" and (live is None or row["ds"] >= live.ds)]
    audit = audits[-1] if audits else last.get("audit")
    next_due = None
    if champion:
        next_due = last_training(champion, alias(warehouse, CANDIDATE)) + dt.timedelta(days=due.max_age_days)
    return Status(
        now=due.ds,
        live=live,
        age_days=(due.ds - live.ds).days if live else None,
        champion=champion["bundle"] if champion else None,
        training_due=next_due,
        training_reason=reason_to_train(due, warehouse),
        stages=sorted(last.values(), key=lambda row: row["finished_at"]),
        audit={name: audit[name] for name in ("ds", "run_id")} if audit else None,
        open_checks=_open_checks(warehouse, audit) if audit else [],
    )


def _rows(warehouse: Warehouse) -> list[dict[str, Any]]:
    """RUNS in order of time."""
    path = warehouse.table(RUNS)
    return scan(path).sort("finished_at", "ds").collect().to_dicts() if is_delta(path) else []


def _open_checks(warehouse: Warehouse, audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    of_run = (pl.col("ds") == audit["ds"]) & (pl.col("run_id") == audit["run_id"]) & ~pl.col("passed")
    rows = scan(warehouse.table(QUALITY)).filter(of_run)
    return rows.sort("hard", "check", descending=[True, False]).collect().to_dicts()


# ---------------------------------------------------------------- for a terminal


def as_tables(found: Status) -> Group:
    """Headlines, then the last run of each stage, then what the audit has open."""
    heads = RichTable("", "", box=None, show_header=False, pad_edge=False)
    live = found.live
    heads.add_row("live", f"ds={live.ds}, run {live.run_id}, bundle {live.bundle}" if live else "nothing yet")
    if live:
        heads.add_row("since", f"{live.at:%Y-%m-%d %H:%M} UTC, by {live.stage}")
        heads.add_row("age", f"{found.age_days} days on {found.now}")
    another = live and found.champion and live.bundle != found.champion
    heads.add_row("champion", f"{found.champion or 'none yet'}{' (another bundle made what is live)' if another else ''}")
    heads.add_row("training", _training(found))
    heads.add_row("audit", _audit(found))
    stages = RichTable("stage", "ds", "finished (UTC)", "seconds", "run", box=None, pad_edge=False)
    for row in found.stages:
        at, run = f"{row['finished_at']:%Y-%m-%d %H:%M}", row["run_id"] or ""
        stages.add_row(row["stage"], str(row["ds"]), at, f"{row['seconds']:.0f}", run)
    checks = RichTable("", "check", "found", "expected", box=None, pad_edge=False)
    for row in found.open_checks:
        what = "[bold red]FAILED[/]" if row["hard"] else "[yellow]warning[/]"
        checks.add_row(what, row["check"], str(row["value"]), escape(row["expected"]))
    return Group(heads, "", stages, *(("", checks) if found.open_checks else ()))


def _training(found: Status) -> str:
    if found.training_reason:
        return f"due now: {found.training_reason}"
    return f"due from ds={found.training_due} on"


def _audit(found: Status) -> str:
    if found.audit is None:
        return "none yet"
    failed = sum(row["hard"] for row in found.open_checks)
    return (
        f"ds={found.audit['ds']}, run {found.audit['run_id']}: {failed} checks failed, "
        f"{len(found.open_checks) - failed} warnings"
    )


def _live(commit: LiveCommit | None) -> dict[str, Any] | None:
    """What is live, for a program; its settings and inputs are on every row."""
    if commit is None:
        return None
    return {name: getattr(commit, name) for name in ("ds", "run_id", "bundle", "stage", "at", "version", "rolled_back")}


# ---------------------------------------------------------------- the command


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller status", description=__doc__, allow_abbrev=False)
    add_root_argument(parser)
    today = dt.datetime.now(dt.UTC).date()
    parser.add_argument(
        "--now", type=day, default=today, metavar="YYYY-MM-DD", help="day to count from (default: today, UTC)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    try:
        due = from_args(TrainDueConfig, argparse.Namespace(config=None, root=args.root, ds=args.now))
        found = status(Warehouse.of(due), due)
    except InputError as error:
        print(f"labeller status: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(asdict(found) | {"live": _live(found.live)}, default=str, indent=1))
    else:
        console().print(as_tables(found))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
