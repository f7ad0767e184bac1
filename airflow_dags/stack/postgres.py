"""Airflow's metadata in a PostgreSQL of our own, on a Unix socket alone, which and knows its owner without a password."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_dags.stack.errors import StackError
from airflow_dags.stack.processes import run, tail

PROGRAMS = ("initdb", "postgres", "pg_isready")
_SOCKET_BYTES = 107
"""The longest name of a Unix socket on Linux."""
_READY_SECONDS = 60.0


def find_programs(debian: Path = Path("/usr/lib/postgresql")) -> Path:
    """The directory of PostgreSQL's programs, which Debian keeps off the PATH: the newest version there, else the PATH's.

    Raises:
        StackError: they are not installed.
    """
    versions = [path for path in debian.glob("*/bin") if all((path / name).exists() for name in PROGRAMS)]
    if versions:
        return max(versions, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)])
    found = shutil.which("initdb")
    if found and all((Path(found).resolve().parent / name).exists() for name in PROGRAMS):
        return Path(found).resolve().parent
    raise StackError(
        f"PostgreSQL's programs ({', '.join(PROGRAMS)}) are neither under {debian} nor on the PATH: install Debian's "
        "package `postgresql` (`make system-packages` as root does)"
    )


class Postgres:
    """A cluster under ``state``, of the account that runs it."""

    def __init__(self, state: Path) -> None:
        self.programs = find_programs()
        self.data = state / "postgres"
        self.socket = state / "socket"
        self.log = state / "logs" / "postgres.log"
        longest = len(bytes(self.socket / ".s.PGSQL.5432"))
        if longest > _SOCKET_BYTES:
            raise StackError(
                f"{state} is too long for a Unix socket below it ({longest} bytes, at most {_SOCKET_BYTES}): name a shorter "
                "directory with --state"
            )

    @property
    def address(self) -> str:
        """What SQLAlchemy connects to; without a secret, since the server asks the kernel who calls."""
        return f"postgresql+psycopg2://{getpass.getuser()}@/postgres?host={self.socket}"

    @property
    def command(self) -> list[str]:
        """What runs the server in the foreground."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "shared_buffers": "64MB",
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *flags]

    def initialise(self, environment: Mapping[str, str]) -> None:
        """Make the cluster, unless it is there. One that was cut off while it was made is made anew."""
        self.socket.mkdir(mode=0o700, exist_ok=True)
        if self.data.exists():
            return
        unfinished = self.data.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--auth-local=peer", "--auth-host=reject", "--encoding=UTF8", "--locale=C.UTF-8"]
        run([str(self.programs / "initdb"), "-D", str(unfinished), *options], environment, self.log.with_name("initdb.log"))
        unfinished.rename(self.data)

    def wait(self, alive: Callable[[], bool]) -> None:
        """Return when it answers.

        Raises:
            StackError: it ended, or said nothing for a minute.
        """
        deadline = time.monotonic() + _READY_SECONDS
        ask = [str(self.programs / "pg_isready"), "-q", "-h", str(self.socket), "-d", "postgres"]
        while subprocess.run(ask, check=False).returncode:
            if not alive() or time.monotonic() > deadline:
                raise StackError(f"PostgreSQL did not start; {tail(self.log)}")
            time.sleep(0.2)
