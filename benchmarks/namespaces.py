"""Hosts that are network namespaces of this machine: each has an address, an sshd and a cable to one switch.

Nothing of it is in the machine's own network, so that runs side by side do not meet.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("ip", "pdsh", "sshd", "ssh-keygen")
NAMES = ("one", "two", "three")
PORT = 2222


@dataclass
class Cluster:
    """Hosts by the names that ssh knows them by, and ``head``, from which they are reached."""

    directory: Path
    tag: str
    names: Sequence[str]

    def hostfile(self, number: int) -> Path:
        """Of the first hosts, one rank each."""
        file = self.directory / f"hostfile-{number}"
        file.write_text("".join(f"{name} slots=1\n" for name in self.names[:number]))
        return file

    def start(self, argv: Sequence[str], **variables: str) -> subprocess.Popen[str]:
        """A command on the head, whose ssh finds the hosts; its output in one pipe."""
        env = os.environ | {"PDSH_SSH_ARGS_APPEND": f"-F {self.directory / 'ssh_config'}"} | variables
        command = ["ip", "netns", "exec", f"{self.tag}-head", *argv]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ranks(self, *names: str) -> list[int]:
        """Process ids of the training ranks on these hosts; on all, if none is named."""
        return [pid for name in names or self.names for pid in pids(f"{self.tag}-{name}") if is_rank(pid)]

    def cut(self, name: str) -> None:
        """Pull a host's cable."""
        ip("-n", f"{self.tag}-switch", "link", "set", name, "down")

    def mend(self, name: str) -> None:
        """Plug it in again."""
        ip("-n", f"{self.tag}-switch", "link", "set", name, "up")


@contextmanager
def cluster(directory: Path, hosts: int) -> Iterator[Cluster]:
    """As many hosts, with their sshds running; all of it and all that runs there goes at the end."""
    made = Cluster(directory, f"t{os.getpid()}", NAMES[:hosts])
    everywhere = ("switch", "head", *made.names)
    try:
        for name in everywhere:
            ip("netns", "add", f"{made.tag}-{name}")
            ip("-n", f"{made.tag}-{name}", "link", "set", "lo", "up")
        ip("-n", f"{made.tag}-switch", "link", "add", "bridge", "type", "bridge")
        ip("-n", f"{made.tag}-switch", "link", "set", "bridge", "up")
        for number, name in enumerate(everywhere[1:]):
            _plug_in(made.tag, name, f"10.0.0.{number + 1}/24")
        _serve_ssh(made)
        yield made
    finally:
        for name in everywhere:
            for pid in pids(f"{made.tag}-{name}"):
                with suppress(ProcessLookupError):  # some end by themselves, now that others have
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", f"{made.tag}-{name}"], check=False)


def _plug_in(tag: str, name: str, address: str) -> None:
    there = ("-n", f"{tag}-{name}")
    ip(*there, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", f"{tag}-switch")
    ip("-n", f"{tag}-switch", "link", "set", name, "master", "bridge", "up")
    ip(*there, "address", "add", address, "dev", "eth0")
    ip(*there, "link", "set", "eth0", "up")


def _serve_ssh(made: Cluster) -> None:
    """Keys, an sshd on each host, and the configuration with which ssh finds them."""
    here = made.directory
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(here / key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd leaves its privileges; made by its service otherwise
    server = (
        f"Port {PORT}\nHostKey {here}/host_key\nAuthorizedKeysFile {here}/user_key.pub\nStrictModes no\n"
        "UsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nPidFile none\n"
    )
    (here / "sshd_config").write_text(server)
    client = f"Host *\n  IdentityFile {here}/user_key\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
    for number, name in enumerate(made.names):
        client += f"Host {name}\n  HostName 10.0.0.{number + 2}\n"
        listen = [str(shutil.which("sshd")), "-f", str(here / "sshd_config"), "-E", str(here / f"sshd-{name}.log")]
        ip("netns", "exec", f"{made.tag}-{name}", *listen)
    (here / "ssh_config").write_text(client + "Host *\n  LogLevel ERROR\n")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def pids(namespace: str) -> list[int]:
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]


def is_rank(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"model.worker" in words and b"deepspeed.launcher.launch" not in words


def gone_within(seconds: float, made: Cluster) -> bool:
    """Whether no rank is left on any host by then."""
    deadline = time.monotonic() + seconds
    while made.ranks() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not made.ranks()
