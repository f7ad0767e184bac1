"""Processes that end together, whichever of them ends first and however.

Two processes of ours stand above all others: the one that the caller started, and a keeper below it that starts and watches
the components. Each is a subreaper: what outlives its own parent becomes its child (tasks put themselves into sessions
of their own, where no signal to a process group gets). If the caller's process is killed, the kernel tells the keeper, which
ends everything; if the keeper is killed, everything becomes the child of the first, which does the same.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from airflow_dags.stack.errors import StackError

log = logging.getLogger(__name__)

GRACE = 15.0
"""Seconds for all to end by themselves: a Spark driver takes 3, Airflow's API server 5."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_DATABASE = "postgres"


def together(body: Callable[[], int], grace: float = GRACE) -> int:
    """Run ``body`` in a process of its own and return its exit code; nothing that it started is left afterwards.

    SIGINT, SIGTERM, SIGHUP and the end of our parent end it with code 0; what runs ``grace`` seconds later is killed.
    """
    _control(_PR_SET_CHILD_SUBREAPER, 1)
    first = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        os.setsid()  # Ctrl-C on the terminal reaches the keeper once, from its parent
        _run_keeper(body, first, grace)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(keeper, signal.SIGTERM))
    _control(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _, code = wait_for_one([keeper])
    end_all(grace)
    return code


def _run_keeper(body: Callable[[], int], parent: int, grace: float) -> NoReturn:
    """Run ``body``, end what it started, leave with its exit code."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    code = 1
    try:
        _control(_PR_SET_CHILD_SUBREAPER, 1)
        _control(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:  # else it is gone already, and the kernel has told nobody
            code = body()
    except SystemExit:
        code = 0
    except Exception:  # a bug: said here, since this process leaves without the interpreter's own end
        log.exception("the stack ends")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.info("ending all processes")
    end_all(grace)
    os._exit(code)


def start(command: Sequence[str], environment: Mapping[str, str], output: Path) -> subprocess.Popen[bytes]:
    """Start a component in a session of its own; what it says goes to the file ``output``, which is made anew."""
    with output.open("wb") as file:
        return subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def run(command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    """Run a command to its end.

    Raises:
        StackError: it failed, with the last lines that it said.
    """
    code = start(command, environment, output).wait()
    if code:
        raise StackError(f"`{' '.join(command[:3])}` failed with exit code {code}; {tail(output)}")


def tail(output: Path, lines: int = 15) -> str:
    """The last lines of a log, for a message."""
    said = output.read_text(errors="replace").splitlines()[-lines:]
    return f"the end of {output}:\n" + "\n".join(said)


def wait_for_one(pids: Collection[int]) -> tuple[int, int]:
    """Wait until one of these children ends; returns its id and exit code (negative: the signal that killed it).

    Orphans that end meanwhile are reaped: a stack that runs for weeks would fill the table of processes.
    """
    while True:
        pid, status = os.wait()
        if pid in pids:
            return pid, os.waitstatus_to_exitcode(status)


def end_all(grace: float) -> None:
    """End all descendants of this process: first those that use the database, then it."""
    _end(lambda process: process.name() != _DATABASE, signal.SIGTERM, grace)
    # The eldest ends its own. SIGTERM would have it wait for its clients, SIGINT does not.
    _end(lambda process: process.name() == _DATABASE != process.parent().name(), signal.SIGINT, grace)


def _end(which: Callable[[psutil.Process], bool], first: signal.Signals, grace: float) -> None:
    """Ask each once, kill after ``grace`` seconds, and return when there is none left."""
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while left := _descendants(which):
        late = time.monotonic() > deadline
        for process in left:
            if late or process.pid not in asked:
                asked.add(process.pid)
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL if late else first)
        time.sleep(0.1)


def _descendants(which: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Those that run and are ``which``; what has ended is reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            if process.status() != psutil.STATUS_ZOMBIE and which(process):
                found.append(process)
    return found


def _control(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")
