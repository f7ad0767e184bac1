"""Start Airflow with its metadata in PostgreSQL, for one person on this machine; Ctrl-C ends all of it.

API server, scheduler, DAG processor and triggerer of Airflow run as processes of their own, tasks in the scheduler's
LocalExecutor. Nothing listens on anything but the loopback.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_dags.stack import settings
from airflow_dags.stack.account import leave_root, own_state
from airflow_dags.stack.errors import StackError
from airflow_dags.stack.postgres import Postgres
from airflow_dags.stack.processes import run, start, tail, together, wait_for_one

log = logging.getLogger("airflow_dags.stack")

CHECKOUT = settings.DAGS.parent
STATE = CHECKOUT / "build" / "airflow-stack"
AIRFLOW = str(Path(sys.executable).with_name("airflow"))
POOLS = settings.DAGS / "pools.json"
POOL = "labelling"
COMPONENTS = {
    # A log server would listen on all addresses; the API server reads the files.
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "api-server": ["api-server"],
}
READY_SECONDS = 300.0
"""Until all components say they are well: 25 s on two idle cores, minutes beside other jobs."""


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m airflow_dags.stack", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--state", type=Path, default=STATE, help="directory of all that it keeps (default build/airflow-stack)"
    )
    parser.add_argument("--port", type=int, default=8080, help="of the web interface, on the loopback (default 8080)")
    parser.add_argument("--slots", type=int, help="jobs that run side by side (default as airflow_dags/pools.json says)")
    parser.add_argument("--account", default="nobody", help="who runs it where root calls (default nobody)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C (0); 2 with the reason where it cannot start, or where a component ends by itself."""
    args = arg_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="airflow: %(message)s")
    state = args.state.resolve()
    try:
        if os.geteuid() == 0:
            own_state(state, args.account)
            leave_root(args.account, state, [Path(sys.base_prefix), Path(sys.prefix), CHECKOUT])
            os.chdir(CHECKOUT)
        else:
            own_state(state)
        return together(lambda: _serve(state, args.port, args.slots))
    except StackError as error:
        log.error("%s", error)
        return 2


def _serve(state: Path, port: int, slots: int | None) -> int:
    try:
        with (state / "lock").open("w") as lock:
            check(lock.fileno(), state, port)
            return _run(state, port, slots)
    except StackError as error:
        log.error("%s", error)
        return 2


def check(lock: int, state: Path, port: int) -> None:
    """Refuse what could not work.

    Raises:
        StackError: another stack has the state or the port, or the jobs could not write their warehouse.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StackError(f"another one runs with {state}: end it, or name another directory with --state") from None
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"port {port} of the loopback is not to be had ({error.strerror}): name another with --port"
            ) from None
    root = os.environ.get("LABELLER_ROOT")
    if root and Path(root).exists():
        closed = [path for path in (Path(root), *Path(root).iterdir()) if path.is_dir() and not os.access(path, os.W_OK)]
        if closed:
            raise StackError(f"the jobs run under user id {os.geteuid()}, which may not write {closed[0]}: `chown -R` it")


def _run(state: Path, port: int, asked: int | None) -> int:
    pool = json.loads(POOLS.read_text())[POOL]
    slots = asked or pool["slots"]
    home = state / "airflow"
    logs = state / "logs"
    logs.mkdir(exist_ok=True)
    database = Postgres(state)
    settings.write(home, database=database.address, port=port, slots=slots)
    environment = settings.environment(home)
    _bring_compiled(CHECKOUT / ".venv" / "torch_extensions", state / "torch_extensions", environment)

    log.info("PostgreSQL and its tables (logs in %s)", logs)
    database.initialise(environment)
    server = start(database.command, environment, database.log)
    database.wait(lambda: server.poll() is None)
    run([AIRFLOW, "db", "migrate"], environment, logs / "migrate.log")
    run([AIRFLOW, "pools", "set", POOL, str(slots), pool["description"]], environment, logs / "pools.log")

    log.info("%s", ", ".join(COMPONENTS))
    started = {name: start([AIRFLOW, *words], environment, logs / f"{name}.log") for name, words in COMPONENTS.items()}
    started["postgres"] = server
    _wait_until_well(port, started, logs)
    log.info("http://127.0.0.1:%d, user %s, password in %s", port, settings.USER, settings.password_file(home))
    log.info("new DAGs are paused until you switch them on; Ctrl-C ends everything")
    names = {process.pid: name for name, process in started.items()}
    pid, code = wait_for_one(names)
    raise _ended(names[pid], code, logs)


def _bring_compiled(built: Path, own: Path, environment: dict[str, str]) -> None:
    """Give the jobs a copy of what set-up compiled for DeepSpeed, where they may not write beside it: a minute's work."""
    if built.is_dir() and not os.access(built, os.W_OK):
        # With the times of the files, by which ninja tells that nothing is to be done.
        shutil.copytree(built, own, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock"))
        environment["TORCH_EXTENSIONS_DIR"] = str(own)


def _wait_until_well(port: int, started: Mapping[str, subprocess.Popen[bytes]], logs: Path) -> None:
    """Return when every component has reported itself.

    Raises:
        StackError: one has ended, or they are not well within READY_SECONDS.
    """
    deadline = time.monotonic() + READY_SECONDS
    found: object = "no answer"
    while time.monotonic() < deadline:
        for name, process in started.items():
            if process.poll() is not None:
                raise _ended(name, process.returncode, logs)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as answer:
                found = {name: part["status"] for name, part in json.load(answer).items()}
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            found = error
        if isinstance(found, dict) and set(found.values()) == {"healthy"}:
            return
        time.sleep(0.5)
    raise StackError(f"not all components are well after {READY_SECONDS:.0f} s ({found}): look at their logs in {logs}")


def _ended(name: str, code: int, logs: Path) -> StackError:
    return StackError(f"{name} ended by itself with {code}; {tail(logs / f'{name}.log')}")


if __name__ == "__main__":
    sys.exit(main())
