"""The DAGs as Airflow's own parser sees them, and every command line as the job's own parser sees it."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from etl.contracts import OUTPUTS
from labeling import cli
from tests.airflow_env import DAGS, ask

CONFS = {
    "nightly_labeling": {"root": "/data/shop", "ds": "2024-05-07"},
    "backfill_labeling": {"root": "/data/shop", "from": "2024-05-01", "to": "2024-05-07"},
    "maintain_labeling": {"root": "/data/shop"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


RANGE = CONFS["backfill_labeling"]
PINS = {"mode": "today", "bundle": "b-1", "window_days": 7, "pins": ["vocabulary=3", "click_log=9"], "force": True}
ASKED: dict[str, dict[str, Any]] = {
    "as given": {"conf": CONFS},
    "no day": {"conf": CONFS | {"nightly_labeling": {"root": "/data/shop"}}},
    "no interval": {"conf": CONFS | {"nightly_labeling": {"root": "/data/shop"}}, "interval": False},
    "hosts": {"conf": CONFS | {"nightly_labeling": CONFS["nightly_labeling"] | {"hostfile": "/etc/my hosts"}}},
    "pinned": {"conf": CONFS | {"backfill_labeling": RANGE | PINS}},
    **{until: {"conf": CONFS | {"backfill_labeling": RANGE | {"until": until}}} for until in ("plan", "diff", "publish")},
}


@pytest.fixture(scope="module")
def variants(home: Path) -> dict[str, Any]:
    """All DAGs as their runs have them, by what the run was given."""
    answers = ask(home, [("render", asked) for asked in ASKED.values()])
    return dict(zip(ASKED, answers, strict=True))


@pytest.fixture(scope="module")
def rendered(variants: dict[str, Any]) -> dict[str, Any]:
    return variants["as given"]


@pytest.fixture(scope="module")
def nightly(rendered: dict[str, Any]) -> dict[str, Any]:
    return rendered["dags"]["nightly_labeling"]


@pytest.fixture(scope="module")
def tasks(rendered: dict[str, Any]) -> dict[str, Any]:
    """Every task of every DAG that runs a command, by DAG and task."""
    every = {f"{dag}.{name}": task for dag, of in rendered["dags"].items() for name, task in of.items()}
    return {name: task for name, task in every.items() if "argv" in task}


def test_the_folder_holds_exactly_the_dags_we_mean(rendered: dict) -> None:
    assert rendered["errors"] == {}
    assert sorted(rendered["dags"]) == sorted(CONFS)


def test_tasks_of_a_night_run_in_the_order_of_the_design(nightly: dict) -> None:
    model = [f"model.{name}" for name in ("train_due", "dataset", "mine", "train", "calibrate", "promote")]
    labeling = [f"labeling.{name}" for name in ("embed", "predict", "audit", "publish", "relate", "report")]
    order = ["sample", "etl.check", "etl.pairs", *model, *labeling]
    upstream = {name: task["upstream"] for name, task in nightly.items()}
    expected = {after: [before] for before, after in pairwise(order)} | {"sample": []}
    ends = {"model.over": ["model.promote"], "model.sound": ["labeling.relate", "model.promote"]}
    joins = {
        "labeling.embed": ["etl.pairs", "model.over"],
        "labeling.report": ["labeling.predict", "labeling.publish", "labeling.relate"],
    }
    assert upstream == expected | ends | joins


def test_neither_a_training_nor_further_tables_that_fail_keep_labels_and_report_back(nightly: dict) -> None:
    rules = {name: task["trigger_rule"] for name, task in nightly.items()}
    others = {"model.over": "all_done", "model.sound": "none_failed", "etl.check": "none_failed"}
    others["labeling.report"] = "all_done_min_one_success"
    assert rules == dict.fromkeys(rules, "all_success") | others


def test_a_backfill_plans_then_makes_compares_and_publishes_each_day(rendered: dict) -> None:
    upstream = {name: task["upstream"] for name, task in rendered["dags"]["backfill_labeling"].items()}
    made = {"day.make": ["plan"], "day.diff": ["day.make", "plan"], "day.publish": ["day.diff", "plan"]}
    assert upstream == {"plan": []} | made  # the group is mapped over the plan's days, so each of its tasks follows it


def parsed(task: dict) -> Any:
    program, command, *flags = task["argv"]
    assert Path(program).name == "labeller"
    return cli.job_parser(command).parse_args(flags)


def test_every_command_line_is_understood_by_its_own_job(tasks: dict) -> None:
    days = {"nightly_labeling": "2024-05-07", "maintain_labeling": "2024-05-08"}  # that it runs on
    for name, task in tasks.items():
        found = parsed(task)
        assert found.root == "/data/shop"
        dag = name.partition(".")[0]
        if dag in days and task["argv"][1] != "sample":
            assert found.ds == days[dag], name


def test_a_backfill_makes_each_day_up_to_its_audit_compares_it_and_then_publishes_it(tasks: dict) -> None:
    day = {name.rpartition(".")[2]: parsed(task) for name, task in tasks.items() if name.startswith("backfill")}
    assert {(found.from_, found.to) for name, found in day.items() if name != "plan"} == {("2024-05-07", "2024-05-07")}
    assert (day["plan"].from_, day["plan"].to, day["plan"].action) == ("2024-05-01", "2024-05-07", "plan")
    assert (day["make"].action, day["make"].publish, day["publish"].action) == ("run", False, "run")
    assert not hasattr(day["publish"], "publish")  # the job's own default, to publish


def test_a_backfill_goes_as_far_as_it_is_asked_to(variants: dict) -> None:
    tasks = ("plan", "day.make", "day.publish")
    wanted = {
        until: [variants[until]["dags"]["backfill_labeling"][name]["wanted"] for name in tasks]
        for until in ("plan", "diff", "publish")
    }
    assert wanted == {"plan": [True, False, False], "diff": [True, True, False], "publish": [True, True, True]}


def test_what_a_backfill_pins_reaches_every_command_of_it(variants: dict) -> None:
    for task in variants["pinned"]["dags"]["backfill_labeling"].values():
        found = parsed(task)
        assert (found.mode, found.bundle, found.window_days, found.force) == ("today", "b-1", "7", True)
        assert found.pins == ["vocabulary=3", "click_log=9"]


def test_the_day_is_the_data_intervals_and_without_one_the_day_before_the_run(variants: dict) -> None:
    for given in ("no day", "no interval"):  # the worker's run starts on 2024-05-08
        assert parsed(variants[given]["dags"]["nightly_labeling"]["etl.pairs"]).ds == "2024-05-07"


def test_a_hostfile_reaches_check_and_training_and_none_leaves_the_warehouses_own(nightly: dict, variants: dict) -> None:
    for name in ("etl.check", "model.train"):
        assert not hasattr(parsed(nightly[name]), "hostfile")
        assert parsed(variants["hosts"]["dags"]["nightly_labeling"][name]).hostfile == "/etc/my hosts"


def test_every_task_has_a_slot_of_the_shared_pool_a_time_limit_an_alert_and_a_document(rendered: dict, tasks: dict) -> None:
    pools = json.loads((DAGS / "pools.json").read_text())
    for name, task in tasks.items():
        assert task["pool"] in pools, name
        assert 0 < task["hours"] <= 24, name
        assert task["alerts"] == ["Alert"], name
        assert task["doc"].startswith(f"`labeller {task['argv'][1]}"), name
    assert all(facts["doc"] and len(facts["deadline"]) == 1 for facts in rendered["facts"].values())


def test_documents_of_a_nights_tasks_say_what_the_command_says_of_itself(nightly: dict) -> None:
    for task in (task for task in nightly.values() if "argv" in task):
        command = cli.COMMANDS[task["argv"][1]]
        assert task["doc"] == f"`labeller {command.name}`: {command.summary}."


def test_stages_are_tried_again_and_training_more_often_unless_a_person_watches(tasks: dict, home: Path) -> None:
    count = {name: task["retries"] for name, task in tasks.items()}
    assert count == dict.fromkeys(count, 2) | {"nightly_labeling.model.train": 4}
    assert {task["retry_seconds"] for task in tasks.values()} == {300}
    (watched,) = ask(home, [("render", {"conf": CONFS})], LABELLER_RETRIES="0", LABELLER_DEADLINE_HOURS="0")
    assert {task["retries"] for of in watched["dags"].values() for task in of.values() if "argv" in task} == {0}
    assert [facts["deadline"] for facts in watched["facts"].values()] == [[], [], []]


def test_published_tables_are_assets_by_the_names_of_the_warehouse(nightly: dict, rendered: dict) -> None:
    labels = nightly["labeling.publish"]["outlets"]
    assert labels[0] == "labels_current"
    tables = {table.name for table in OUTPUTS}
    every = [name for of in rendered["dags"].values() for task in of.values() for name in task["outlets"]]
    assert set(every) <= tables
    further = nightly["labeling.relate"]["outlets"]
    assert rendered["dags"]["backfill_labeling"]["day.publish"]["outlets"] == [*labels, *further]


REFUSED = [
    ("nightly_labeling", {"ds": "yesterday"}, "ds: 'yesterday' is not a 'date'"),
    ("nightly_labeling", {"ds": "2024-05-07; rm -rf /"}, "is not a 'date'"),
    ("nightly_labeling", {"root": ""}, "root: "),
    ("nightly_labeling", {"root": "data/shop"}, "root: 'data/shop' does not match"),
    ("nightly_labeling", {"root": "/data\n--force"}, "does not match"),
    ("nightly_labeling", {"sample_clicks": 5}, "5 is less than the minimum"),
    ("nightly_labeling", {"hostfile": "hosts"}, "hostfile: 'hosts'"),
    ("nightly_labeling", {"force_training": "yes"}, "is not of type 'boolean'"),
    ("backfill_labeling", {"from": "2024-05-01"}, "to: No value passed"),
    ("backfill_labeling", {"from": "2024-05-32", "to": "2024-05-07"}, "is not a 'date'"),
    ("backfill_labeling", {**CONFS["backfill_labeling"], "until": "live"}, "'live' is not one of"),
    ("backfill_labeling", {**CONFS["backfill_labeling"], "bundle": "../../etc"}, "bundle: '../../etc' does not match"),
    ("backfill_labeling", {**CONFS["backfill_labeling"], "bundle": "$(reboot)"}, "does not match"),
    ("backfill_labeling", {**CONFS["backfill_labeling"], "window_days": 0}, "0 is less than the minimum"),
    ("backfill_labeling", {**CONFS["backfill_labeling"], "pins": ["vocabulary=new"]}, "'vocabulary=new' does not match"),
    ("maintain_labeling", {"root": "here"}, "root: 'here' does not match"),
]


def test_parameters_that_do_not_fit_are_refused_before_any_task_and_those_that_do_are_not(home: Path) -> None:
    wrong = [(dag, conf) for dag, conf, _ in REFUSED]
    (said,) = ask(home, [("refused", {"confs": [*wrong, *CONFS.items()]})])
    for (dag, conf, expected), found in zip(REFUSED, said, strict=False):
        assert expected in (found or "nothing"), (dag, conf)
    assert said[len(wrong) :] == [None, None, None]


def test_a_backfill_by_airflow_lists_its_days_from_first_to_last(home: Path) -> None:
    dags, days = ["--dag-id", "nightly_labeling"], ["--from-date", "2024-05-05", "--to-date", "2024-05-07"]
    words = [["db", "migrate"], ["dags", "reserialize"], ["backfill", "create", *dags, *days, "--dry-run"]]
    *_, printed = ask(home, [("command", {"words": of}) for of in words])
    listed = re.findall(r"^\D*(\d{4}-\d\d-\d\d)", printed.partition("attempted")[2], re.MULTILINE)
    assert listed == ["2024-05-05", "2024-05-06", "2024-05-07"]
