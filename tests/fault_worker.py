"""Labeller's commands that are killed by signal 9 at a named point, or whose Spark workers or executors are.

    python -m tests.fault_worker --at etl.tables:write_slice --when after --call 2 -- publish --root ROOT --ds 2024-05-07
    python -m tests.fault_worker --at labeling.embed_catalogue:encode_texts --kill worker --times 2 --deaths FILE -- embed …

Several commands, each after a ``--``, run one after the other in this process until one fails; without ``--at`` none dies.

The function is wrapped wherever the package has it under a name; what Spark's Python workers call is pickled by reference,
and wrapped there by this module.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

import psutil
from pyspark import TaskContext

from etl.errors import EXIT_OK

FAULT = "LABELLER_TEST_FAULT"
"""Variable that tells Spark's Python workers of the fault; they inherit it."""

PACKAGES = ("etl", "model", "labeling")
DEATHS_OF_A_TASK = 2
"""Spark gives a task four attempts: these, and others on the same executor that go with it."""

_calls = itertools.count(1)


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.fault_worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--at", default="", metavar="MODULE:FUNCTION", help="may be a method, MODULE:CLASS.METHOD")
    parser.add_argument("--when", choices=("before", "after"), default="before")
    parser.add_argument("--call", type=int, default=1, help="which one of the process, from 1; of a table, of its calls")
    parser.add_argument("--table", default="", help="count only calls with a table of this name, or a path that ends so")
    parser.add_argument("--kill", nargs="+", choices=("driver", "worker", "executor"), default=["driver"], help="in turn")
    parser.add_argument("--times", type=int, default=1, help="deaths at most, of all processes that share DEATHS")
    parser.add_argument("--deaths", default="", metavar="FILE", help="holds a line a death; needed but for one of a driver")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the commands with the fault; returns the exit code of the first that fails, if they live that long."""
    words = [list(group) for dashes, group in itertools.groupby(argv, "--".__eq__) if not dashes]
    args, commands = (
        (arg_parser().parse_args([]), words) if argv[0] == "--" else (arg_parser().parse_args(words[0]), words[1:])
    )
    from labeling import cli

    for command in commands:
        importlib.import_module(cli.COMMANDS[command[0]].module)
    if args.at:
        _wrap(vars(args))
    return next((code for command in commands if (code := cli.main(command)) != EXIT_OK), EXIT_OK)


def _wrap(fault: dict[str, Any]) -> None:
    """Put what dies in the place of the function."""
    os.environ[FAULT] = json.dumps(fault)
    parent, name, original = _found(fault)
    replacement: Any = dying
    if fault["kill"] == ["driver"]:

        @wraps(original)
        def replacement(*given: Any, **named: Any) -> Any:
            return _call(original, fault, given, named)

    setattr(parent, name, replacement)
    for module in [m for key, m in sys.modules.items() if key.partition(".")[0] in PACKAGES]:
        for other in [key for key, value in vars(module).items() if value is original]:
            setattr(module, other, replacement)


def dying(*given: Any, **named: Any) -> Any:
    """What stands for the function in Spark's Python workers, where it is whole."""
    fault = json.loads(os.environ[FAULT])
    return _call(_found(fault)[2], fault, given, named)


def _found(fault: dict[str, Any]) -> tuple[Any, str, Callable[..., Any]]:
    """Where the function is, its name there, and itself."""
    module, path = fault["at"].split(":")
    *above, name = path.split(".")
    parent = importlib.import_module(module)
    if above:
        parent = attrgetter(".".join(above))(parent)
    return parent, name, getattr(parent, name)


def _call(original: Callable[..., Any], fault: dict[str, Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    due = _is_of(fault["table"], (*given, *named.values())) and next(_calls) == fault["call"]
    if due and fault["when"] == "before":
        _die(fault)
    result = original(*given, **named)
    if due and fault["when"] == "after":
        if isinstance(result, Iterator):  # of a generator that is when all is made, and nothing acknowledged
            return _dying_at_the_end(result, fault)
        _die(fault)
    return result


def _dying_at_the_end(rows: Iterator[Any], fault: dict[str, Any]) -> Iterator[Any]:
    yield from rows
    _die(fault)


def _is_of(table: str, arguments: Sequence[Any]) -> bool:
    named = (getattr(value, "name", None) == table or str(value).endswith(f"/{table}") for value in arguments)
    return not table or any(named)


def _die(fault: dict[str, Any]) -> None:
    """Kill what is to be killed next, if anything is."""
    task = TaskContext.get()
    if task is not None and task.attemptNumber() >= DEATHS_OF_A_TASK:
        return
    whom = _next(fault)
    if whom == "executor":
        java = next(process for process in psutil.Process().parents() if process.name() == "java")
        assert any("CoarseGrainedExecutorBackend" in word for word in java.cmdline()), java.cmdline()
        java.kill()
    if whom:
        _end()


def _next(fault: dict[str, Any]) -> str:
    """Whom to kill; nobody once as many have died as shall."""
    if not fault["deaths"]:
        assert fault["kill"] == ["driver"], "deaths of several processes are counted in a file"
        return "driver"
    with Path(fault["deaths"]).open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        died = len(file.readlines())
        if died == fault["times"]:
            return ""
        whom = str(fault["kill"][died % len(fault["kill"])])
        file.write(f"{whom}\n")
        file.flush()
        return whom


def _end() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    from tests import fault_worker  # under this name, by which Spark's workers know it too

    sys.exit(fault_worker.main(sys.argv[1:]))
