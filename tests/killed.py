"""Work that is killed by signal 9 before each of its changes to the file system in turn."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")
"""What Python tells its audit hooks of; a file that is opened to be written is one more."""


def each_death(lay_down: Callable[[], T], work: Callable[[T], object]) -> Iterator[T]:
    """What ``work`` leaves of what ``lay_down`` lays down, killed before its first change, its second and so on to the last.

    The work is done in a fork, so neither may have started Spark.
    """
    for n in itertools.count(1):
        laid = lay_down()
        if not _is_killed(n, lambda laid=laid: work(laid)):
            assert n > 1, "it changes nothing"
            return
        yield laid


def _is_killed(n: int, work: Callable[[], object]) -> bool:
    """Whether ``work`` was killed before its n-th change, rather than ended before that."""
    pid = os.fork()
    if pid == 0:
        _end_after(n, work)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), "it failed by itself"
    return os.WIFSIGNALED(status)


def _end_after(n: int, work: Callable[[], object]) -> None:
    changes = itertools.count(1)

    def look(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and next(changes) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(look)
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
