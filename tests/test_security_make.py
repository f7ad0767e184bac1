"""What a person gives to `make` reaches the programs as one word, and is run by neither make nor the shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow_env import commands, program, recorder

pytestmark = pytest.mark.fault("malicious")

CHECKOUT = Path(__file__).resolve().parent.parent
HOSTILE = (
    "a b",
    '"; touch canary; "',
    "'; touch canary; '",
    "`touch canary`",
    "$(touch canary) $$(touch canary)",
    "$(shell touch canary)",
    "* #\\",
    "--x",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the Makefile whose environments are set up, of programs that record their arguments."""
    path = tmp_path / "checkout"
    for name in ("requirements", "build", "airflow_dags"):
        (path / name).mkdir(parents=True)
    files = ("Makefile", "setup.py", "airflow_dags/readable.sed", "requirements/jobs.txt", "requirements/airflow.txt")
    for name in files:
        shutil.copy(CHECKOUT / name, path / name)
        os.utime(path / name, (0, 0))
    for name in (".venv", ".venv-uv", ".venv-airflow"):
        (path / name / "bin").mkdir(parents=True)
        (path / name / ".ready").touch()
    recorded = Path(recorder(path))
    for name in (".venv/bin/labeller", ".venv/bin/pytest", ".venv-airflow/bin/airflow", ".venv-airflow/bin/python"):
        (path / name).symlink_to(recorded)
    (path / ".venv/bin/python").symlink_to(sys.executable)
    return path


def make(checkout: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target, its set-up left out."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))} | {"PYTHON": sys.executable}
    given = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", "-o", "preflight", "-o", "lint", "-o", "types", target, *given]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def ran(checkout: Path) -> list[list[str]]:
    """The commands, if nothing else was run."""
    assert not list(checkout.rglob("canary"))
    return commands(checkout)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_root_is_one_word_whatever_it_holds(checkout, value):
    done = make(checkout, "tables", ROOT=value)
    assert ran(checkout) == [["tables", f"--root={value}"]], done.stderr


@pytest.mark.parametrize("value", HOSTILE)
def test_a_variable_of_the_environment_is_one_word_too(checkout, value, monkeypatch):
    monkeypatch.setenv("ROOT", value)
    make(checkout, "doctor")
    assert ran(checkout) == [["doctor", f"--root={value}"]]


@pytest.mark.parametrize("value", HOSTILE[1:6])
def test_the_size_of_the_sample_its_root_and_the_number_of_test_workers_are_words(checkout, value):
    make(checkout, "sample", ROOT=f"made/{value}", CLICKS=value)
    make(checkout, "test", TEST_WORKERS=value)
    sample, tests = ran(checkout)
    assert sample == ["sample", f"--root=made/{value}", f"--clicks={value}"]
    assert (checkout / "made" / value).is_dir()
    assert value in tests


@pytest.mark.parametrize("value", HOSTILE[:7])
def test_root_and_day_of_a_night_reach_its_dag_as_they_were_given(checkout, value):
    done = make(checkout, "nightly", ROOT=value, DS=value)
    (words,) = ran(checkout)
    assert words[:4] == ["dags", "test", "nightly_labeling", "--conf"], done.stderr
    expected = {"root": str(checkout / value), "ds": value, "sample": False, "sample_clicks": 320_000}
    assert json.loads(words[4]) == expected
    refused = make(checkout, "nightly", ROOT=value)
    assert f"say which day to label, as in 'make nightly ROOT={value} DS=2024-05-07'" in refused.stderr
    assert len(ran(checkout)) == 1


def test_a_night_without_a_root_is_one_of_the_sample_and_a_root_on_a_store_stays_as_it_is(checkout):
    make(checkout, "nightly", CLICKS="6000")
    make(checkout, "nightly", ROOT="s3a://bucket/shop", DS="2024-05-08")
    sample, store = (json.loads(words[-1]) for words in ran(checkout))
    made = str(checkout / "warehouse" / "sample")
    assert sample == {"root": made, "ds": "2024-05-07", "sample": True, "sample_clicks": 6000}
    assert store == {"root": "s3a://bucket/shop", "ds": "2024-05-08", "sample": False, "sample_clicks": 320_000}


@pytest.mark.parametrize("value", HOSTILE[:6])
def test_port_account_and_root_of_an_airflow_are_words(checkout, value):
    seen = checkout / ".venv-airflow" / "bin" / "python"
    seen.unlink()
    program(seen, '#!/usr/bin/env python3\nimport os, sys\nprint(repr([*sys.argv[1:], os.environ["LABELLER_ROOT"]]))\n')
    done = make(checkout, "airflow", PORT=value, ACCOUNT=value, ROOT=value)
    words = ["-m", "airflow_dags.stack", f"--port={value}", f"--account={value}", f"{checkout}/{value}"]
    assert done.stdout == repr(words) + "\n"
    assert not list(checkout.rglob("canary"))


def test_the_labeller_itself_finds_a_root_with_quotes_blanks_and_commands_in_its_name(checkout):
    (checkout / ".venv/bin/labeller").unlink()
    (checkout / ".venv/bin/labeller").symlink_to(CHECKOUT / ".venv/bin/labeller")
    root = checkout / """a "b'; touch canary; $(touch canary) c"""
    root.mkdir()
    done = make(checkout, "tables", ROOT=str(root))
    assert done.returncode == 0, done.stderr
    assert not list(checkout.rglob("canary"))
    refused = make(checkout, "tables", ROOT=f"{root}`touch canary`")
    assert f"warehouse {root}`touch canary`" in refused.stderr.replace("\\'", "'").replace("warehouse '", "warehouse ")
    assert not list(checkout.rglob("canary"))
