"""Processes that take one step whenever they are asked to: so that what is compared takes turns on a shared machine.

A process prints, as a line of JSON, the CPU seconds that it has used so far (``{"cpu": 1.5}``) when it is ready and after
every step, and then waits for a line; waiting costs no CPU time. On a GPU what counts is the time from a line to the answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any

import numpy as np

FEWEST = 5
"""Pairs of measurements for an interval: of log-normal times it held the ratio in 74% with 3, 87% with 4, 95% with 5."""


def pause() -> None:
    """In such a process: ready for the next step."""
    import torch  # only those that take steps have it loaded already

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    print(json.dumps({"cpu": time.process_time()}), flush=True)
    if not sys.stdin.readline():
        raise SystemExit("nobody asks for steps any more")


class Paced:
    """One of them, from outside."""

    def __init__(self, argv: Sequence[str], task: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        """Started, and ready when this returns.

        Args:
            argv: Command.
            task: Its last argument, as JSON; ``threads`` of it may compute, on ``device``.
            variables: Environment.
        """
        self.errors = TemporaryFile()  # noqa: SIM115 (as long as the process)
        self.wall = task.get("device") == "cuda"
        # Threads that spin while they wait would be counted as work, on either side; beside a GPU all may help.
        threads = {"OMP_NUM_THREADS": str(task["threads"]), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        threads = {} if self.wall else threads
        self.process = subprocess.Popen(
            [*argv, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=dict(variables) | threads,
        )
        self.spent = self._spent()

    def step(self) -> float:
        """CPU seconds of one more step; of a step on a GPU the seconds that pass."""
        before, started = self.spent, time.monotonic()
        self._ask()
        self.spent = self._spent()
        return time.monotonic() - started if self.wall else self.spent - before

    def finish(self) -> None:
        """After the last step: let it end.

        Raises:
            RuntimeError: it failed.
        """
        self._ask()
        self.process.communicate()
        if self.process.returncode:
            raise self._failure()

    def _ask(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _spent(self) -> float:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"cpu"'):  # libraries print reports of their own
                return float(json.loads(line)["cpu"])
        raise self._failure()

    def _failure(self) -> RuntimeError:
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace")[-2000:]
        return RuntimeError(f"{self.process.args!r} ended with {code} before it had taken its steps:\n{said}")


def race(processes: Mapping[str, Paced], steps: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each step but the first ``warm_up``: in turn, each process first every other time; then let them end."""
    found: dict[str, list[float]] = {name: [] for name in processes}
    for step in range(steps):
        for name in list(processes)[:: -1 if step % 2 else 1]:
            found[name].append(processes[name].step())
    for process in processes.values():
        process.finish()
    return {name: seconds[warm_up:] for name, seconds in found.items()}


def interval(over: Sequence[float], base: Sequence[float], draws: int = 2_000) -> tuple[float, float, float]:
    """Ratio of the medians of paired measurements, and its 95% interval by the bootstrap over the pairs.

    Raises:
        ValueError: fewer than FEWEST pairs, whose interval would hold the ratio in three of four cases and not in 95%.
    """
    if len(over) < FEWEST:
        raise ValueError(f"{len(over)} measured steps are too few for an interval (expected >= {FEWEST}): raise --steps")
    pairs = np.array([over, base], dtype=np.float64)
    chosen = np.random.default_rng(0).integers(0, pairs.shape[1], (draws, pairs.shape[1]))
    top, bottom = np.median(pairs[:, chosen], axis=2)
    low, high = np.quantile(top / bottom, [0.025, 0.975])
    return float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high)
