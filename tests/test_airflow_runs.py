"""Whole runs of the DAGs by Airflow's one-process runner, a recorder standing for the jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.airflow_env import airflow, commands, connection, http_sink, recorder, run_dag

pytestmark = pytest.mark.slow
NIGHT = {"root": "/data/shop", "ds": "2024-05-07"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow with an empty database, and no pool: the one-process runner asks for none."""
    home = tmp_path_factory.mktemp("airflow")
    done = airflow(home, "db", "migrate")
    assert done.returncode == 0, done.stderr[-2000:]
    return home


@pytest.mark.parametrize(
    ("command", "code", "last", "red"),
    [
        ("promote", 99, "report", False),  # not promoted: the champion labels
        ("train", 1, "report", True),  # the champion labels, and the run is red
        ("pairs", 1, "pairs", True),
        ("train-due", 99, "report", False),
        ("predict", 1, "predict", True),
        ("audit", 3, "report", True),  # yesterday stays live, and the page says why
        ("publish", 1, "report", True),
        ("relate", 1, "report", True),  # the labels are live and reported, and the run is red
    ],
)
def test_an_exit_code_decides_how_far_the_night_goes(command, code, last, red, home, tmp_path) -> None:
    given = {"LABELLER_BIN": recorder(tmp_path), "ENDS": f"{command} {code}"}
    ended, printed = run_dag(home, "nightly_labeling", NIGHT, **given)
    assert (ended != 0) == red, printed[-2000:]
    ran = [words[0] for words in commands(tmp_path)]
    assert ran[-1] == last
    assert ("train" in ran) == (command not in ("train-due", "pairs"))
    assert ("promote" in ran) == (command not in ("train-due", "pairs", "train"))


@pytest.mark.parametrize(("code", "tries", "red"), [("1", 2, True), ("2", 1, True)])
def test_bad_input_is_tried_once_and_other_failures_as_often_as_is_set(code, tries, red, home, tmp_path) -> None:
    given = {"LABELLER_BIN": recorder(tmp_path), "ENDS": f"pairs {code}"}
    again = {"LABELLER_RETRIES": "1", "LABELLER_RETRY_MINUTES": "0.02"}
    ended, printed = run_dag(home, "nightly_labeling", NIGHT, **given, **again)
    assert (ended != 0) == red, printed[-2000:]
    assert [words[0] for words in commands(tmp_path)].count("pairs") == tries


def test_a_run_that_fails_alerts_once_and_an_endpoint_that_is_down_gives_no_secret_away(home, tmp_path) -> None:
    given = {"LABELLER_BIN": recorder(tmp_path), "ENDS": "audit 3"}
    with http_sink() as (address, told):
        ended, _ = run_dag(home, "nightly_labeling", NIGHT, **given, **connection(address))
    assert ended != 0
    assert [(request["body"]["task"], request["body"]["ds"]) for request in told] == [("labeling.audit", "2024-05-07")]
    down = connection("http://127.0.0.1:1/services/T0/geheim")
    ended, printed = run_dag(home, "nightly_labeling", NIGHT, **given, **down)
    assert ended != 0
    assert "Failed to send notification" in printed
    assert "geheim" not in printed


def test_a_backfill_makes_compares_and_publishes_the_days_of_its_plan_alone(home, tmp_path) -> None:
    plan = [
        {"ds": f"2024-05-0{n}", "stages": {"pairs": "why"} if n != 2 else {}, "problem": "", "bundle": "b1"}
        for n in (3, 2, 1)
    ]
    given = {"LABELLER_BIN": recorder(tmp_path), "SAID": json.dumps(plan)}
    conf = {"root": "/data/shop", "from": "2024-05-01", "to": "2024-05-03", "until": "publish"}
    ended, printed = run_dag(home, "backfill_labeling", conf, **given)
    assert ended == 0, printed[-2000:]
    ran = [(words[1], *(w for w in words if w.startswith(("--from", "--no-publish")))) for words in commands(tmp_path)]
    days = [f"--from=2024-05-0{n}" for n in (3, 1)]
    made = [("run", "--no-publish", day) for day in days]
    assert ran[0] == ("plan", "--from=2024-05-01")
    assert sorted(ran[1:]) == sorted([*made, *(("diff", day) for day in days), *(("run", day) for day in days)])
    assert all("--bundle=b1" in words for words in commands(tmp_path)[1:]), "whatever is promoted meanwhile"


def test_a_backfill_that_is_only_planned_makes_nothing(home, tmp_path) -> None:
    given = {
        "LABELLER_BIN": recorder(tmp_path),
        "SAID": '[{"ds": "2024-05-01", "stages": {"pairs": ""}, "problem": "", "bundle": ""}]',
    }
    conf = {"root": "/data/shop", "from": "2024-05-01", "to": "2024-05-01", "until": "plan"}
    ended, printed = run_dag(home, "backfill_labeling", conf, **given)
    assert ended == 0, printed[-2000:]
    assert [words[1] for words in commands(tmp_path)] == ["plan"]


def test_a_run_with_parameters_that_do_not_fit_ends_before_any_task(home, tmp_path) -> None:
    ended, printed = run_dag(home, "nightly_labeling", {"ds": "yesterday"}, LABELLER_BIN=recorder(tmp_path))
    assert ended != 0
    assert "Invalid input for param ds" in printed
    assert not (tmp_path / "ran").exists()
