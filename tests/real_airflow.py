"""A running Airflow for a test: the stack of `make airflow`, its REST API, and what its processes were seen to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.airflow_env import BIN, CHECKOUT
from tests.listening import Seen, look

ACCOUNT = "nobody"
"""Who runs the stack where root runs the tests."""


class Airflow:
    """The stack, started by its own command in a directory that its account may enter."""

    def __init__(self, directory: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root = directory / "shop"
        self.state = directory / "state"
        self.said = directory / "said.log"
        command = [str(BIN / "python"), "-m", "airflow_dags.stack", "--port", str(self.port), "--state", str(self.state)]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [*command, "--account", ACCOUNT], cwd=CHECKOUT, env=os.environ | environment, stdout=said, stderr=said
            )
        self.seen: dict[int, Seen] = {}
        self.token = ""

    def log_in(self) -> None:
        """Wait until all components are well, and take a token for the API with the password that the stack drew."""
        self.wait(lambda: "password in" in self.said.read_text(), 600)
        password = json.loads((self.state / "airflow" / "passwords.json").read_text())["admin"]
        answer = self.ask("POST", "/auth/token", {"username": "admin", "password": password})
        self.token = answer["access_token"]
        self.seen.clear()  # the first process was root's before it became another account's

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request to the REST API."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=60) as answer:
            return json.load(answer)

    def wait(self, met: Callable[[], Any], seconds: float) -> Any:
        """Look every two seconds until ``met`` gives something; looks at the processes meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            self.look()
            with suppress(urllib.error.HTTPError):
                if found := met():
                    return found
            assert self.process.poll() is None, self.said.read_text()[-3000:]
            assert time.monotonic() < deadline, f"not in {seconds:.0f} s; logs in {self.state / 'logs'}"
            time.sleep(2)

    def look(self) -> None:
        """Note who runs each process of the stack and where it listens."""
        look(self.process.pid, self.seen)

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run of the nightly DAG."""
        return self.ask("GET", f"/api/v2/dags/nightly_labeling/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"]


@contextmanager
def running(shop: Callable[[Path], None], **environment: str) -> Iterator[Airflow]:
    """The stack with the warehouse that ``shop`` lays into a directory; nothing of either is left."""
    directory = Path(tempfile.mkdtemp(prefix="labeller-airflow-"))  # pytest's own are for their owner alone
    directory.chmod(0o755)
    shop(directory / "shop")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", ACCOUNT, str(directory / "shop")], check=True)
    stack = Airflow(directory, LABELLER_ROOT=str(directory / "shop"), **environment)
    try:
        yield stack
    finally:
        stack.process.terminate()
        stack.process.wait(120)
        shutil.rmtree(directory)
