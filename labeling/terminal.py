"""What the commands that answer on a terminal share."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys

from rich.console import Console

LOG_WIDTH = 120  # columns where stdout is no terminal: Airflow's log view, a file


def console() -> Console:
    """Standard output, as wide as the terminal, or 120 columns of plain text in a log."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=LOG_WIDTH)


def add_root_argument(parser: argparse.ArgumentParser) -> None:
    """``--root``, with a default: who types a command by hand means the warehouse that they work with."""
    parser.add_argument(
        "--root",
        default=os.environ.get("LABELLER_ROOT", "warehouse/sample"),
        help="the warehouse (default: $LABELLER_ROOT, else warehouse/sample; here %(default)s)",
    )


def day(text: str) -> dt.date:
    """A day of the command line, for ``type=`` of an argument."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day (expected YYYY-MM-DD)") from None
