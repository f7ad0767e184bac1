"""What tests want to know of Airflow: run by Airflow's own interpreter, prints one answer a question as JSON.

``python airflow_worker.py DAGS_FOLDER QUESTIONS``, these as JSON: pairs of a function below and its arguments, whose ``env``
holds variables. Questions share one process, since Airflow takes seconds to import.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import structlog
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.definitions.param import process_params
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, ParamValidationError
from airflow.sdk.execution_time.callback_supervisor import execute_callback
from airflow.sdk.execution_time.context import MacrosAccessor
from jinja2 import StrictUndefined

START = datetime(2024, 5, 7, tzinfo=UTC)
AFTER = datetime(2024, 5, 8, 3, tzinfo=UTC)


@cache
def bag(folder: str) -> BundleDagBag:
    return BundleDagBag(dag_folder=folder, bundle_path=Path(folder), bundle_name="dags-folder")


def rendered(task, params: dict, interval: bool = True):
    """The task as its run would have it; of a mapped one for 2024-05-07."""
    task = copy.copy(task)
    if task.more is not None:
        task.more = {"from": "2024-05-07", "to": "2024-05-07"}
    run = SimpleNamespace(conf=params, run_after=AFTER)
    context = {"params": params, "dag_run": run, "macros": MacrosAccessor()} | (
        {"data_interval_start": START} if interval else {}
    )
    environment = task.dag.get_template_env()
    environment.undefined = StrictUndefined
    task.render_template_fields(context, environment)
    return task


def render(folder: str, *, conf: dict, interval: bool = True) -> dict:
    """Every task of every DAG: what it would run, and how."""
    found = bag(folder)
    dags: dict[str, dict] = {}
    for dag in found.dags.values():
        tasks = dags[dag.dag_id] = {}
        params = dag.params.dump() | conf.get(dag.dag_id, {})
        for task in dag.tasks:
            told = {
                "upstream": sorted(task.upstream_task_ids), "trigger_rule": task.trigger_rule.value, "pool": task.pool,
                "doc": task.doc_md, "outlets": [asset.name for asset in task.outlets], "retries": task.retries,
                "retry_seconds": task.retry_delay.total_seconds(),
                "hours": task.execution_timeout and task.execution_timeout.total_seconds() / 3600,
                "alerts": [type(callback).__name__ for callback in task.on_failure_callback],
            }  # fmt: skip
            if hasattr(task, "command"):
                shown = rendered(task, params, interval)
                told |= {"argv": shown.argv, "wanted": str(shown.only_if) == "True"}
            tasks[task.task_id] = told
    facts = {
        name: {"deadline": [alert.interval.total_seconds() / 3600 for alert in dag.deadline or ()], "doc": dag.doc_md}
        for name, dag in found.dags.items()
    }
    return {"dags": dags, "facts": facts, "errors": {k: str(v) for k, v in found.import_errors.items()}}


def refused(folder: str, *, confs: list) -> list:
    """What Airflow says to each (DAG, parameters) before any task; null where it says nothing."""
    found, said = bag(folder), []
    for name, conf in confs:
        dag = found.dags[name]
        try:
            process_params(dag, dag.tasks[0], conf, suppress_exception=False)
            said.append(None)
        except ParamValidationError as error:
            said.append(str(error))
    return said


def execute(folder: str, *, dag: str, task: str, params: dict) -> dict:
    """Run one task for real, without a scheduler; says how it ended and what it told of its assets."""
    of = bag(folder).dags[dag]
    shown = rendered(of.get_task(task), of.params.dump() | params)
    events = {asset: SimpleNamespace(extra={}) for asset in shown.outlets}
    kinds = (AirflowSkipException, AirflowFailException, AirflowException)
    try:
        result = shown.execute({"outlet_events": events})
    except kinds as error:
        return {"ended": next(kind.__name__ for kind in kinds if isinstance(error, kind)), "said": str(error)}
    return {"ended": "well", "result": result, "events": {asset.name: event.extra for asset, event in events.items()}}


def alert(folder: str, *, connection: str) -> None:
    """A task that failed: its own conf holds what nobody must be told."""
    sys.path.append(folder)
    from labeller_alerts import Alert

    conf = {"ds": "2024-05-07", "token": "geheim", "query": "secret query"}
    run = SimpleNamespace(conf=conf, run_type="manual", data_interval_start=START, run_after=AFTER)
    task = SimpleNamespace(
        dag_id="nightly_labeling", task_id="labeling.audit", run_id="manual__1", map_index=-1, try_number=2,
        log_url="http://localhost:8080/dags/nightly_labeling/runs/manual__1/tasks/labeling.audit",
    )  # fmt: skip
    Alert(connection)({"dag_run": run, "ti": task, "exception": ValueError("secret query")})


def deadline(folder: str) -> list:
    """A deadline that is missed, as the scheduler and the executor hand it on: (went well, error)."""
    sys.path.append(folder)
    missed = bag(folder).dags["backfill_labeling"].deadline[0].callback
    run = {
        "dag_id": "backfill_labeling", "dag_run_id": "manual 2", "run_type": "manual", "data_interval_start": None,
        "run_after": "2024-05-08T03:00:00Z", "conf": {"from": "2024-05-01", "to": "2024-05-03", "token": "geheim"},
    }  # fmt: skip
    context = {"dag_run": run, "deadline": {"id": "1", "deadline_time": "2024-05-08T08:00:00+00:00"}}
    return list(execute_callback(missed.path, missed.kwargs | {"context": context}, Path(), None, structlog.get_logger()))


def day_told(folder: str, *, dag: str) -> str:
    """The day that an alert names of a run without a day of its own and without an interval."""
    sys.path.append(folder)
    from labeller_alerts import day_of

    return day_of(dag, {"conf": None, "data_interval_start": None, "run_after": AFTER})


def command(folder: str, *, words: list[str]) -> str:
    """What ``airflow WORDS`` prints."""
    from airflow.cli.cli_parser import get_parser

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        arguments = get_parser().parse_args(words)
        arguments.func(arguments)
    return printed.getvalue()


ANSWERS = {f.__name__: f for f in (render, refused, execute, alert, deadline, day_told, command)}

if __name__ == "__main__":
    folder, questions = sys.argv[1:]
    logging.disable(logging.WARNING)
    answers = []
    for what, arguments in json.loads(questions):
        variables = arguments.pop("env", {})
        before = dict(os.environ)
        os.environ.update(variables)
        with contextlib.redirect_stdout(sys.stderr):
            answers.append(ANSWERS[what](folder, **arguments))
        for name in variables:
            os.environ.pop(name)
        os.environ.update(before)
    print(json.dumps(answers))
