"""The whole Airflow on one machine: its settings, what it refuses, and that its processes end together."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from airflow_dags.stack import __main__ as stack
from airflow_dags.stack import account, settings
from airflow_dags.stack.errors import StackError
from airflow_dags.stack.postgres import PROGRAMS, Postgres, find_programs
from tests.needs import require_or_skip

CHECKOUT = Path(__file__).resolve().parent.parent
# A component and what tasks do: a process in a session of its own, whose parent is gone; both carry the mark.
KEEP = """
import os, sys
from pathlib import Path
from airflow_dags.stack.processes import start, together, wait_for_one
mark, trap = sys.argv[1:]
sleep = f"import pathlib, signal, sys, time; {trap}; pathlib.Path(sys.argv[1], sys.argv[2]).touch(); time.sleep(300)"
def body():
    component = start([sys.executable, "-c", sleep, mark, "component"], os.environ, Path(mark) / "component.log")
    start(["sh", "-c", 'setsid "$0" -c "$1" "$2" task &', sys.executable, sleep, mark], os.environ, Path(mark) / "sh.log")
    print(os.getpid(), component.pid, flush=True)
    wait_for_one([component.pid])
    return 2
sys.exit(together(body, grace=2))
"""


def marked(mark: Path) -> set[int]:
    """Processes that were given the directory as an argument."""
    return {p.pid for p in psutil.process_iter(["cmdline"]) if str(mark) in (p.info["cmdline"] or [])}


def until(met: bool | object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.fixture
def kept(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict]:
    """Processes that shall end together, started below a parent of their own."""
    trap = getattr(request, "param", "0")
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))",
         sys.executable, "-c", KEEP, str(tmp_path), trap],
        cwd=CHECKOUT, env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    keeper, component = map(int, parent.stdout.readline().split())
    until(lambda: {"component", "task"} <= {path.name for path in tmp_path.iterdir()})
    assert len(marked(tmp_path)) == 5  # and the parent, the first, the keeper
    first = psutil.Process(keeper).ppid()
    yield {"parent": parent.pid, "first": first, "keeper": keeper, "component": component, "process": parent}
    for pid in marked(tmp_path):
        os.kill(pid, signal.SIGKILL)
    parent.wait()


@pytest.mark.parametrize("killed", ["parent", "first", "keeper", "component"])
def test_whichever_process_is_killed_all_end(kept: dict, killed: str, tmp_path: Path) -> None:
    os.kill(kept[killed], signal.SIGKILL)
    if killed == "parent":
        kept["process"].wait()
    until(lambda: not marked(tmp_path))


def test_a_stop_that_is_asked_for_is_no_failure(kept: dict, tmp_path: Path) -> None:
    os.kill(kept["first"], signal.SIGINT)
    assert kept["process"].wait(30) == 0
    assert marked(tmp_path) == set()


@pytest.mark.parametrize("kept", ["signal.signal(signal.SIGTERM, signal.SIG_IGN)"], indirect=True)
def test_a_process_that_does_not_listen_is_killed_after_a_while(kept: dict, tmp_path: Path) -> None:
    asked = time.monotonic()
    os.kill(kept["first"], signal.SIGTERM)
    assert kept["process"].wait(30) == 0
    assert time.monotonic() - asked > 2
    assert marked(tmp_path) == set()


def test_secrets_and_password_are_drawn_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    settings.write(home, database="sqlite://", port=1, slots=2)
    first = {path.name: path.read_text() for path in home.iterdir()}
    settings.write(home, database="sqlite://", port=1, slots=2)
    assert {path.name: path.read_text() for path in home.iterdir()} == first
    assert set(first) == {"airflow.cfg", "passwords.json"}
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}
    assert home.stat().st_mode & 0o777 == 0o700


def test_settings_of_a_start_replace_those_of_the_one_before(tmp_path: Path) -> None:
    home = tmp_path / "100% airflow"
    for port in (8081, 8082):
        settings.write(home, database="sqlite://", port=port, slots=3)
    config = configparser.ConfigParser()
    config.read(home / "airflow.cfg")
    assert config["api"]["host"] == "127.0.0.1"
    assert config["core"]["execution_api_server_url"] == "http://127.0.0.1:8082/execution/"
    assert int(config["core"]["parallelism"]) > 3
    assert config["logging"]["base_log_folder"] == str(home / "logs")


def test_settings_of_another_airflow_do_not_reach_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW_HOME", "/opt/airflow")
    monkeypatch.delenv("LABELLER_ALERTS_URL", raising=False)
    found = settings.environment(tmp_path)
    assert found["AIRFLOW_HOME"] == str(tmp_path)
    assert "production" not in " ".join(found.values())
    assert not any(name.startswith("AIRFLOW_CONN_") for name in found)


@pytest.mark.parametrize("address", ["hooks.example.com/T0", "ftp://hooks.example.com", "http://", "/etc/passwd"])
def test_an_address_of_alerts_that_is_none_is_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELLER_ALERTS_URL", address)
    with pytest.raises(StackError, match="LABELLER_ALERTS_URL is no address"):
        settings.environment(tmp_path)


def test_the_newest_postgresql_is_taken(tmp_path: Path) -> None:
    for version in ("9.6", "15", "13"):
        (tmp_path / version / "bin").mkdir(parents=True)
        for name in PROGRAMS:
            (tmp_path / version / "bin" / name).touch()
    (tmp_path / "17" / "bin").mkdir(parents=True)  # a client alone
    assert find_programs(tmp_path) == tmp_path / "15" / "bin"


def test_a_missing_postgresql_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="Debian's package `postgresql`"):
        find_programs(tmp_path)


def test_a_state_directory_whose_socket_would_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_dags.stack.postgres.find_programs", lambda: tmp_path)
    Postgres(Path("/") / ("s" * 85))
    with pytest.raises(StackError, match=r"108 bytes, at most 107"):
        Postgres(Path("/") / ("s" * 86))


def test_two_stacks_on_one_state_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as one, (tmp_path / "lock").open("w") as other:
        stack.check(one.fileno(), tmp_path, 0)
        with pytest.raises(StackError, match="another one runs with"):
            stack.check(other.fileno(), tmp_path, 0)


def test_a_port_that_another_program_has_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken, (tmp_path / "lock").open("w") as lock:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} .*name another with --port"):
            stack.check(lock.fileno(), tmp_path, port)


@pytest.mark.parametrize(("name", "found"), [("root", "is root"), ("no-such-account", "no account")])
def test_root_and_an_unknown_account_are_refused(name: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=found):
        account.leave_root(name, tmp_path, [])
    assert os.geteuid() == psutil.Process().uids().effective


def as_nobody(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code after root was left; ``needed`` lies where only root may enter, as this test's directories do."""
    require_or_skip(root=True)
    needed, state = tmp_path / "needed", tmp_path / "state"
    needed.mkdir()
    (needed / "file").write_text("read")
    (tmp_path / "secret").write_text("not for others")
    tmp_path.chmod(0o700)
    before = f"""
import os, sys
from pathlib import Path
from airflow_dags.stack import account
needed, state, secret = map(Path, {(str(needed), str(state), str(tmp_path / "secret"))})
account.own_state(state, "nobody")
account.leave_root("nobody", state, [Path(sys.base_prefix), Path(sys.prefix), Path({str(CHECKOUT)!r}), needed])
"""
    return subprocess.run([sys.executable, "-c", before + code], cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_who_left_root_reads_what_it_needs_writes_its_state_and_never_returns(tmp_path: Path) -> None:
    done = as_nobody(
        tmp_path,
        """
assert (needed / "file").read_text() == "read"
(state / "written").touch()
assert not secret.exists(), "the directory above shows what is needed only"
assert os.getresuid() == (os.geteuid(),) * 3 and 0 not in os.getresuid() + os.getresgid() and os.getgroups() == []
assert os.environ["HOME"] == str(state)
import subprocess
subprocess.run([sys.executable, "-c", "import json"], check=True)
try:
    os.setuid(0)
except PermissionError:
    print("for good")
""",
    )
    assert done.stdout == "for good\n", done.stderr
    assert (tmp_path / "state" / "written").exists()
    assert (tmp_path / "secret").exists()


def test_a_warehouse_that_the_jobs_could_not_write_is_refused(tmp_path: Path) -> None:
    done = as_nobody(
        tmp_path,
        """
from airflow_dags.stack.__main__ import check
os.environ["LABELLER_ROOT"] = str(needed)
with (state / "lock").open("w") as lock:
    check(lock.fileno(), state, 0)
""",
    )
    assert f"may not write {tmp_path / 'needed'}: `chown -R` it" in done.stderr


def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    require_or_skip(root=True)
    with pytest.raises(StackError, match=r"belongs to user id 0, not to \d+: remove it"):
        account.own_state(tmp_path, "nobody")
