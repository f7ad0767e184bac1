"""The ways in which a job stops on purpose, and the exit codes that Airflow reads (airflow_dags/labeller_operator.py)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

EXIT_OK = 0
EXIT_BUG = EXIT_FAILED = 1  # to Airflow the same: it tries again
EXIT_BAD_INPUT = 2
EXIT_GATE_REFUSED = 3
EXIT_TRY_LATER = 75  # sysexits' EX_TEMPFAIL: the same command does its work a while later, so Airflow tries again
EXIT_NOTHING_DUE = 99  # Airflow shows the task as skipped


MAX_SHOWN = 20  # of 10^6 terms without a text, twenty tell the story


class InputError(ValueError):
    """What the job was given cannot be used; says what, found, expected and the cure."""

    exit_code = EXIT_BAD_INPUT

    problems: tuple[str, ...] = ()
    """The single problems, where there is a list of them."""

    @classmethod
    def of(cls, problems: list[str], *, heading: str) -> Self:
        """One error that lists the problems found, so that nobody mends them one run at a time."""
        shown = problems[:MAX_SHOWN]
        if len(problems) > len(shown):
            shown = [*shown, f"and {len(problems) - len(shown)} more"]
        error = cls(heading + "".join(f"\n  - {problem}" for problem in shown))
        error.problems = tuple(problems)
        return error


class TryLater(InputError):
    """Another process has what the job needs, or a store or mount does not answer now: later the same command will do."""

    exit_code = EXIT_TRY_LATER


class OtherContract(InputError):
    """A bundle or tokenizer that is whole, but of a version of this package that this one does not understand."""


class UnreadableFiles(InputError):
    """Files of an input that are damaged; the files that can be read are as they should be."""

    files: frozenset[str] = frozenset()
    """Their paths."""


class StageFailed(RuntimeError):
    """What a stage started has failed, and has said why itself: a traceback of the stage would only hide it."""


class GateRefused(RuntimeError):
    """A hard gate failed: what is live stays live and the run is red."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the known one that is nearest, if one is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""
