"""What becomes of a command's exit code in Airflow, and that no parameter is ever read by a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeling import cli
from tests.airflow_env import ask, commands, recorder

EVIL = "/data/$(touch CANARY); `touch CANARY` \"; touch CANARY; ' {{ 1 + 1 }} --force\t*"
DAYS = [(3, {"pairs": "why"}, ""), (2, {}, ""), (1, {}, "no bundle")]
PLAN = json.dumps(
    [{"ds": f"2024-05-0{n}", "stages": stages, "problem": problem, "bundle": ""} for n, stages, problem in DAYS]
)
PARAMS = [
    ("nightly_labeling", "model.train", ("root", "hostfile")),
    ("nightly_labeling", "etl.pairs", ("root", "ds")),
    ("backfill_labeling", "plan", ("root", "from", "to", "order", "mode", "bundle")),
    ("maintain_labeling", "maintain", ("root",)),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


def case(task: str, dag: str = "nightly_labeling", params: dict[str, Any] | None = None, **env: str) -> tuple[str, dict]:
    given = {"root": "/data/shop", "ds": "2024-05-07", "from": "2024-05-01", "to": "2024-05-03"} | (params or {})
    return "execute", {"dag": dag, "task": task, "params": given, "env": env}


@pytest.fixture(scope="module")
def executed(here: Path) -> dict[str, dict[str, Any]]:
    """Tasks that ran, each for itself and all in one process of Airflow."""
    evil = EVIL.replace("CANARY", str(here / "canary"))
    plan = {"dag": "backfill_labeling", "task": "plan"}
    cases = {f"ends {code}": case("labeling.audit", ENDS=f"{code}") for code in (0, 1, 2, 3, 75, 99)}
    cases |= {"publish": case("labeling.publish"), "sample": case("sample")}
    cases |= {"day": case("day.publish", "backfill_labeling", {"until": "publish"})}
    cases |= {"plan": case(**plan, SAID=PLAN), "no plan": case(**plan, SAID="java.lang.Nonsense")}
    cases |= {f"{dag} {task}": case(task, dag, dict.fromkeys(names, evil), SAID="[]") for dag, task, names in PARAMS}
    return dict(zip(cases, ask(here, list(cases.values()), LABELLER_BIN=recorder(here)), strict=True))


def test_bad_input_and_a_refused_gate_are_not_tried_again_and_all_else_that_fails_is(executed: dict) -> None:
    again, never = "AirflowException", "AirflowFailException"
    ended = {code: executed[f"ends {code}"]["ended"] for code in (0, 1, 2, 3, 75, 99)}
    assert ended == {0: "well", 1: again, 2: never, 3: never, 75: again, 99: "AirflowSkipException"}
    assert "audit ended with 3 (a gate refused, and what is live stays live)" in executed["ends 3"]["said"]


def test_a_published_day_tells_its_warehouse_and_day_with_each_asset(executed: dict) -> None:
    told = {"root": "/data/shop", "ds": "2024-05-07"}
    assert executed["publish"]["events"]["labels_current"] == told
    assert executed["day"]["events"]["item_terms"] == told


def test_what_is_not_asked_for_is_skipped_without_a_command(executed: dict, here: Path) -> None:
    assert executed["sample"]["ended"] == "AirflowSkipException"
    ran = {words[0] for words in commands(here)}
    assert "audit" in ran
    assert "sample" not in ran


def test_a_plan_names_the_days_that_are_to_be_made_and_those_that_cannot_be(executed: dict) -> None:
    assert executed["plan"]["result"] == [{"from": f"2024-05-0{n}", "to": f"2024-05-0{n}"} for n in (3, 1)]
    assert executed["no plan"]["ended"] == "AirflowException"
    assert "backfill plan ended with 'java.lang.Nonsense' (expected" in executed["no plan"]["said"]


@pytest.mark.fault("malicious")
@pytest.mark.parametrize(("dag", "task", "params"), PARAMS)
def test_a_parameter_is_one_word_of_the_command_whatever_is_in_it(dag, task, params, executed, here) -> None:
    evil = EVIL.replace("CANARY", str(here / "canary"))
    assert executed[f"{dag} {task}"]["ended"] == "well"
    command, *words = next(words for words in commands(here) if f"--{params[-1]}={evil}" in words)
    assert {f"--{name}={evil}" for name in params} <= set(words)
    parsed = cli.job_parser(command).parse_args(words)
    assert {getattr(parsed, {"from": "from_"}.get(name, name)) for name in params} == {evil}
    assert not (here / "canary").exists()
