"""Machines of a training: read from a DeepSpeed hostfile, reached before anything starts, told what their ranks need."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from etl.errors import InputError

ENVIRONMENT_FILE = ".deepspeed_env"
"""DeepSpeed's launcher reads it where it runs, and exports each line on every host: nothing else of ours gets there."""

SSH_OPTIONS = "-o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
"""Nobody is there to be asked for a password, and a connection that says nothing for 15 s is over."""

MEETING_SECONDS = 60.0
"""Longest wait for all hosts' answers; ssh itself gives up connecting after 10 s."""

_LINE = re.compile(r"((?:\w[\w.-]*@)?\w[\w.-]*)\s+slots=([1-9]\d*)")
_PLAIN = re.compile(r"[\w@+=:,./-]+")
_FORWARDED = ("GLOO_", "NCCL_", "TORCH_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Machines that train together; rank 0 is on the first."""

    file: Path
    slots: Mapping[str, int]
    """Number of ranks by host, in the order of the ranks."""
    master_addr: str = ""
    """Address of the first host as the others see it; empty: the first that it has itself."""
    master_port: int = 29_500
    """Where rank 0 listens."""
    ssh_port: int | None = None
    """Of the hosts' sshd; None: what ssh's configuration says."""
    interface: str = ""
    """Network interface of the collectives on every host; empty: each host's way to the first."""

    @property
    def ranks(self) -> int:
        """Of all hosts together."""
        return sum(self.slots.values())

    def ssh_variables(self) -> dict[str, str]:
        """What makes pdsh reach the hosts; options of the user's own come first, so they win."""
        port = f"-p {self.ssh_port}" if self.ssh_port else ""
        words = (os.environ.get("PDSH_SSH_ARGS_APPEND", ""), SSH_OPTIONS, port)
        return {"PDSH_RCMD_TYPE": "ssh", "PDSH_SSH_ARGS_APPEND": " ".join(filter(None, words))}

    def meet(self, paths: Sequence[Path]) -> str:
        """Reach every host just as the launcher will, and see that ``paths`` are there; returns the address of rank 0.

        Raises:
            InputError: pdsh or ssh is missing here, or a host cannot be reached or lacks a path; all such are listed.
        """
        for program in ("pdsh", "ssh"):
            if shutil.which(program) is None:
                raise InputError(
                    f"{program} is not on PATH, and with a hostfile DeepSpeed starts the hosts with it: install it "
                    "(Debian: pdsh, openssh-client), or leave --hostfile out to train on this machine"
                )
        _require_plain(paths)
        argv = ["pdsh", "-S", "-w", ",".join(self.slots), f"ls -d {' '.join(map(str, paths))} >/dev/null && hostname -I"]
        try:
            variables = {**os.environ, **self.ssh_variables()}
            done = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False, timeout=MEETING_SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError(
                f"hosts of {self.file} did not all answer in {MEETING_SECONDS:.0f} s (by pdsh and ssh)"
            ) from None
        if done.returncode:
            raise InputError.of(
                [line for line in done.stderr.splitlines() if line.strip()],
                heading=f"not every host of {self.file} can train (needed: ssh without a password, and the same paths of "
                "environment, code and warehouse on all of them):",
            )
        return self.master_addr or _first_address(done.stdout, next(iter(self.slots)))

    def write_environment(self, directory: Path, variables: Mapping[str, str]) -> None:
        """Leave in ``directory`` what DeepSpeed's launcher exports on each host; ``variables`` are a rank's on this one."""
        exported = {name: value for name, value in variables.items() if name.startswith(_FORWARDED)}
        exported |= {name: variables[name] for name in ("OMP_NUM_THREADS", "DS_ACCELERATOR") if name in variables}
        exported["PATH"] = f"{Path(sys.executable).parent}:$PATH"  # the host's own, which its shell puts there
        if self.interface:
            exported |= {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}
        lines = "".join(f"{name}={value}\n" for name, value in exported.items())
        (directory / ENVIRONMENT_FILE).write_text(lines, encoding="utf-8")


def read_hostfile(file: Path) -> dict[str, int]:
    """Number of ranks by host of a DeepSpeed hostfile: lines ``NAME slots=N``, empty ones and ``#`` comments aside.

    Raises:
        InputError: no such file, no host in it, or lines that cannot be used, all of which are listed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"hostfile {file} cannot be read: {error}") from None
    slots: dict[str, int] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip()
        match = _LINE.fullmatch(words)
        if not match:
            problems += [f"line {number}: {words!r} (expected NAME slots=N, with N the ranks there, at least 1)"] * bool(
                words
            )
        elif match[1] in slots:
            problems.append(f"line {number}: {match[1]} is there already (expected one line a host)")
        else:
            slots[match[1]] = int(match[2])
    if problems:
        raise InputError.of(problems, heading=f"hostfile {file} refused:")
    if not slots:
        raise InputError(f"hostfile {file} names no host (expected lines NAME slots=N)")
    return slots


def name_interface(master: str) -> None:
    """Tell gloo and NCCL this machine's network interface on the way to rank 0, where nobody has told them.

    gloo would take that of the machine's own name, which on Debian is the loopback: no other host gets there.
    """
    interface = interface_towards(master)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if not interface.startswith("lo"):  # on one machine NCCL finds the way by itself
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def interface_towards(address: str) -> str:
    """Name of this machine's network interface on the way to ``address``; the one that has it, where it is our own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # asks the routing table, sends nothing
        own = probe.getsockname()[0]
    return next(name for name, found in psutil.net_if_addrs().items() if any(a.address == own for a in found))


def _require_plain(paths: Sequence[Path]) -> None:
    """Neither pdsh nor DeepSpeed quotes what the remote shell gets."""
    odd = [f"{path}" for path in paths if not _PLAIN.fullmatch(str(path))]
    if odd:
        raise InputError.of(odd, heading="paths that hosts share may hold letters, digits and @+=:,./-_ only; these do not:")


def _first_address(said: str, host: str) -> str:
    """Of ``hostname -I`` on ``host``, from lines ``NAME: ADDRESS ADDRESS …``; a NAME is without its user."""
    name = host.rpartition("@")[2]
    found = next((line.removeprefix(f"{name}:").split() for line in said.splitlines() if line.startswith(f"{name}:")), [])
    if not found:
        raise InputError(f"{host} names no address of its own (hostname -I): give --master-addr")
    return found[0]
