"""Every question of speed beside what a user would pick instead: one command, one page, one history.

Runs the script of each question, which appends a line of JSON for each comparison, and writes them as a table and a plot
named by the hardware. A question that was answered on this machine within the last half day, at this revision, is not asked
again unless `--again` says so: an interrupted run goes on where it was. What a machine lacks has a row that says so.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks import bench_page
from benchmarks.speed.comparison import Comparison, read
from benchmarks.speed.machine_name import this_machine
from benchmarks.speed.training import THEIRS
from etl.code import revision
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
    peers: bool = False
    """Whether the other side lives in the environment of `make benchmarks-setup`."""


QUESTIONS: Mapping[str, Question] = {
    "train": Question(
        "pairs trained a CPU second, six layers", "benchmarks.speed.training", ("encoder",), 7, peers=True
    ),
    "train-bag": Question(
        "pairs trained a CPU second, the bag of word hashes", "benchmarks.speed.training", ("bag", "--epochs", "4"), 2,
        data=True, peers=True,
    ),
    "loss": Question("time and memory of the contrastive loss", "benchmarks.speed.contrastive_loss", (), 4),
    "encode": Question(
        "titles encoded a CPU second", "benchmarks.speed.encoding",
        ("--chunk", "64", "--precision", "fp32", "bf16", "int8", "--sides", *ENGINES), 5, peers=True,
    ),
    "topk": Question("ten nearest of 100,000 terms", "benchmarks.speed.term_search", (), 4),
    "etl": Question(
        "clicks cleaned and aggregated to pairs", "benchmarks.speed.cleaning",
        ("--clicks", "600000", "--only-peers"), 6, scratch=True,
    ),
    "reading": Question("rows read by the training reader", "benchmarks.speed.reading", (), 3, scratch=True),
    "transfer": Question("rows between Spark and Python", "benchmarks.speed.spark_transfer", (), 5),
    "delta": Question("a day's rows into Delta, and the merge", "benchmarks.speed.delta_writes", (), 6),
    "night": Question("the whole night", "benchmarks.night", (), 12, scratch=True, peers=True),
}  # fmt: skip


def command(name: str, results: Path, scratch: Path, data: str) -> list[str]:
    """Of the script of a question."""
    question = QUESTIONS[name]
    root = ("--root", str(scratch / name)) if question.scratch else ()
    sets = ("--data", data) if question.data else ()
    return [sys.executable, "-m", question.module, *question.arguments, *root, *sets, "--results", str(results)]


def missing(name: str, data: str) -> str:
    """Why a question cannot be asked here; empty if it can."""
    if QUESTIONS[name].peers and not THEIRS.is_file():
        return f"{THEIRS} is not there: run `make benchmarks-setup`"
    if QUESTIONS[name].data and not (Path(data) / "train.csv.gz").is_file():
        return f"no train.csv.gz in {data} (--data)"
    return ""


def answered(history: Sequence[Comparison], name: str, machine: str, now: dt.datetime) -> bool:
    """Whether the last rows of a question are of this revision and machine, recent and whole."""
    rows = [one for one in history if one.question == name and one.hardware["name"] == machine]
    recent = [one for one in rows if now - dt.datetime.fromisoformat(one.at) < RECENT and one.revision == revision()]
    return bool(recent) and not recent[-1].failed


def ask(name: str, history: Path, scratch: Path, data: str) -> str:
    """Run the script of a question; returns why it gave no figures, which is then a row of the history, or nothing."""
    why = missing(name, data)
    if not why:
        (scratch / name).mkdir(parents=True, exist_ok=True)
        found = scratch / f"{name}.jsonl"
        found.unlink(missing_ok=True)
        code = subprocess.run(command(name, found, scratch, data), check=False).returncode
        why = f"it ended with exit code {code}: see what it said" if code else ""
        if not code:
            with history.open("a", encoding="utf-8") as lines:
                lines.write(found.read_text(encoding="utf-8"))
    if why:
        Comparison(name, QUESTIONS[name].asks, "", "", not_run=why, failed=True).append_to(history)
    return why


def plan(names: Sequence[str], done: Sequence[str], data: str) -> Table:
    table = Table("question", "what", "about", "", title="make bench")
    for name in names:
        what = "answered" if name in done else missing(name, data)
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
    asks = {name: question.asks for name, question in QUESTIONS.items()}
    try:
        kept = read(history)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    now = dt.datetime.now(dt.UTC)
    done = [] if args.again else [name for name in args.only if answered(kept, name, machine, now)]
    console().print(plan(args.only, done, args.data))
    if args.dry_run:
        return EXIT_OK
    args.docs.mkdir(parents=True, exist_ok=True)
    failed = {}
    for name in args.only:
        if name in done:
            continue
        console().rule(f"{name}: {QUESTIONS[name].asks}, about {QUESTIONS[name].minutes:g} min")
        started = time.monotonic()
        failed[name] = ask(name, history, args.scratch, args.data)
        console().print(f"{name}: {failed[name] or 'done'} ({time.monotonic() - started:.0f} s)")
        bench_page.write(read(history), args.docs, machine, asks)  # after each: an interrupted run has its page too
    bench_page.write(read(history), args.docs, machine, asks)
    console().print(f"page: {args.docs / machine}.md")
    return EXIT_SOME_FAILED if any(failed.values()) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
