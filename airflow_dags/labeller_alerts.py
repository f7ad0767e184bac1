"""Tell somebody: one small JSON message to an HTTP endpoint, for a task that failed and for a deadline that was missed.

The endpoint is an Airflow connection of type HTTP, so that its address and secrets stay out of code and logs. Where there is
no such connection nobody is told, and nothing fails.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import BaseNotifier, Connection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret
from requests import RequestException
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

TIMEOUT = 10  # seconds; the task's own end waits for it
TRIES = 3


class AlertNotSent(RuntimeError):
    """Nobody was told; the message says which connection, and not its address."""


class Alert(BaseNotifier):
    """Send :func:`message` of what happened; a callback of tasks (failure) and of deadlines.

    Args:
        connection: Id of the connection. Its host may be a whole address (``https://hooks.example.com/T0/B0``), its extra
            holds further headers.
        context: Airflow's, where it makes the notifier and calls it in one.
    """

    def __init__(self, connection: str, context: Any = None) -> None:
        super().__init__(context)
        self.connection = connection

    def notify(self, context: Any) -> None:
        try:
            endpoint = Connection.get(self.connection)
        except AirflowNotFoundException:
            self.log.info("there is no connection %s: nobody is told", self.connection)
            return
        if path := urlsplit(endpoint.host or "").path.strip("/"):
            mask_secret(path)  # a chat's webhook is as good as a password
        told = message(context)
        try:
            send(HttpHook("POST", self.connection), told)
        except RequestException as error:  # which names the address
            status = getattr(error.response, "status_code", "no answer")
            raise AlertNotSent(f"connection {self.connection}: {type(error).__name__}, {status} ({TRIES} tries)") from None
        self.log.info("told %s: %s", self.connection, told["text"])


@retry(retry=retry_if_exception_type(RequestException), stop=stop_after_attempt(TRIES), wait=wait_fixed(2), reraise=True)
def send(hook: HttpHook, told: Mapping[str, Any]) -> None:
    """Post the message. The hook's own ``run`` would log the address with each try that fails.

    Raises:
        requests.RequestException: nobody answered, or not with a success, at each of the tries.
    """
    with hook.get_conn() as session:
        session.post(hook.base_url, json=told, timeout=TIMEOUT).raise_for_status()


def message(context: Mapping[str, Any]) -> dict[str, Any]:
    """What is told: identifiers and an address only, since errors and parameters may hold queries and secrets.

    ``event`` is task_failed or deadline_missed; ``ds`` the day, or ``FROM/TO`` of a backfill; ``text`` all in a line, which
    is what Slack, Mattermost and Teams show. ``task`` is null for a deadline.
    """
    run = context["dag_run"]
    if isinstance(run, Mapping):  # of a deadline the scheduler sends the run as its REST API shows it
        of = {"dag": run["dag_id"], "run_id": run["dag_run_id"], "run_type": run["run_type"]}
        told = {"event": "deadline_missed", "ds": day_of(of["dag"], run), **of, "task": None, "log_url": _page(run)}
        return told | {"text": f"{of['dag']} {told['ds']}: not done by {context['deadline']['deadline_time']}"}
    task = context["ti"]
    of = {"dag": task.dag_id, "run_id": task.run_id, "run_type": str(getattr(run.run_type, "value", run.run_type))}
    shown = task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"
    fields = {"conf": run.conf, "data_interval_start": run.data_interval_start, "run_after": run.run_after}
    told = {"event": "task_failed", "ds": day_of(of["dag"], fields), **of, "task": shown, "log_url": task.log_url}
    return told | {"text": f"{of['dag']} {told['ds']}: {shown} failed at try {task.try_number}"}


def day_of(dag: str, run: Mapping[str, Any]) -> str:
    """The day, or the range of days, that a run is for; as the tasks of its DAG have it."""
    given = run["conf"] or {}
    if "from" in given:
        return f"{given['from']}/{given['to']}"
    day = given.get("ds") or run["data_interval_start"]
    if day is None:  # a run of now without an interval: a night is of the day before, upkeep of the day itself
        after = dt.date.fromisoformat(str(run["run_after"])[:10])
        day = after - dt.timedelta(days=dag == "nightly_labeling")
    return str(day)[:10]


def _page(run: Mapping[str, Any]) -> str:
    base = conf.get("api", "base_url", fallback="http://localhost:8080")
    return f"{base.rstrip('/')}/dags/{run['dag_id']}/runs/{quote(run['dag_run_id'])}"
