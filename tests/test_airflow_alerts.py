"""Alerts arrive at an HTTP endpoint, say what happened and where, and nothing that is secret."""

from __future__ import annotations

import pytest

from tests.airflow_env import ask, connection, http_sink

URL = "http://localhost:8080/dags/{}/runs/{}"


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list, list]:
    """What a sink was told of a failed task and of a missed deadline, and how callbacks ended."""
    down = connection("http://127.0.0.1:1/hook")
    with http_sink() as (address, told):
        hook = connection(f"{address}/hooks/T0", Authorization="Bearer b")
        questions = [
            ("alert", {"connection": "labeller_alerts", "env": hook}),
            ("deadline", {"env": connection(address)}),
            ("deadline", {"env": down}),
            ("deadline", {}),
            ("day_told", {"dag": "nightly_labeling"}),
            ("day_told", {"dag": "maintain_labeling"}),
        ]
        return told, ask(tmp_path_factory.mktemp("airflow"), questions)[1:]


@pytest.mark.fault("personal-data")
def test_a_failed_task_is_told_by_identifiers_only(alerts: tuple) -> None:
    request = alerts[0][0]
    assert (request["path"], request["headers"]["Authorization"]) == ("/hooks/T0", "Bearer b")
    assert request["headers"]["Content-Type"] == "application/json"
    assert request["body"] == {
        "event": "task_failed",
        "dag": "nightly_labeling",
        "ds": "2024-05-07",
        "run_id": "manual__1",
        "run_type": "manual",
        "task": "labeling.audit",
        "log_url": f"{URL.format('nightly_labeling', 'manual__1')}/tasks/labeling.audit",
        "text": "nightly_labeling 2024-05-07: labeling.audit failed at try 2",
    }


def test_a_missed_deadline_is_told_with_the_same_fields_and_the_runs_page(alerts: tuple) -> None:
    told, ended = alerts
    assert ended[0] == [True, None]
    assert told[1]["body"] == {
        "event": "deadline_missed",
        "dag": "backfill_labeling",
        "ds": "2024-05-01/2024-05-03",
        "run_id": "manual 2",
        "run_type": "manual",
        "task": None,
        "log_url": URL.format("backfill_labeling", "manual%202"),
        "text": "backfill_labeling 2024-05-01/2024-05-03: not done by 2024-05-08T08:00:00+00:00",
    }


def test_a_run_without_an_interval_is_told_by_the_day_that_its_tasks_work_for(alerts: tuple) -> None:
    assert alerts[1][3:] == ["2024-05-07", "2024-05-08"]  # both start on the 8th


def test_without_a_connection_nobody_is_told_and_nothing_fails(alerts: tuple) -> None:
    told, ended = alerts
    assert ended[2] == [True, None]
    assert len(told) == 2


def test_an_endpoint_that_is_down_fails_the_callback_of_a_deadline(alerts: tuple) -> None:
    well, error = alerts[1][1]
    assert not well
    assert "AlertNotSent: connection labeller_alerts: ConnectionError, no answer (3 tries)" in error
