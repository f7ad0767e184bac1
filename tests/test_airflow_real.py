"""A real Airflow (scheduler, API server, DAG processor, triggerer, PostgreSQL) runs nights and a backfill of three days."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from tests.airflow_env import CHECKOUT, http_sink
from tests.listening import LOOPBACK
from tests.needs import require_postgresql
from tests.real_airflow import ACCOUNT, running

SLOTS = 2
FIRST, DAYS = "2024-05-05", ("2024-05-06", "2024-05-07", "2024-05-08")
HOOK = "T0-whoever-knows-this-may-post"
SETTINGS = """
[spark]
driver_memory = "1g"
[pairs]
min_users = 2
window_days = 4
valid_share = 0.1
test_share = 0.1
[dataset]
rows = 4096
[train]
preset = "tiny"
epochs = 4
"""
pytestmark = pytest.mark.slow


def shop(root: Path) -> None:
    """A small warehouse of eight days."""
    root.mkdir()
    (root / "warehouse.toml").write_text(SETTINGS)
    labeller = str(CHECKOUT / ".venv" / "bin" / "labeller")
    subprocess.run([labeller, "sample", "--root", str(root), "--clicks", "4000", "--items", "300"], check=True)


@pytest.fixture(scope="module")
def done() -> Iterator[dict]:
    """A night that trains and then three days side by side, with what was seen and who was told."""
    require_postgresql()
    # 3.6 s: every run misses its deadline.
    late = {"LABELLER_DEADLINE_HOURS": "0.001", "LABELLER_RETRIES": "0"}
    with http_sink() as (sink, told), running(shop, LABELLER_ALERTS_URL=f"{sink}/{HOOK}", **late) as airflow:
        airflow.log_in()
        api = "/api/v2/dags/nightly_labeling"
        airflow.wait(lambda: airflow.ask("GET", api), 120)
        airflow.ask("PATCH", api, {"is_paused": False})

        night = airflow.ask("POST", f"{api}/dagRuns", {"logical_date": None, "conf": {"ds": FIRST}})["dag_run_id"]
        airflow.wait(lambda: airflow.ask("GET", f"{api}/dagRuns/{night}")["end_date"], 3600)

        span = {"from_date": f"{DAYS[0]}T00:00:00Z", "to_date": f"{DAYS[-1]}T00:00:00Z"}
        backfill = airflow.ask("POST", "/api/v2/backfills", {"dag_id": "nightly_labeling", "max_active_runs": 3} | span)
        of_backfill = f"{api}/dagRuns?run_type=backfill"
        airflow.wait(lambda: airflow.ask("GET", f"/api/v2/backfills/{backfill['id']}")["completed_at"], 3600)
        runs = airflow.ask("GET", of_backfill)["dag_runs"]
        airflow.wait(lambda: set(DAYS) <= {request["body"]["ds"] for request in told}, 120)
        yield {
            "root": airflow.root,
            "airflow": airflow,
            "night": airflow.ask("GET", f"{api}/dagRuns/{night}"),
            "runs": {run["logical_date"][:10]: run for run in runs},
            "tasks": {name: airflow.tasks(name) for name in [night, *(run["dag_run_id"] for run in runs)]},
            "pool": airflow.ask("GET", "/api/v2/pools/labelling"),
            "alerts": [request["body"] for request in told],
        }


def test_the_first_night_trains_and_the_days_of_the_backfill_label(done: dict) -> None:
    assert done["night"]["state"] == "success", done["tasks"][done["night"]["dag_run_id"]]
    assert {day: run["state"] for day, run in done["runs"].items()} == dict.fromkeys(DAYS, "success")
    for run_id, tasks in done["tasks"].items():
        states = {task["task_id"]: task["state"] for task in tasks}
        assert states["model.train"] == ("success" if run_id == done["night"]["dag_run_id"] else "skipped")


def test_every_day_is_in_the_history_and_the_newest_is_live(done: dict) -> None:
    terms = pl.read_delta(str(done["root"] / "item_terms"))
    assert set(terms["ds"].cast(pl.String)) == {FIRST, *DAYS}
    runs = pl.read_delta(str(done["root"] / "runs")).filter(pl.col("stage") == "publish")
    assert set(runs["ds"].cast(pl.String)) == {FIRST, *DAYS}
    today = pl.read_parquet(done["root"] / "catalogue" / f"ds={DAYS[-1]}" / "*.parquet")
    assert set(pl.read_delta(str(done["root"] / "labels_current"))["item_id"]) == set(today["item_id"])


def test_the_pool_limits_how_many_jobs_of_all_days_run_side_by_side(done: dict) -> None:
    assert done["pool"]["slots"] == SLOTS
    # What ran a command: of an empty task the scheduler writes a start and an end microseconds apart, and asks no pool.
    jobs = [task for tasks in done["tasks"].values() for task in tasks if task["pool"] == "labelling" and task["pid"]]
    assert len(jobs) > 30
    ends = [(job["end_date"], -1) for job in jobs]
    running = most = 0
    for _, change in sorted([(job["start_date"], 1) for job in jobs] + ends):
        running += change
        most = max(most, running)
    assert most == SLOTS, "side by side, and no more"
    by_day = {run["dag_run_id"]: (run["start_date"], run["end_date"]) for run in done["runs"].values()}
    assert max(start for start, _ in by_day.values()) < min(end for _, end in by_day.values()), "three days at once"


def test_somebody_is_told_of_each_day_that_missed_its_deadline_and_of_no_failure_of_theirs(done: dict) -> None:
    alerts = [alert for alert in done["alerts"] if alert["ds"] in (FIRST, *DAYS)]
    assert sorted(alert["ds"] for alert in alerts) == [FIRST, *DAYS]
    for alert in alerts:
        assert alert["event"] == "deadline_missed"
        assert alert["dag"] == "nightly_labeling"
        assert alert["log_url"].startswith(f"http://127.0.0.1:{done['airflow'].port}/dags/nightly_labeling/runs/")


def test_a_night_that_its_inputs_lack_is_red_and_somebody_is_told(done: dict) -> None:
    """Switching the DAG on makes the night of yesterday, which the sample does not have."""
    failed = [alert for alert in done["alerts"] if alert["event"] == "task_failed"]
    assert {alert["task"] for alert in failed} == {"etl.check"}
    assert {alert["run_type"] for alert in failed} == {"scheduled"}


@pytest.mark.fault("loopback")
def test_nothing_listens_beyond_the_loopback(done: dict) -> None:
    seen = done["airflow"].seen.values()
    assert len(seen) > 30
    assert sum(bool(process.listens) for process in seen) > 3, "the API server and the jobs"
    for process in seen:
        assert process.listens <= LOOPBACK, process


def test_no_process_is_roots(done: dict) -> None:
    wanted = {pwd.getpwnam(ACCOUNT).pw_uid if os.geteuid() == 0 else os.getuid()}
    for process in done["airflow"].seen.values():
        assert process.uids == wanted, process


def test_the_log_of_a_task_is_there_for_the_web_interface(done: dict) -> None:
    run_id = done["runs"][DAYS[0]]["dag_run_id"]
    path = f"/api/v2/dags/nightly_labeling/dagRuns/{run_id}/taskInstances/labeling.publish/logs/1"
    assert "labeller publish done" in json.dumps(done["airflow"].ask("GET", path))


def test_neither_the_password_nor_the_address_of_alerts_is_in_a_log_or_a_table(done: dict) -> None:
    state = done["airflow"].state
    password = json.loads((state / "airflow" / "passwords.json").read_text())["admin"]
    files = [path for path in state.rglob("*") if path.is_file() and path.name != "passwords.json"]
    assert len(files) > 500, "the logs of tasks, and PostgreSQL's tables"
    for path in files:
        said = path.read_bytes()
        assert HOOK.encode() not in said, path
        assert password.encode() not in said, path


def test_what_the_stack_was_asked_without_a_password_is_refused(done: dict) -> None:
    airflow = done["airflow"]
    token, airflow.token = airflow.token, ""
    with pytest.raises(OSError, match="401"):
        airflow.ask("GET", "/api/v2/dags")
    airflow.token = token


def test_a_killed_stack_leaves_no_process(done: dict) -> None:
    """The last one here: it ends the stack."""
    first = psutil.Process(done["airflow"].process.pid)
    below = first.children(recursive=True)
    assert {"postgres"} < {process.name() for process in below}
    first.kill()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
