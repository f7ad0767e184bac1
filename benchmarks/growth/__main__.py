"""How the cost of a night grows with its data, beside what the design claims: a page and a picture of this machine.

Every stage from pairs to relate runs on generated shops of 1, 3 and 10 times the clicks, and on a tiny one whose cost is
taken for the fixed part; then what a change of the vocabulary costs, what more executors and more training ranks do, and the
loss by its batch. Claimed: stages are linear in clicks, pairs, changed items or items; a new vocabulary costs retrieval
only; executors and ranks share the work, which stays the same; the loss takes memory linear in the global batch.

Each measurement is a line of ROOT/growth.jsonl, and is not done again: started again, the command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.growth import lines
from benchmarks.growth.figure import draw
from benchmarks.growth.jobs import CHOICES, CLICKS, FACTORS, Plan, guess, measure
from benchmarks.growth.page import page, stage_growths
from benchmarks.growth.stages import TINY
from benchmarks.speed.machine_name import this_machine
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from labeling.terminal import console

LINES_FILE = "growth.jsonl"


def positive(text: str) -> int:
    """For ``type=`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="directory for the shops, logs and measurements; kept")
    parser.add_argument("--clicks", type=positive, default=CLICKS, help="of the smallest shop (default: %(default)s)")
    parser.add_argument(
        "--factors", type=positive, nargs="+", default=FACTORS, help="sizes, in units of it (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=positive, default=1, help="more narrow the intervals (default: %(default)s)")
    parser.add_argument(
        "--stages",
        choices=CHOICES,
        nargs="+",
        default=CHOICES,
        help="stages and other parts; what they need runs too (default: all)",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/bench"), help="of page and picture (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be measured, and about how long")
    return parser


def schedule(plan: Plan, found: Sequence[lines.Line]) -> Table:
    """Every measurement: how long it took, or about how long it may take."""
    table = Table("group", "what", "size", "workers", "round", "state", "s")
    guesses = {line.job: guess(line.job) for line in found}
    took = {line.job: line.took for line in found}
    left = 0.0
    for job in plan.jobs():
        seconds = took.get(job) or lines.expected_seconds(job, guess(job), found, guesses)
        left += seconds if job not in took else 0.0
        state = "measured" if job in took else "to do, about"
        workers = str(job.workers or "")
        table.add_row(job.group, job.what, f"{job.size:,}", workers, str(job.round), state, f"{seconds:.0f}")
    table.caption = f"about {left / 60:.0f} minutes to do, on an idle machine" if left else "all is measured"
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = arg_parser()
    args = parser.parse_args(argv)
    if args.clicks < TINY:
        parser.error(f"--clicks {args.clicks} are too few (expected >= {TINY}, the tiny shop)")
    root = args.root.expanduser().resolve()
    chosen = tuple(name for name in CHOICES if name in args.stages)
    plan = Plan(root=root, clicks=args.clicks, factors=tuple(args.factors), rounds=args.rounds, chosen=chosen)
    file = root / LINES_FILE
    try:
        found = lines.read(file)
    except InputError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if args.dry_run:
        console().print(schedule(plan, found))
        return EXIT_OK
    root.mkdir(parents=True, exist_ok=True)
    to_do = lines.missing(plan.jobs(), found)
    for number, job in enumerate(to_do, start=1):
        line = measure(job, root)
        lines.append(file, line)
        found.append(line)
        workers = f", {job.workers} executors" if job.workers else ""
        console().print(
            f"{number}/{len(to_do)} {job.group}, {job.what}, {job.size:,}{workers}, round {job.round}: "
            f"{line.cost.cpu:.1f} CPU s, {line.cost.gib:.2f} GB, {line.took:.0f} s"
        )
    write(plan, found, args.out)
    return EXIT_OK


def write(plan: Plan, found: Sequence[lines.Line], out: Path) -> None:
    """The page, and the picture if there are stages on it."""
    out.mkdir(parents=True, exist_ok=True)
    name = f"growth-{this_machine()}"
    there = [line for line in found if line.job in set(plan.jobs())]
    text = page(plan, there, f"{name}.png")
    if night := stage_growths(plan, there):
        draw(night, out / f"{name}.png")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    console().print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
