"""Processes that end together, whichever of them ends first and however.

Two processes of ours stand above all others: the one that the caller started, and a keeper below it that starts and watches
the components. Each is a subreaper: what outlives its own parent becomes its child (tasks put themselves into sessions
of their own, where no signal to a process group gets). If the caller's process is killed, the keeper reads the end of a
pipe and ends everything; if the keeper is killed, everything becomes the child of the first, which does the same.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from airflow_dags.stack.errors import StackError

log = logging.getLogger(__name__)

GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL: a Spark driver takes 3 s to end, Airflow's API server 5."""

_PR_SET_CHILD_SUBREAPER = 36
_DATABASE = "postgres"


def together(body: Callable[[], int]) -> int:
    """Run ``body`` in a process of its own and return its exit code; nothing that it started is left afterwards.

    SIGINT, SIGTERM and SIGHUP end it with code 0.
    """
    _adopt_orphans()
    alive, held = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(held)
        os.setsid()  # Ctrl-C on the terminal reaches the keeper once, from its parent
        _run_keeper(body, alive)
    os.close(alive)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(keeper, signal.SIGTERM))
    _, code = wait_for_one([keeper])
    end_all()
    return code


def _run_keeper(body: Callable[[], int], alive: int) -> None:
    """Run ``body``, end what it started, leave with its exit code."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(0)

    def watch() -> None:
        os.read(alive, 1)  # returns when the last holder of the other end is gone
        os.kill(os.getpid(), signal.SIGTERM)

    _adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=watch, daemon=True).start()
    try:
        code = body()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:  # a bug: said here, since this process leaves without the interpreter's own end
        log.exception("the stack ends")
        code = 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_all()
    sys.stderr.flush()
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


def end_all(grace: float = GRACE) -> None:
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


def _adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
