"""Why hosts cannot train, in a sentence each: what was tried, what ssh or the host said last, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SSH_FAILED = 255
"""ssh's exit code where it did not get there; any other is that of the command."""

_EXITED = re.compile(r"pdsh@[^:]*: (\S+): ssh exited with exit code (\d+)")

_CURES = {
    "Could not resolve": "correct its name in the hostfile, or teach this machine the name",
    "Host key verification": "add its key to ~/.ssh/known_hosts (`ssh {tried}` once by hand asks), or mend a changed one",
    "Permission denied": "let this user's key in (`ssh-copy-id {tried}`); nobody is there to type a password",
    "Connection refused": "see that sshd runs there and on which port (--ssh-port)",
    "timed out": "see that it is on and that no firewall drops the port (--ssh-port)",
    "No route": "see that it is on and on a network that this machine reaches",
}
_OTHERWISE = "see what `ssh {tried} true` says"


def host_problems(said: str, by_label: Mapping[str, str], ssh_port: int | None) -> list[str]:
    """Of each host that failed: what was tried, its own last line, and the cure.

    Args:
        said: Standard error of pdsh: lines ``LABEL: TEXT`` of hosts, and its own of who failed.
        by_label: Host of the hostfile by what pdsh may call it.
        ssh_port: Of the hosts' sshd; None: as ssh's configuration says.
    """
    last: dict[str, str] = {}
    codes: dict[str, int] = {}
    for line in filter(None, map(str.strip, said.splitlines())):
        label, _, text = line.partition(": ")
        if exited := _EXITED.fullmatch(line):
            codes[by_label.get(exited[1], exited[1])] = int(exited[2])
        elif label in by_label and text:
            last[by_label[label]] = text
    if not codes:  # pdsh itself failed
        return [line for line in said.splitlines() if line.strip()]
    port = ["-p", str(ssh_port)] if ssh_port else []
    return [_problem(host, last.get(host, "nothing"), code, [*port, host]) for host, code in codes.items()]


def _problem(host: str, last: str, code: int, tried: Sequence[str]) -> str:
    if code != SSH_FAILED:
        return f"{host}: reached by ssh, where it says {last!r}: give it the same paths and environment as this machine"
    cure = next((cure for words, cure in _CURES.items() if words in last), _OTHERWISE)
    target = " ".join(tried)
    return f"{host}: `ssh {target}` says {last!r}: {cure.format(tried=target)}"
