"""The DAG as Airflow's own parser sees it, and every command line as the job's own parser sees it."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from labeling import cli

CHECKOUT = Path(__file__).resolve().parent.parent
AIRFLOW_PYTHON = CHECKOUT / ".venv-airflow" / "bin" / "python"

# Runs in Airflow's environment: parse the folder, render every task of the DAG, print all as JSON.
RENDER = """
import json, logging, sys
from datetime import datetime, UTC
logging.disable(logging.CRITICAL)
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.param import ParamsDict
from jinja2 import StrictUndefined
bag = DagBag(sys.argv[1])
tasks = {}
for dag in bag.dags.values():
    environment = dag.get_template_env()
    environment.undefined = StrictUndefined
    params = dag.params.dump() | json.loads(sys.argv[2])
    context = {"params": params, "data_interval_start": datetime(2024, 5, 7, tzinfo=UTC)}
    for task in dag.tasks:
        runs = hasattr(task, "bash_command")
        tasks[task.task_id] = {
            "command": task.bash_command if runs else None,
            "env": task.render_template(task.env, context, environment) if runs else {},
            "upstream": sorted(task.upstream_task_ids),
            "trigger_rule": task.trigger_rule.value,
        }
print(json.dumps({"dags": sorted(bag.dags), "errors": {k: str(v) for k, v in bag.import_errors.items()}, "tasks": tasks}))
"""


def render(home: Path, **params: object) -> dict:
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), "-c", RENDER, str(CHECKOUT / "airflow_dags"), json.dumps(params)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return render(tmp_path_factory.mktemp("airflow"), root="/data/shop", ds="2024-05-07")


def arguments(task: dict) -> list[str]:
    """The words that the task's shell would hand to the labeller."""
    script = task["command"].replace("exec ", "printf '%s\\n' ").split("; ")[-1]
    done = subprocess.run(["bash", "-c", script], env=task["env"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_folder_holds_exactly_the_dags_we_mean(rendered: dict) -> None:
    assert rendered["errors"] == {}
    assert rendered["dags"] == ["nightly_labeling"]


def test_tasks_run_in_the_order_of_the_design(rendered: dict) -> None:
    model = [f"model.{name}" for name in ("train_due", "dataset", "mine", "train", "calibrate", "promote")]
    labeling = [f"labeling.{name}" for name in ("embed", "predict", "audit", "publish", "relate", "report")]
    order = ["sample", "etl.check", "etl.pairs", *model, *labeling]
    upstream = {name: task["upstream"] for name, task in rendered["tasks"].items()}
    expected = {after: [before] for before, after in pairwise(order)} | {"sample": []}
    ends = {"model.over": ["model.promote"], "model.sound": ["labeling.relate", "model.promote"]}
    joins = {"labeling.embed": ["etl.pairs", "model.over"], "labeling.report": ["labeling.publish", "labeling.relate"]}
    assert upstream == expected | ends | joins


def test_neither_a_training_nor_further_tables_that_fail_keep_labels_and_report_back(rendered: dict) -> None:
    rules = {name: task["trigger_rule"] for name, task in rendered["tasks"].items()}
    others = {"model.over": "all_done", "model.sound": "none_failed", "etl.check": "none_failed"}
    others["labeling.report"] = "all_done_min_one_success"
    assert rules == dict.fromkeys(rules, "all_success") | others


def commands(rendered: dict) -> list[dict]:
    return [task for task in rendered["tasks"].values() if task["command"]]


def test_every_command_line_is_understood_by_its_own_job(rendered: dict) -> None:
    for task in commands(rendered):
        program, command, *flags = arguments(task)
        assert Path(program).name == "labeller"
        parsed = cli.job_parser(command).parse_args(flags)
        assert parsed.root == "/data/shop"
        if command != "sample":
            assert parsed.ds == "2024-05-07"


def test_the_day_is_the_data_intervals_when_none_is_given(tmp_path: Path) -> None:
    task = render(tmp_path, ds=None)["tasks"]["etl.pairs"]
    assert "2024-05-07" in arguments(task)


def test_a_hostfile_reaches_check_and_training_and_none_leaves_the_warehouses_own(rendered: dict, tmp_path: Path) -> None:
    evil = f"/data/my hosts $(touch {tmp_path}/canary) \" ' *"
    tasks = render(tmp_path, hostfile=evil)["tasks"]
    for name in ("etl.check", "model.train"):
        assert "--hostfile" not in arguments(rendered["tasks"][name])
        _, command, *flags = arguments(tasks[name])
        assert cli.job_parser(command).parse_args(flags).hostfile == evil
    assert not (tmp_path / "canary").exists()


def test_a_parameter_is_never_read_by_the_shell(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = f"/data/$(touch {canary}); `touch {canary}` \"; touch {canary}; '"
    for task in commands(render(tmp_path, root=evil, ds="2024-05-07")):
        assert evil in arguments(task)
    assert not canary.exists()


def run_dag(conf: dict, labeller: Path) -> str:
    """A whole run by Airflow's one-process runner, ``labeller`` standing for the jobs; returns what was printed."""
    airflow = AIRFLOW_PYTHON.parent / "airflow"
    env = os.environ | {
        "AIRFLOW_HOME": os.environ.get("AIRFLOW_HOME", str(CHECKOUT / "build" / "airflow")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LABELLER_BIN": str(labeller),
        "LABELLER_RETRIES": "0",
    }
    command = [str(airflow), "dags", "test", "nightly_labeling", "--conf", json.dumps(conf)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


@pytest.mark.parametrize("conf", [{"ds": "yesterday"}, {"root": ""}, {"sample_clicks": 5}, {"hostfile": "hosts"}])
def test_a_parameter_that_does_not_fit_is_refused_before_any_task(conf: dict, tmp_path: Path) -> None:
    printed = run_dag({"root": str(tmp_path)} | conf, Path("/bin/false"))
    assert "exit code 0" not in printed
    assert "Invalid input for param" in printed
    assert "starting task_id" not in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "last", "ends"),
    [
        ("promote", 99, "report", "exit code 0"),  # not promoted: the champion labels
        ("train", 1, "report", "exit code 1"),  # the champion labels, and the run is red
        ("pairs", 1, "pairs", "exit code 1"),
        ("train-due", 99, "report", "exit code 0"),
        ("audit", 3, "audit", "exit code 1"),
        ("publish", 1, "publish", "exit code 1"),
        ("relate", 1, "report", "exit code 1"),  # the labels are live and reported, and the run is red
    ],
)
def test_an_exit_code_decides_how_far_the_night_goes(command: str, code: int, last: str, ends: str, tmp_path: Path) -> None:
    labeller = tmp_path / "labeller"
    labeller.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/ran\nif [ "$1" = {command} ]; then exit {code}; fi\n')
    labeller.chmod(0o755)
    printed = run_dag({"root": str(tmp_path), "ds": "2024-05-07"}, labeller)
    assert ends in printed, printed[-2000:]
    ran = (tmp_path / "ran").read_text().split()
    assert ran[-1] == last
    assert ("train" in ran) == (command not in ("train-due", "pairs"))
    assert ("promote" in ran) == (command not in ("train-due", "pairs", "train"))
