"""Make the days of a range: each holds its lease and runs what its plan names as commands, several days side by side."""

from __future__ import annotations

import datetime as dt
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.errors import (
    EXIT_BAD_INPUT,
    EXIT_GATE_REFUSED,
    EXIT_OK,
    EXIT_TRY_LATER,
    GateRefused,
    InputError,
    StageFailed,
    TryLater,
)
from etl.lease import Lease, hold_day, lock_directory
from labeling.backfill.config import STAGES, TO_AUDIT
from labeling.backfill.plan import DayPlan, Planner

log = logging.getLogger(__name__)

CODE = Path(__file__).resolve().parents[1]
"""Where the packages of the stages lie."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a day."""

    ds: dt.date
    ran: Sequence[str]
    """Stages that ended well."""
    code: int = EXIT_OK
    """Exit code of the day."""
    failure: str = ""
    """What failed, and where."""


def run_days(planner: Planner) -> dict[str, Any]:
    """Make every day of the range; one that fails leaves the others as they are.

    Raises:
        InputError, TryLater, GateRefused, StageFailed: as :func:`refuse_failures`.
    """
    settings = planner.settings
    looking = threading.Lock()  # one plan at a time: they share a session

    def make(ds: dt.date) -> Outcome:
        try:
            with hold_day(lock_directory(settings), ds, f"labeller backfill run --root {settings.root}, ds={ds}") as lease:
                return _make(planner, ds, lease, looking)
        except InputError as error:
            return Outcome(ds, (), error.exit_code, str(error))

    with ThreadPoolExecutor(settings.parallel) as pool:
        outcomes = list(pool.map(make, settings.days))
    for outcome in outcomes:
        log.info("ds=%s: %s%s", outcome.ds, ", ".join(outcome.ran) or "nothing to do", outcome.failure and "; it failed")
    refuse_failures(outcomes)
    stages = sum(len(outcome.ran) for outcome in outcomes)
    return {"days": len(outcomes), "changed": sum(bool(outcome.ran) for outcome in outcomes), "stages": stages}


def _make(planner: Planner, ds: dt.date, lease: Lease, looking: threading.Lock) -> Outcome:
    ran: list[str] = []
    wanted = STAGES if planner.settings.publish else TO_AUDIT
    with looking:
        plan = planner.day(ds)
    while not plan.problem:
        stage = next((name for name in wanted if name in plan.stages and name not in ran), None)
        if stage is None:
            return Outcome(ds, ran)
        log.info("ds=%s: %s, since %s", ds, stage, plan.stages[stage])
        if code := _run(planner, plan, stage, lease):
            return Outcome(ds, ran, code, f"`labeller {stage}` ended with {code}")
        ran.append(stage)
        if stage == "pairs":  # only now it can be told whether the labels come out as they are
            with looking:
                plan = planner.day(ds)
    return Outcome(ds, ran, EXIT_BAD_INPUT, plan.problem)


def _run(planner: Planner, plan: DayPlan, stage: str, lease: Lease) -> int:
    """Exit code of a stage, whose lines come to our log with its day before them."""
    flags = ("--root", planner.settings.root, "--ds", str(plan.ds), *planner.passed, *plan.flags[stage])
    options = lease.child()
    # This very code, wherever the command was started (-P leaves the current directory out).
    options["env"]["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "labeling.cli", stage, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options,
    ) as process:  # fmt: skip
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            log.info("ds=%s %s | %s", plan.ds, stage, line.rstrip())
    return process.returncode


def refuse_failures(outcomes: Sequence[Outcome]) -> None:
    """Nothing if all days were made.

    Raises:
        InputError: days lack something.
        TryLater: another process has them, or a store does not answer.
        GateRefused: the audit refused days.
        StageFailed: stages failed otherwise, or for different reasons.
    """
    failed = [outcome for outcome in outcomes if outcome.code != EXIT_OK]
    if not failed:
        return
    heading = f"{len(failed)} of {len(outcomes)} days were not made, the others are as planned:"
    said = heading + "".join(f"\n  - ds={outcome.ds}: {outcome.failure}" for outcome in failed)
    codes = {outcome.code for outcome in failed}
    if codes == {EXIT_BAD_INPUT}:
        raise InputError(said)
    if codes == {EXIT_TRY_LATER}:
        raise TryLater(said)
    raise GateRefused(said) if codes == {EXIT_GATE_REFUSED} else StageFailed(said)
