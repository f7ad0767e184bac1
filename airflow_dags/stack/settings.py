"""Airflow's settings for the stack: ``airflow.cfg`` and secrets that are drawn once, in files for their owner alone."""

from __future__ import annotations

import base64
import configparser
import io
import json
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from airflow_dags.stack.errors import StackError

USER = "admin"
ALERTS = "labeller_alerts"
"""Connection that alerts go to."""
DAGS = Path(__file__).resolve().parent.parent
SPARE_WORKERS = 2
"""Processes for tasks beyond the pool's slots: callbacks and tasks of no pool of ours need some too."""


def password_file(home: Path) -> Path:
    """Where the password of :data:`USER` stands."""
    return home / "passwords.json"


def write(home: Path, *, database: str, port: int, slots: int) -> None:
    """Lay ``airflow.cfg`` and the password into ``home``; a second start keeps secrets and password."""
    home.mkdir(mode=0o700, exist_ok=True)
    if not password_file(home).exists():
        _write_private(password_file(home), json.dumps({USER: secrets.token_urlsafe(16)}) + "\n")
    url = f"http://127.0.0.1:{port}"
    config = configparser.RawConfigParser()
    config.read(home / "airflow.cfg")
    fresh = {
        ("core", "fernet_key"): base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        ("api", "secret_key"): secrets.token_urlsafe(32),
        ("api_auth", "jwt_secret"): secrets.token_urlsafe(64),
    }
    kept = {name: config.get(*name, fallback=value) for name, value in fresh.items()}
    told = {
        ("core", "dags_folder"): str(DAGS),
        ("core", "load_examples"): "False",
        ("core", "executor"): "LocalExecutor",
        ("core", "parallelism"): str(slots + SPARE_WORKERS),
        ("core", "execution_api_server_url"): f"{url}/execution/",
        ("core", "simple_auth_manager_users"): f"{USER}:admin",
        ("core", "simple_auth_manager_passwords_file"): str(password_file(home)),
        ("database", "sql_alchemy_conn"): database,
        ("api", "host"): "127.0.0.1",
        ("api", "port"): str(port),
        ("api", "base_url"): url,
        ("api", "workers"): "1",
        ("logging", "base_log_folder"): str(home / "logs"),
    }
    sections: dict[str, dict[str, str]] = {}
    for (section, name), value in (kept | told).items():
        sections.setdefault(section, {})[name] = value.replace("%", "%%")  # Airflow reads a single one as a reference
    config = configparser.RawConfigParser()
    config.read_dict(sections)
    text = io.StringIO()
    config.write(text)
    _write_private(home / "airflow.cfg", text.getvalue())


def environment(home: Path) -> dict[str, str]:
    """Variables of all components: the caller's, less Airflow settings that belong to another Airflow.

    Raises:
        StackError: ``LABELLER_ALERTS_URL`` is no address of a web server.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    kept["AIRFLOW_HOME"] = str(home)
    address = os.environ.get("LABELLER_ALERTS_URL")
    if address:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise StackError("LABELLER_ALERTS_URL is no address of the form http://HOST:PORT/PATH or https://…")
        # As a variable it is on no disk, and gone with the next start without it.
        kept[f"AIRFLOW_CONN_{ALERTS.upper()}"] = json.dumps({"conn_type": "http", "host": address})
    return kept


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    aside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)
