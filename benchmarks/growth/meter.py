"""What a command costs, with all that it starts: CPU seconds, wall seconds, peak memory.

``python -m benchmarks.growth.meter OUT COMMAND ...`` runs the command as a child and writes its cost to OUT. A process of
its own: it adopts what outlives its parent (Spark's JVM does, for a moment) and waits for all, so that the kernel's count
of its children holds every CPU second, and those of nobody else.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_SET_CHILD_SUBREAPER = 36
EVERY_SECONDS = 2.0
"""Between two looks at the memory: to add up the pages of a Java takes 30 ms or more, of the cores that it works on."""
LINGER_SECONDS = 600.0
"""For what is still there when the command has ended."""
SHOWN_BYTES = 3_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a command and all below it."""

    cpu: float
    """Seconds."""
    wall: float | None
    """Seconds until the command itself ended; None where that was not measured."""
    gib: float
    """Peak memory, pages that processes share counted once; looked at every other second."""


def metered(argv: Sequence[str], log: Path, allowed: Sequence[int] = (0,)) -> Cost:
    """Run a command to its end, with its output in ``log``.

    Raises:
        RuntimeError: another exit code than those ``allowed``; with the last of what it said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, log.open("wb") as said:
        out = Path(directory) / "cost.json"
        code = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth.meter", str(out), *argv], stdout=said, stderr=said, check=False
        ).returncode
        if code in allowed and out.is_file():
            return Cost(**json.loads(out.read_text(encoding="utf-8")))
    end = log.read_bytes()[-SHOWN_BYTES:].decode(errors="replace")
    raise RuntimeError(f"{' '.join(argv)} ended with {code}, see {log}:\n{end}")


def memory_of(processes: Sequence[psutil.Process]) -> int:
    """Bytes of all of them: of a page that several share each counts its part."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it ended since it was listed
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def _wait_for_all() -> None:
    """For the adopted too.

    Raises:
        RuntimeError: some do not end; with their names.
    """
    until = time.monotonic() + LINGER_SECONDS
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        except ChildProcessError:
            return
    left = [process.name() for process in psutil.Process().children(recursive=True)]
    raise RuntimeError(f"{', '.join(left)} still run {LINGER_SECONDS:.0f} s after the command: its cost is not known")


def main(argv: Sequence[str] | None = None) -> int:
    out, *command = sys.argv[1:] if argv is None else argv
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    started, ended, peak = time.monotonic(), threading.Event(), [0]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], memory_of(psutil.Process().children(recursive=True)))
            if ended.wait(EVERY_SECONDS):
                return

    watcher = threading.Thread(target=watch)
    with subprocess.Popen(command) as process:
        watcher.start()
        try:
            code = process.wait()
            wall = time.monotonic() - started
            _wait_for_all()
        finally:
            ended.set()
            watcher.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = Cost(used.ru_utime + used.ru_stime, wall, peak[0] / 2**30)
    Path(out).write_text(json.dumps(asdict(cost)), encoding="utf-8")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
