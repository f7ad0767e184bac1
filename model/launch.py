"""DeepSpeed's launcher as a watched child: its output streams through, its exit code comes back, nothing outlives us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 15.0
KEEP_MEMORY = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""Of a rank on the CPU: gradients and activations in pages of 2 MB (torch asks for them), which glibc keeps from step to
step. Fresh pages of 4 KB for each took a third of the bag's step."""


def command(module: str, arguments: Sequence[str], *, ranks: int, hostfile: str = "") -> list[str]:
    """The launcher's command line for ``ranks`` processes a machine of ``python -m module``."""
    where = ["--hostfile", hostfile] if hostfile else ["--hostfile", "", "--master_addr", "127.0.0.1"]
    return [
        str(Path(sys.executable).with_name("deepspeed")),
        *where,
        *("--num_accelerators", str(ranks), "--master_port", str(free_port())),
        *("--log_level", "error", "--no_local_rank", "--module", module, *arguments),
    ]


def environment(ranks: int, device: str, local: bool) -> dict[str, str]:
    """Variables of the ranks: threads that share the cores, and what keeps gloo and DeepSpeed where they belong."""
    variables = dict(os.environ)
    variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // ranks))
    # ninja, with which DeepSpeed builds its shared-memory op, lies beside our interpreter.
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    variables["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), variables.get("PYTHONPATH", "")])
    if device == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
        variables |= {name: value for name, value in KEEP_MEMORY.items() if name not in variables}
    if local and device == "cpu":
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback:
            variables["GLOO_SOCKET_IFNAME"] = loopback
    return variables


def run_watched(argv: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command and everything it starts to its end; returns its exit code, 128 + n where signal n ended it.

    If we are interrupted or terminated, the whole process group goes with us.
    """
    with _terminate_as_exit(), subprocess.Popen(list(argv), env=dict(variables), start_new_session=True) as process:
        try:
            code = process.wait()
        finally:
            _end_group(process)
    return code if code >= 0 else 128 - code


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        if process.poll() is None:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def _terminate_as_exit() -> Iterator[None]:
    """SIGTERM, which is what Airflow sends, ends Python without ``finally``; here it does not."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
