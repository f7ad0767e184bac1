"""SIGTERM, by which Airflow ends a task that takes too long, as an exit: with ``finally``, and within bounded time."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

GRACE_SECONDS = 45.0
"""For what is to be put away; ranks of a training take up to 30 of them. Airflow kills after 60."""


@contextmanager
def terminated_as_exit(first: Callable[[], None] | None = None) -> Iterator[None]:
    """SIGTERM ends Python without ``finally``; here it raises SystemExit with 128 + 15, whatever fails on the way out.

    What is not over after GRACE_SECONDS is cut off. Outside the main thread, where Python allows no such thing, it changes
    nothing.

    Args:
        first: Called before anything is put away: it lets go what that would wait for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would cut off what the first has begun
        told.append(128 + number)
        end = threading.Timer(GRACE_SECONDS, os._exit, [128 + number])
        end.daemon = True
        end.start()
        if first:
            first()
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Exception as error:
        if not told:
            raise
        log.warning("on the way out: %s", error)
        raise SystemExit(told[0]) from None
    finally:
        if not told:  # else the process ends, and is not to be told twice
            signal.signal(signal.SIGTERM, before)
