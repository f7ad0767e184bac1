"""Make days of the past again: say what would be done (plan), do it (run), or show what publishing would change (diff).

The days of a range are labelled with a bundle that is there; stages that are done with the same pins are left alone, so a
backfill that was cut off goes on where it was. An older day goes into the history and never changes what is live.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table as RichTable

from etl import config
from etl.errors import EXIT_OK
from etl.job import run_job
from labeling.backfill.config import BackfillConfig, passed_on
from labeling.backfill.diff import diff_days, show_diff
from labeling.backfill.plan import DayPlan, Planner, planned_days
from labeling.backfill.run import run_days
from labeling.terminal import console


def arg_parser() -> argparse.ArgumentParser:
    parser = config.arg_parser(BackfillConfig, "labeller backfill", __doc__ or "")
    parser.add_argument("action", choices=sorted(ACTIONS), help="what to do with the days of the range")
    parser.add_argument("--json", action="store_true", help="plan: print one JSON array with an object a day, last of all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = arg_parser()
    args = parser.parse_args(argv)

    def work(settings: BackfillConfig) -> Mapping[str, Any] | int:
        action = "plan" if settings.dry_run and args.action == "run" else args.action
        if args.json and action == "plan":
            print(json.dumps([as_json(day) for day in planned_days(Planner(settings, passed_on(args)))]))
            return EXIT_OK  # without a summary: Airflow takes the last line
        return ACTIONS[action](Planner(settings, passed_on(args)))

    return run_job(parser, BackfillConfig, work, argv)


def plan(planner: Planner) -> Mapping[str, Any]:
    """Print what would be done; writes nothing."""
    plans = planned_days(planner)
    show_plan(plans)
    seconds = [day.seconds for day in plans]
    return {
        "days": len(plans),
        "to_make": sum(bool(day.stages) for day in plans),
        "impossible": sum(bool(day.problem) for day in plans),
        "cost_seconds": "unknown" if None in seconds else round(sum(filter(None, seconds))),
    }


def as_json(day: DayPlan) -> dict[str, Any]:
    """A day of the plan for programs; ``stages`` says why each of them would run."""
    return {
        "ds": str(day.ds),
        "stages": dict(day.stages),
        "seconds": day.seconds,
        "items": day.items,
        "to_encode": day.to_encode,
        "bundle": day.bundle,
        "notes": list(day.notes),
        "problem": day.problem,
    }


def show_plan(plans: Sequence[DayPlan]) -> None:
    """A line a day, and below it why."""
    table = RichTable(box=None, pad_edge=False)
    for name in ("day", "pairs", "dataset", "vectors", "history", "published", "would run", "about"):
        table.add_column(name, overflow="fold")
    for day in plans:
        stages = "nothing" if not day.stages else " ".join(day.stages)
        seconds = "?" if day.seconds is None else f"{day.seconds:.0f} s"
        there = (day.exists.get(name, "?") for name in ("pairs", "dataset", "vectors", "history", "published"))
        table.add_row(str(day.ds), *there, "cannot" if day.problem else stages, "-" if day.problem else seconds)
    out = console()
    out.print(table)
    for day in plans:
        reasons: dict[str, list[str]] = {}
        for stage, why in day.stages.items():
            reasons.setdefault(why, []).append(stage)
        lines = [f"{', '.join(stages)}: {why}" for why, stages in reasons.items()] + list(day.notes)
        lines += [f"cannot be made: {day.problem}"] if day.problem else []
        for line in lines:
            out.print(f"{day.ds} {line}", markup=False)


def diff(planner: Planner) -> Mapping[str, Any]:
    """Print what publishing would change; writes nothing."""
    found = diff_days(planner)
    show_diff(found)
    return {"days": len(found), "changed_items": sum(day.changed for day in found)}


ACTIONS: dict[str, Callable[[Planner], Mapping[str, Any]]] = {"plan": plan, "run": run_days, "diff": diff}

if __name__ == "__main__":
    sys.exit(main())
