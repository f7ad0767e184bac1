"""On which addresses a tree of processes listens, and who runs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
SECONDS = 1.0


@dataclass(slots=True)
class Seen:
    """What one process was seen to be."""

    name: str
    command: str
    uids: set[int] = field(default_factory=set)
    listens: set[str] = field(default_factory=set)
    """Addresses of its TCP sockets on which somebody could call."""


def look(root: int, seen: dict[int, Seen]) -> None:
    """Note of a process and all below it, by their ids, who they are and where they listen."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(root)
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found = seen.setdefault(process.pid, Seen("", ""))
                found.name, found.command = process.name(), " ".join(process.cmdline())[:200]
                found.uids |= set(process.uids())
                found.listens |= set(listeners([process]))


def listeners(processes: Sequence[psutil.Process]) -> list[str]:
    """Addresses of all TCP sockets of these processes on which somebody could call."""
    found = [c for process in processes for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return sorted({connection.laddr.ip for connection in found})


@contextmanager
def watched(root: int) -> Iterator[dict[int, Seen]]:
    """Look at a process and all below it once a second, beside the work; what was seen is whole when the context ends."""
    seen: dict[int, Seen] = {}
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SECONDS):
            look(root, seen)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield seen
    finally:
        over.set()
        sampler.join()
