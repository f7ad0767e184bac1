"""DeepSpeed's launcher or torch's as a watched child: its output streams through, its exit code comes back."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from etl.termination import terminated_as_exit
from model.hosts import KEEP_MEMORY, Hosts, ReachedHosts, labels

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[1]

GRACE_SECONDS = 15.0
FAILURE_GRACE_SECONDS = 5.0
"""For what other hosts' ranks have to say after one has failed."""

_WITH_GUARD = ("sh", "-c", 'exec 3<&0; { cat <&3; kill -KILL 0; } >/dev/null 2>&1 & exec "$@"', "sh")
"""Runs a command beside a guard that kills the process group when standard input ends: pdsh does not look at its own."""


def command(module: str, arguments: Sequence[str], *, ranks: int) -> list[str]:
    """The launcher's command line for ``ranks`` processes on this machine of ``python -m module``."""
    where = ["--hostfile", "", "--master_addr", "127.0.0.1", "--num_accelerators", str(ranks)]
    return _deepspeed(*where, "--master_port", str(free_port()), "--module", module, *arguments)


def run_on_hosts(module: str, arguments: Sequence[str], reached: ReachedHosts, directory: Path) -> int:
    """Run ``python -m module`` in all ranks of hosts by DeepSpeed's own ssh launcher; returns its exit code.

    Args:
        module: What each rank runs.
        arguments: Of the module; they may hold no blanks.
        reached: All machines.
        directory: One that all hosts have, for the launcher's files.
    """
    hosts = reached.hosts
    variables = environment(1, reached.device, local=False) | {"OMP_NUM_THREADS": str(reached.threads)}
    hosts.write_environment(directory, variables)
    # --force_multi: DeepSpeed takes a hostfile of one host for this machine. We have seen to ssh ourselves, on all hosts.
    where = ["--hostfile", str(hosts.file), "--force_multi", "--no_ssh_check", "--master_addr", hosts.master_addr]
    argv = _deepspeed(*where, "--master_port", str(hosts.master_port), "--module", module, *arguments)
    return run_watched(
        [*_WITH_GUARD, *argv], variables | hosts.ssh_variables(), directory=directory, hosts=list(hosts.slots)
    )


def run_as_node(module: str, arguments: Sequence[str], hosts: Hosts, node: int, device: str) -> int:
    """Run the ranks of this machine alone, one of several that something else starts; returns the launcher's exit code.

    Args:
        module: What each rank runs.
        arguments: Of the module.
        hosts: All machines, with the address of the first.
        node: This one's place among them.
        device: Where to train.
    """
    where = ["--hostfile", str(hosts.file), "--no_ssh", "--node_rank", str(node), "--master_addr", hosts.master_addr]
    argv = _deepspeed(*where, "--master_port", str(hosts.master_port), "--module", module, *arguments)
    ranks = list(hosts.slots.values())[node]
    return run_watched(argv, environment(ranks, device, local=False) | hosts.interface_variables())


def torch_command(module: str, arguments: Sequence[str], *, ranks: int, directory: Path) -> list[str]:
    """That of torch's own launcher, torchrun, for ``ranks`` processes on this machine.

    It keeps its state in a file of ``directory``: its own store would listen on every interface of the machine.
    """
    state = ("--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint", str(directory / "rendezvous"))
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(ranks), *state),
        *("--local-addr", "127.0.0.1", "--module", module, *arguments),
    ]


def environment(ranks: int, device: str, local: bool) -> dict[str, str]:
    """Variables of the ranks: threads that share the cores, and what keeps gloo and DeepSpeed where they belong."""
    variables = dict(os.environ)
    variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // ranks))
    # Threads that wait sleep. By default they spin, and keep the cores from each other where others work too: at a load of
    # 12 on 2 cores one rank of 2 threads took 69 s for 135 steps of `tiny` and 12 s so (1 thread: 13), for 30 of `hybrid`
    # 69 and 16 (1 thread: 19).
    variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # ninja, with which DeepSpeed builds its shared-memory op, lies beside our interpreter.
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    variables["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), variables.get("PYTHONPATH", "")])
    variables["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # torchrun opens none for the ranks
    if device == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
        variables |= {name: value for name, value in KEEP_MEMORY.items() if name not in variables}
    if local and device == "cpu":
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback:
            variables["GLOO_SOCKET_IFNAME"] = loopback
    return variables


def run_watched(
    argv: Sequence[str], variables: Mapping[str, str], *, directory: Path | None = None, hosts: Sequence[str] = ()
) -> int:
    """Run a command and everything it starts to its end; returns its exit code, 128 + n where signal n ended it.

    If we are interrupted or terminated, the whole process group goes with us. Its standard input ends when we do, by which
    ranks notice where we were killed. With ``hosts``, pdsh is among it: where one of them fails, the others are ended.
    """
    pipe = subprocess.PIPE
    with (
        terminated_as_exit(),
        subprocess.Popen(
            list(argv),
            env=dict(variables),
            cwd=directory,
            stdin=pipe,
            stderr=pipe if hosts else None,
            start_new_session=True,
        ) as process,
    ):
        try:
            if process.stderr:
                _pass_on(process.stderr, hosts, lambda: _end_group(process, (signal.SIGKILL,)))
            code = process.wait()
        finally:
            # On SIGTERM DeepSpeed's launcher kills by name on each host, and so the ranks of other trainings there. Killed,
            # it takes ssh along, and that the ranks' standard input.
            _end_group(process, (signal.SIGKILL,) if hosts else (signal.SIGTERM, signal.SIGKILL))
    return code if code >= 0 else 128 - code


def _pass_on(said: IO[bytes], hosts: Sequence[str], end: Callable[[], None]) -> None:
    """Pass the launcher's lines on to their end; from pdsh's first that a host failed, the others have a grace for theirs.

    pdsh waits for all hosts, and where one never started the others would wait for it until their own time-out.
    """
    names = "|".join(re.escape(label) for host in hosts for label in labels(host))
    failed = re.compile(rf"pdsh@[^:]*: ({names}): (.+)".encode())
    ending: threading.Timer | None = None
    for line in said:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        match = failed.match(line)
        if match and not ending:
            log.error("host %s failed (%s): the others are ended", match[1].decode(), match[2].decode())
            ending = threading.Timer(FAILURE_GRACE_SECONDS, end)
            ending.daemon = True
            ending.start()
    if ending:
        ending.cancel()


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_group(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals]) -> None:
    for number in signals:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        if process.poll() is None:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def _deepspeed(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("deepspeed")), "--log_level", "error", "--no_local_rank", *arguments]
