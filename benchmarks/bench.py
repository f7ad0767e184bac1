"""Every question of speed beside what a user would pick instead: one command, one page, one history.

Runs the script of each question, which appends a line of JSON for each comparison, and writes them as a table and a plot
named by the hardware. A question that was answered on this machine within the last half day, by this code, is not asked
again unless `--again` says so: an interrupted run goes on where it was. What a machine lacks has a row that says so, or a
line of the page; where there is a GPU, the questions that it changes are asked on both.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.table import Table

from benchmarks import bench_page
from benchmarks.speed.comparison import Comparison, code, read
from benchmarks.speed.machine_name import this_machine
from benchmarks.speed.peers import THEIRS
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling.terminal import console

EXIT_SOME_FAILED = 1
ENGINES = ("sentence-transformers", "openvino", "onnxruntime")
RECENT = dt.timedelta(hours=12)
HISTORY = "history.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    """One script, and how it is called."""

    asks: str
    module: str
    arguments: tuple[str, ...]
    minutes: float
    """On two cores without AMX."""
    scratch: bool = False
    """Whether it keeps data below ``--root``."""
    data: bool = False
    """Whether it reads Home Depot's data."""
    gpu: tuple[str, ...] | None = None
    """Arguments besides these with which it is asked on a GPU too; None where it knows none, or finds it by itself."""
    peers: bool = False
    """Whether the other side lives in the environment of `make benchmarks-setup`."""


QUESTIONS: Mapping[str, Question] = {
    "train": Question(
        "pairs trained a CPU second, six layers", "benchmarks.speed.training", ("encoder",), 7,
        gpu=("--device", "cuda"), peers=True,
    ),
    "train-bag": Question(
        "pairs trained a CPU second, the bag of word hashes", "benchmarks.speed.training", ("bag", "--epochs", "4"), 2,
        data=True, peers=True,
    ),
    "loss": Question("time and memory of the contrastive loss", "benchmarks.speed.contrastive_loss", (), 4),
    "encode": Question(
        "titles encoded a CPU second", "benchmarks.speed.encoding",
        ("--sides", *ENGINES), 12, gpu=("--device", "cuda"), peers=True,
    ),
    "topk": Question("ten nearest of 100,000 terms", "benchmarks.speed.term_search", (), 4),
    "etl": Question(
        "clicks cleaned and aggregated to pairs", "benchmarks.speed.cleaning",
        ("--clicks", "2000000", "--only-peers"), 12, scratch=True,
    ),
    "reading": Question("rows read by the training reader", "benchmarks.speed.reading", (), 3, scratch=True),
    "transfer": Question("rows between Spark and Python", "benchmarks.speed.spark_transfer", (), 5),
    "delta": Question("a day's rows into Delta, and the merge", "benchmarks.speed.delta_writes", (), 10),
    "night": Question("the whole night", "benchmarks.night", (), 30, scratch=True, peers=True),
}  # fmt: skip


def commands(name: str, results: Path, scratch: Path, data: str) -> list[list[str]]:
    """Of the script of a question: one, or with a GPU two."""
    question = QUESTIONS[name]
    root = ("--root", str(scratch / name)) if question.scratch else ()
    sets = ("--data", data) if question.data else ()
    where = [()] if question.gpu is None or not torch.cuda.is_available() else [(), question.gpu]
    line = [sys.executable, "-m", question.module, *question.arguments, *root, *sets, "--results", str(results)]
    return [[*line, *more] for more in where]


def missing(name: str, data: str) -> str:
    """Why a question cannot be asked here; empty if it can."""
    if QUESTIONS[name].peers and not THEIRS.is_file():
        return f"{THEIRS} is not there: run `make benchmarks-setup`"
    if QUESTIONS[name].data and not (Path(data) / "train.csv.gz").is_file():
        return f"no train.csv.gz in {data} (--data)"
    return ""


def answered(history: Sequence[Comparison], name: str, machine: str, now: dt.datetime) -> bool:
    """Whether the last rows of a question are of this code and machine, recent and whole."""
    rows = [one for one in history if one.question == name and one.hardware["name"] == machine]
    recent = [one for one in rows if now - dt.datetime.fromisoformat(one.at) < RECENT and one.code == code()]
    return bool(recent) and not recent[-1].failed


def ask(name: str, history: Path, scratch: Path, data: str) -> str:
    """Run the script of a question; returns why it gave no figures, which is then a row of the history, or nothing."""
    (scratch / name).mkdir(parents=True, exist_ok=True)
    results = scratch / f"{name}.jsonl"
    results.unlink(missing_ok=True)
    for line in commands(name, results, scratch, data):
        ended = subprocess.run(line, check=False).returncode
        if ended:
            why = f"{' '.join((QUESTIONS[name].module, *QUESTIONS[name].arguments))} ended with exit code {ended}"
            Comparison(name, QUESTIONS[name].asks, "", "", not_run=why, failed=True).append_to(history)
            return why
    found = read(results)
    for one in found:
        replace(one, at=found[0].at).append_to(history)  # all that one run found shares its time
    return ""


def plan(names: Sequence[str], done: Sequence[str], lacking: Mapping[str, str]) -> Table:
    table = Table("question", "what", "about", "", title="make bench")
    for name in names:
        what = "answered already" if name in done else lacking.get(name, "")
        table.add_row(name, QUESTIONS[name].asks, f"{QUESTIONS[name].minutes:g} min", what)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=tuple(QUESTIONS), default=list(QUESTIONS), help="(default: all)")
    parser.add_argument("--again", action="store_true", help="also what was answered within half a day")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and about how long")
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"), help="history, pages, plots (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, default=Path("build/bench"), help="made-up data (default: %(default)s)")
    parser.add_argument("--data", default="../shared/data/homedepot", help="Home Depot's directory (default: %(default)s)")
    args = parser.parse_args(argv)
    history, machine = args.docs / HISTORY, this_machine()
    try:
        kept = read(history)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    now = dt.datetime.now(dt.UTC)
    done = [] if args.again else [name for name in args.only if answered(kept, name, machine, now)]
    lacking = {name: why for name in QUESTIONS if (why := missing(name, args.data))}
    unasked = {name: f"{one.asks}: not asked on this machine yet" for name, one in QUESTIONS.items()} | lacking
    console().print(plan(args.only, done, lacking))
    if args.dry_run:
        return EXIT_OK
    args.docs.mkdir(parents=True, exist_ok=True)
    failed = {}
    for name in args.only:
        if name in done or name in lacking:
            continue
        console().rule(f"{name}: {QUESTIONS[name].asks}, about {QUESTIONS[name].minutes:g} min")
        started = time.monotonic()
        failed[name] = ask(name, history, args.scratch, args.data)
        console().print(f"{name}: {failed[name] or 'done'} ({time.monotonic() - started:.0f} s)")
        bench_page.write(read(history), args.docs, machine, unasked)  # after each: an interrupted run has its page too
    bench_page.write(read(history), args.docs, machine, unasked)
    console().print(f"page: {args.docs / machine}.md")
    return EXIT_SOME_FAILED if any(failed.values()) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
