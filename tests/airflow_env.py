"""Airflow's own environment, from the jobs' one in which the tests run."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
DAGS = CHECKOUT / "airflow_dags"
BIN = CHECKOUT / ".venv-airflow" / "bin"


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Variables of an Airflow that knows nothing but our DAGs, whatever the caller's shell has set."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "LABELLER"))}
    own = {"HOME": str(home), "CORE__DAGS_FOLDER": str(DAGS), "CORE__LOAD_EXAMPLES": "False"}
    return inherited | {f"AIRFLOW_{'_' * ('__' in k)}{k}": v for k, v in own.items()} | variables


def ask(home: Path, questions: Sequence[tuple[str, dict[str, Any]]], **variables: str) -> list[Any]:
    """What ``tests/airflow_worker.py`` answers to each question: the name of one of its functions, and arguments."""
    command = [str(BIN / "python"), str(CHECKOUT / "tests" / "airflow_worker.py"), str(DAGS), json.dumps(questions)]
    done = subprocess.run(command, env=environment(home, **variables), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def airflow(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Airflow's own command."""
    env = environment(home, **variables)
    return subprocess.run([str(BIN / "airflow"), *words], env=env, capture_output=True, text=True, check=False)


def run_dag(home: Path, dag: str, conf: dict, **variables: str) -> tuple[int, str]:
    """A whole run by Airflow's one-process runner: its exit code, and all that it printed."""
    once = {"LABELLER_RETRIES": "0", "LABELLER_DEADLINE_HOURS": "0"}
    done = airflow(home, "dags", "test", dag, "--conf", json.dumps(conf), **(once | variables))
    return done.returncode, done.stdout + done.stderr


def program(path: Path, body: str) -> str:
    """A program that stands for the labeller."""
    path.write_text(body)
    path.chmod(0o755)
    return str(path)


def recorder(directory: Path) -> str:
    """A labeller that writes each command to DIRECTORY/ran, prints $SAID and ends with $ENDS ("3", or "audit 3")."""
    return program(
        directory / "labeller",
        f"""#!/usr/bin/env python3
import json, os, sys
with open({str(directory / "ran")!r}, "a") as ran:
    ran.write(json.dumps(sys.argv[1:]) + "\\n")
print(os.environ.get("SAID", ""))
of, _, code = os.environ.get("ENDS", "").rpartition(" ")
sys.exit(int(code or 0) if of in ("", sys.argv[1]) else 0)
""",
    )


def commands(directory: Path) -> list[list[str]]:
    """What :func:`recorder` was asked."""
    return [json.loads(line) for line in (directory / "ran").read_text().splitlines()]


def connection(host: str, **extra: str) -> dict[str, str]:
    """The variable by which Airflow knows a connection without a database."""
    return {"AIRFLOW_CONN_LABELLER_ALERTS": json.dumps({"conn_type": "http", "host": host, "extra": extra})}


@contextmanager
def http_sink() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server on loopback: its address, and the requests that came (path, headers, body)."""
    told: list[dict[str, Any]] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.append({"path": self.path, "headers": dict(self.headers), "body": body})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """It is a test's."""

    server = HTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        server.server_close()
