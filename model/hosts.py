"""Machines of a training: read from a DeepSpeed hostfile, reached before anything starts, told what their ranks need."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from etl.errors import InputError
from model.unreachable import host_problems

ENVIRONMENT_FILE = ".deepspeed_env"
"""DeepSpeed's launcher reads it where it runs, and exports each line on every host: nothing else of ours gets there."""

SSH_OPTIONS = "-o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
"""Nobody is there to be asked for a password, and a connection that says nothing for 15 s is over."""

MEETING_SECONDS = 60.0
"""Longest wait for all hosts' answers; ssh itself gives up connecting after 10 s."""

KEEP_MEMORY = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""Of a rank on the CPU: gradients and activations in pages of 2 MB (torch asks for them), which glibc keeps from step to
step. Fresh pages of 4 KB for each took a third of the bag's step."""

_LINE = re.compile(r"((?:\w[\w.-]*@)?\w[\w.-]*)\s+slots=([1-9]\d*)")
_PLAIN = re.compile(r"[\w@+=:,./-]+")
_TOLD = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "DS_ACCELERATOR")
_FORWARDED = ("GLOO_", "NCCL_", "TORCH_", *KEEP_MEMORY)
_ANSWERS = "echo address $(hostname -I); echo cores $(nproc); echo amx $(grep -cwm1 amx_bf16 /proc/cpuinfo)"
"""What a host says of itself, one line a question; what it does not know leaves its line short."""


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

    def require_place(self, node: int) -> None:
        """See that a machine that was started by itself can find the others.

        Raises:
            InputError: the hostfile has no such place, or nobody says where rank 0 is.
        """
        if node >= len(self.slots):
            raise InputError(f"node_rank is {node}, but {self.file} names {len(self.slots)} hosts (expected 0 to one less)")
        if not self.master_addr:
            raise InputError("node_rank is given without master_addr (expected the first host's address for the others)")

    def interface_variables(self) -> dict[str, str]:
        """What says which network interface the collectives take, where that is configured."""
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        return dict.fromkeys(names, self.interface) if self.interface else {}

    def ssh_variables(self) -> dict[str, str]:
        """What makes pdsh reach the hosts; options of the user's own come first, so they win."""
        port = f"-p {self.ssh_port}" if self.ssh_port else ""
        words = (os.environ.get("PDSH_SSH_ARGS_APPEND", ""), SSH_OPTIONS, port)
        return {"PDSH_RCMD_TYPE": "ssh", "PDSH_SSH_ARGS_APPEND": " ".join(filter(None, words))}

    def require_means(self, paths: Sequence[Path]) -> None:
        """See that this machine has what starts the others, and that ``paths`` get there as they are.

        Raises:
            InputError: pdsh or ssh is missing here, or a path holds what a remote shell would read.
        """
        for program in ("pdsh", "ssh"):
            if shutil.which(program) is None:
                raise InputError(
                    f"{program} is not on PATH, and with a hostfile DeepSpeed starts the hosts with it: install it "
                    "(Debian: pdsh, openssh-client), or leave --hostfile out to train on this machine"
                )
        # Neither pdsh nor DeepSpeed quotes them.
        odd = [f"{path}" for path in paths if not _PLAIN.fullmatch(str(path))]
        if odd:
            raise InputError.of(
                odd, heading="paths that hosts share may hold letters, digits and @+=:,./-_ only; these do not:"
            )

    def meet(self, paths: Sequence[Path], device: Literal["auto", "cpu", "cuda"]) -> ReachedHosts:
        """Reach every host just as the launcher will, see that ``paths`` are there, and ask what the machine is.

        Args:
            paths: What all hosts must have.
            device: Where to train; ``auto`` asks each host's torch for GPUs.

        Raises:
            InputError: as :meth:`require_means`; a host cannot be reached or lacks a path (all such are listed); some have
                GPUs and some none, or the first does not know its address, and the settings leave that to them.
        """
        self.require_means(paths)
        asked = f"ls -d {' '.join(map(str, paths))} >/dev/null && {{ {_ANSWERS}; }}"
        if device == "auto":
            asked += f" && {sys.executable} -c 'import torch; print(\"gpus\", torch.cuda.device_count())'"
        argv = ["pdsh", "-S", "-w", ",".join(self.slots), asked]
        try:
            variables = {**os.environ, **self.ssh_variables()}
            done = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False, timeout=MEETING_SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError(
                f"hosts of {self.file} did not all answer in {MEETING_SECONDS:.0f} s (by pdsh and ssh): see which one "
                "`ssh HOST true` does not come back from"
            ) from None
        if done.returncode:
            raise InputError.of(
                host_problems(done.stderr, self._by_label(), self.ssh_port),
                heading=f"not every host of {self.file} can train (needed: ssh without a password, and the same paths of "
                "environment, code and warehouse on all of them):",
            )
        return self._reached(done.stdout, device)

    def _reached(self, said: str, device: Literal["auto", "cpu", "cuda"]) -> ReachedHosts:
        """From the lines ``LABEL: QUESTION ANSWER …`` of all hosts."""
        by_label = self._by_label()
        answers: dict[str, dict[str, list[str]]] = {host: {} for host in self.slots}
        for line in said.splitlines():
            label, _, words = line.partition(": ")
            if label in by_label and words.split():
                question, *answer = words.split()
                answers[by_label[label]][question] = answer
        first = next(iter(self.slots))
        address = [self.master_addr] if self.master_addr else answers[first]["address"]
        if not address:
            raise InputError(f"{first} names no address of its own (hostname -I): give --master-addr")
        if device == "auto":
            device = self._common_device({host: int(answer["gpus"][0]) for host, answer in answers.items()})
        return ReachedHosts(
            hosts=replace(self, master_addr=address[0]),
            device=device,
            amx=all(answer["amx"] == ["1"] for answer in answers.values()),
            threads=max(1, min(int(answers[host]["cores"][0]) // ranks for host, ranks in self.slots.items())),
        )

    def _by_label(self) -> dict[str, str]:
        return {label: host for host in self.slots for label in labels(host)}

    def _common_device(self, gpus: Mapping[str, int]) -> Literal["cpu", "cuda"]:
        without = [host for host, number in gpus.items() if not number]
        if without and len(without) < len(gpus):
            having = [host for host in gpus if host not in without]
            raise InputError(
                f"hosts of {self.file} differ: torch finds GPUs on {', '.join(having)} and none on {', '.join(without)} "
                "(expected on all or none): leave some out, mend their drivers, or say --device cpu"
            )
        return "cpu" if without else "cuda"

    def write_environment(self, directory: Path, variables: Mapping[str, str]) -> None:
        """Leave in ``directory`` what DeepSpeed's launcher exports on each host; ``variables`` are a rank's on this one."""
        exported = {name: value for name, value in variables.items() if name.startswith(_FORWARDED)}
        exported |= {name: variables[name] for name in _TOLD if name in variables}
        exported["PATH"] = f"{Path(sys.executable).parent}:$PATH"  # the host's own, which its shell puts there
        exported |= self.interface_variables()
        lines = "".join(f"{name}={value}\n" for name, value in exported.items())
        (directory / ENVIRONMENT_FILE).write_text(lines, encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedHosts:
    """Machines that have answered, and what of them decides how all train."""

    hosts: Hosts
    """With the address of rank 0."""
    device: Literal["cpu", "cuda"]
    amx: bool
    """Whether all have it."""
    threads: int
    """Cores of each rank, where there are fewest."""


def labels(host: str) -> tuple[str, str]:
    """What pdsh may call a host in front of its lines: never with the user, and without the domain if all share it."""
    name = host.rpartition("@")[2]
    return name, name.partition(".")[0]


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


def name_interface(master: str, *, alone: bool) -> None:
    """Tell gloo and NCCL this machine's network interface on the way to rank 0, where nobody has told them.

    gloo would take that of the machine's own name, which on Debian is the loopback: no other host gets there.

    Args:
        master: Address of rank 0.
        alone: Whether all ranks are on this machine.

    Raises:
        InputError: the way is not to be found, or it is the loopback and there are other machines.
    """
    variables = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    if all(name in os.environ for name in variables):
        return
    interface = interface_towards(master)
    loopback = interface.startswith("lo")
    if loopback and not alone:
        raise InputError(
            f"{socket.gethostname()}: the way to rank 0 at {master} is {interface} (expected an interface that other hosts "
            "reach): give --master-addr an address that this machine has on the network, or --interface; on Debian "
            "/etc/hosts gives a machine's own name 127.0.1.1"
        )
    for name in variables:
        os.environ.setdefault(name, interface)


def interface_towards(address: str) -> str:
    """Name of this machine's network interface on the way to ``address``; the one that has it, where it is our own.

    Raises:
        InputError: there is no way by IPv4, or it starts at an address that no interface has.
    """
    cure = "give --master-addr an IPv4 address of the first host, or --interface"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # asks the routing table, sends nothing
            own = probe.getsockname()[0]
    except OSError as error:
        raise InputError(f"{socket.gethostname()}: no way by IPv4 to rank 0 at {address} ({error}): {cure}") from None
    for name, found in psutil.net_if_addrs().items():
        if any(a.address == own for a in found):
            return name
    raise InputError(
        f"{socket.gethostname()}: the way to rank 0 at {address} starts at {own}, which no interface has (expected one of "
        f"{', '.join(psutil.net_if_addrs())}): {cure}"
    )
