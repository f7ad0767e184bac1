"""What one measurement beside a peer found, as a line of JSON that is kept: the history of :mod:`benchmarks.bench`.

``ratio`` is how many times better ours is, whatever is measured: 2 is twice as fast, .5 half as fast. So a goal is a least
ratio, and all ratios read the same way.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.table import Table

from benchmarks.speed.machine_name import this_machine
from benchmarks.speed.pacing import FEWEST, interval
from benchmarks.speed.peers import PEERS
from etl.code import PACKAGES as OURS
from etl.code import revision, source_hash
from labeling.machine import hardware
from labeling.terminal import console

WARM_UP = 1
STARTED = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
PACKAGES = (
    "torch", "deepspeed", "pyspark", "delta-spark", "petastorm", "pyarrow", "faiss-gpu", "duckdb", "polars", "deltalake"
)  # fmt: skip
PEERS_PACKAGES = ("sentence-transformers", "transformers", "openvino", "onnxruntime")
REACHED, NOT_REACHED, OPEN = "reached", "not reached", "open"


@cache
def code() -> str:
    """Of the product and the benchmarks: figures of another are not gone on with."""
    return source_hash((*OURS, "benchmarks"))[:8]


@cache
def machine() -> dict[str, str]:
    """Hardware, interpreter and the versions that figures depend on; those of the peers' own environment if it is there."""
    named = {"name": this_machine(), "machine": hardware(), "python": platform.python_version()}
    there = {one.name: one.version for one in distributions(path=[str(path) for path in PEERS.glob("lib/*/site-packages")])}
    peers = {package: there[package] for package in PEERS_PACKAGES if package in there}
    if "torch" in there:
        peers["torch of the peers"] = there["torch"]
    return named | {package: version(package) for package in PACKAGES} | peers


@dataclass(frozen=True)
class Comparison:
    """Ours beside one peer in one case."""

    question: str
    """What was asked: the name of a question of :mod:`benchmarks.bench`."""
    case: str
    """Under which conditions."""
    peer: str
    """What a user would pick instead."""
    unit: str
    """Of ``ours`` and ``theirs``."""
    ours: float | None = None
    """Median."""
    theirs: float | None = None
    ratio: float | None = None
    """How many times better ours is."""
    spread: tuple[float, float] | None = None
    """95% of the ratio by the bootstrap over paired turns; None where turns were too few for one."""
    turns: int = 0
    """Measured, of each side, besides those to warm up."""
    costs: Mapping[str, Sequence[float]] | None = None
    """Of each turn, of ``ours`` and ``theirs``; what ratio and spread are made of."""
    goal: float | None = None
    """Least ratio that was aimed at."""
    check: str = ""
    """What was compared of the results, and how it came out; a difference ends the measurement."""
    not_run: str = ""
    """Why there are no figures."""
    failed: bool = False
    """Whether that is a failure, or something this run lacked, and not the machine."""
    at: str = STARTED
    """When the run started, UTC: what one run found shares it."""
    revision: str = field(default_factory=revision)
    code: str = field(default_factory=code)
    """Hash of the source of all packages; of the first lines of the history it is not known, and empty."""
    hardware: Mapping[str, str] = field(default_factory=machine)

    @property
    def verdict(self) -> str:
        """Whether the goal is reached: by all of the interval, by none of it, or open; empty without goal or figure."""
        if self.goal is None or self.ratio is None:
            return ""
        low, high = self.spread or (self.ratio, self.ratio)
        return REACHED if low >= self.goal else NOT_REACHED if high < self.goal else OPEN

    @property
    def behind(self) -> bool:
        """Whether all of the interval is below 1."""
        return self.ratio is not None and max(self.spread or (self.ratio,)) < 1

    def append_to(self, file: Path) -> None:
        """Add it to a file as a line of JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(self)) + "\n")


def faster(
    question: str,
    case: str,
    peer: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    check: str,
    goal: float | None = None,
    work: float | None = None,
    unit: str = "CPU s",
) -> Comparison:
    """Compare costs, such as seconds, of turns taken one after the other.

    Args:
        question: See :class:`Comparison`, as of what is not named here.
        case: Conditions.
        peer: The other side.
        ours: Cost of each turn.
        theirs: The other side's, in the same order.
        check: See there.
        goal: Least ratio.
        work: Units of work in a turn, which makes rates of ``unit`` of the medians; None: they are shown as costs.
        unit: Of the cost, or of the rate.
    """
    costs = (median(ours), median(theirs))
    ratio, spread = costs[1] / costs[0], None
    if min(len(ours), len(theirs)) >= FEWEST:
        ratio, *ends = interval(theirs, ours)
        spread = (ends[0], ends[1])
    shown = costs if work is None else (work / costs[0], work / costs[1])
    turns = {"ours": list(ours), "theirs": list(theirs)}
    return Comparison(
        question, case, peer, unit, *shown,
        ratio=ratio, spread=spread, turns=len(ours), costs=turns, goal=goal, check=check,
    )  # fmt: skip


def in_turn(
    sides: Mapping[str, Callable[[], Any]], turns: int, clock: Callable[[], float] | None = None
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Cost of each of ``turns`` turns of every side, each first every other time, and what the last turn gave.

    Args:
        sides: What to run, by name.
        turns: Measured ones; ``WARM_UP`` come before them.
        clock: Read before and after; the CPU seconds of this process and all below it unless given.
    """
    clock = clock or tree_seconds
    costs: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for turn in range(turns + WARM_UP):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            started = clock()
            found[name] = sides[name]()
            costs[name].append(clock() - started)
    return {name: seconds[WARM_UP:] for name, seconds in costs.items()}, found


def tree_seconds() -> float:
    """CPU seconds that this process and all below it have used: Spark's JVM and its Python workers among them."""
    total = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:  # its parent counts it, once it has waited for it
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def add_results_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, help="append a line of JSON for each comparison to this file")


def record(found: Sequence[Comparison], results: Path | None) -> None:
    """Show comparisons, and append them to a file if one is given."""
    if results is not None:
        for one in found:
            one.append_to(results)
    table = Table("case", "peer", "unit", "ours", "theirs", "ratio (95%)", "goal", "check", title=f"{hardware()}")
    for one in found:
        table.add_row(one.case, one.peer, one.unit, *cells(one))
    console().print(table)


def cells(one: Comparison) -> tuple[str, str, str, str, str]:
    """Ours, theirs, ratio with interval, goal and check, as a table shows them."""
    if one.not_run:
        return "not run", "", "", goal_of(one), one.not_run
    assert one.ours is not None
    assert one.theirs is not None
    return number(one.ours), number(one.theirs), ratio_of(one), goal_of(one), one.check


def ratio_of(one: Comparison) -> str:
    """The ratio with its interval; there is one."""
    spread = f" ({one.spread[0]:.2f} to {one.spread[1]:.2f})" if one.spread else ""
    return f"{one.ratio:.2f}{spread}"


def goal_of(one: Comparison) -> str:
    if one.goal is None:
        return ""
    return f"{one.goal:.3g}: {one.verdict or 'not run'}"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read(file: Path) -> list[Comparison]:
    """Comparisons of a file, oldest first; none if there is no file.

    Raises:
        ValueError: a line is none; with the file and its number.
    """
    if not file.is_file():
        return []
    found = []
    for n, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            row = {"code": ""} | row
            row["spread"] = tuple(row["spread"]) if row["spread"] else None
            found.append(Comparison(**row))
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{file}, line {n}: not a comparison ({error}); take the line out") from None
    return found
