"""What is said of hosts that cannot train, by real sshds of this machine that refuse."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.errors import InputError
from model.hosts import Hosts
from model.launch import free_port
from model.unreachable import host_problems
from tests.needs import require_or_skip

KNOWN = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
UNKNOWN = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[int]:
    """Port of one that lets in who has the key ``user``."""
    require_or_skip("pdsh", "ssh", "sshd", "ssh-keygen", root=True)
    for name in ("host", "user", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd leaves its privileges; made by its service otherwise
    port = free_port()
    settings = f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
    (tmp_path / "config").write_text(settings + "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n")
    with subprocess.Popen([str(shutil.which("sshd")), "-D", "-f", str(tmp_path / "config")]) as process:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield port
        process.terminate()


@pytest.mark.parametrize(
    ("key", "options", "path", "parts"),
    [
        (
            "user",
            UNKNOWN,
            "/",
            ["`ssh -p PORT 127.0.0.1` says 'Host key verification failed.': add its key to ~/.ssh/known"],
        ),
        ("other", KNOWN, "/", ["Permission denied (publickey", "let this user's key in (`ssh-copy-id -p PORT 127.0.0.1`)"]),
        (
            "user",
            KNOWN,
            "/nowhere",
            ["reached by ssh, where it says \"ls: cannot access '/nowhere'", "give it the same paths"],
        ),
    ],
)
def test_a_host_that_refuses_is_said_in_one_line_with_what_to_do(tmp_path, monkeypatch, sshd, key, options, path, parts):
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", f"-F none -i {tmp_path}/{key} -o IdentitiesOnly=yes {options}")
    hosts = Hosts(file=tmp_path / "hostfile", slots={"127.0.0.1": 1}, ssh_port=sshd)
    with pytest.raises(InputError) as refused:
        hosts.meet([Path(path)], "cpu")
    (problem,) = refused.value.problems
    assert problem.startswith("127.0.0.1: ")
    for part in parts:
        assert part.replace("PORT", str(sshd)) in problem


def test_what_pdsh_has_against_its_own_call_is_passed_on():
    assert host_problems("pdsh@here: no remote hosts specified\n", {"one": "one"}, None) == [
        "pdsh@here: no remote hosts specified"
    ]
