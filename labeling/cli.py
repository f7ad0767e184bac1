"""The ``labeller`` command: every stage as a subcommand that is also ``python -m MODULE``.

A subcommand's module is imported only when it is chosen, so ``labeller --help`` and ``labeller label`` start at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from etl.errors import EXIT_BAD_INPUT, EXIT_OK


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: the module whose ``main(argv) -> int`` it is, and what it does."""

    name: str
    module: str
    summary: str


STAGES: dict[str, tuple[Command, ...]] = {
    "input": (
        Command("sample", "etl.sample.__main__", "generate a sample warehouse with its truth"),
        Command("check", "labeling.check_night", "check settings and input tables before anything expensive starts"),
    ),
    "etl": (
        Command("pairs", "etl.build_pairs", "clean the click log into query-item pairs"),
        Command("dataset", "etl.build_dataset", "tokenise the pairs into the training dataset"),
    ),
    "model": (
        Command("mine", "labeling.mine_negatives", "give the dataset's pairs hard negatives, found by the champion"),
        Command("train-due", "model.train_due", "say whether the night has to train: exit code 0 if so, 99 if not"),
        Command("train", "model.train", "train the encoder and write the candidate bundle"),
        Command("calibrate", "labeling.calibrate", "turn the candidate's scores into probabilities"),
        Command("promote", "model.promote", "make the candidate the champion if it passes the gate"),
    ),
    "labeling": (
        Command("embed", "labeling.embed_catalogue", "encode the titles that changed"),
        Command("predict", "labeling.predict", "find terms and category of every item, into staging"),
        Command("audit", "labeling.audit", "check what is staged; a hard failure stops the run"),
        Command("publish", "labeling.publish", "make the audited labels live"),
        Command("rollback", "labeling.rollback", "make live again what an earlier publishing made live"),
        Command("relate", "labeling.relate", "write similar items, recall lists and what else the vectors give"),
    ),
    "past days": (
        Command("backfill", "labeling.backfill.__main__", "plan, make or compare the labels of days of the past"),
    ),
    "online": (
        Command("export-onnx", "labeling.export_onnx", "write the query encoder of a bundle for an online service"),
        Command("load-qdrant", "labeling.load_qdrant", "load the live item index and its labels into an embedded Qdrant"),
    ),
    "upkeep": (
        Command("review", "labeling.review", "write the day's sample for people to judge, and take their judgements back"),
        Command("migrate", "etl.migrate", "bring tables of an earlier version of this package up to its contracts"),
        Command("maintain", "labeling.maintain", "let go what is old and nothing refers to, compact and vacuum tables"),
        Command(
            "forget", "labeling.forget", "remove a query from every table and dataset, and name the bundles that saw it"
        ),
    ),
    "look": (
        Command(
            "status", "labeling.status", "say what is live and how old, the last runs, the next training, open warnings"
        ),
        Command("explain", "labeling.explain", "say where the label of an item comes from"),
        Command("report", "labeling.report.__main__", "say where everything is and how good it is"),
        Command("evaluate", "labeling.evaluate", "measure a bundle on held-out queries, or on an evaluation set of yours"),
        Command("label", "labeling.label_title", "label titles given on the command line"),
        Command("score-pairs", "labeling.score_pairs", "score given pairs of query and item, for a ranker"),
        Command("tables", "labeling.tables", "list the output tables with rows, days and versions"),
        Command("doctor", "labeling.doctor", "check this machine: Java, jars, packages, GPU, disk, paths"),
    ),
}
COMMANDS = {command.name: command for commands in STAGES.values() for command in commands}


def overview() -> str:
    """The subcommands by stage, one line each."""
    width = max(map(len, COMMANDS))
    blocks = [
        f"{stage}:\n" + "\n".join(f"  {command.name:{width}}  {command.summary}" for command in commands)
        for stage, commands in STAGES.items()
    ]
    return "\n\n".join(blocks)


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labeller",
        usage="labeller COMMAND [options]",
        description="Labels a shop's whole catalogue from its own click log, every night.",
        epilog=overview() + "\n\nOptions of a command: labeller COMMAND --help\n"
        "Exit codes: 0 done, 2 bad input, 3 a gate refused, 75 another process writes for the day, 99 nothing due or the "
        "candidate is not promoted, 1 a bug.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"labeller {metadata.version('nightly-product-labeller')}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="one of those below")
    return parser


def job_parser(name: str) -> argparse.ArgumentParser:
    """The parser of a subcommand's own job."""
    return importlib.import_module(COMMANDS[name].module).arg_parser()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first argument names; its exit code is passed through."""
    given = list(sys.argv[1:] if argv is None else argv)
    name = arg_parser().parse_args(given[:1]).command
    if name is None:
        arg_parser().print_help()
        return EXIT_OK
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        print(f"labeller: error: {name!r} is no command{hint} (see labeller --help)", file=sys.stderr)
        return EXIT_BAD_INPUT
    return importlib.import_module(COMMANDS[name].module).main(given[1:])


if __name__ == "__main__":
    sys.exit(main())
