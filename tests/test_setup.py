"""What `make` says on a machine that lacks something: one sentence with the cure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import require_or_skip

CHECKOUT = Path(__file__).resolve().parent.parent


def preflight(path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = [f"{name}={value}" for name, value in variables.items()]
    env = {"PATH": path, "HOME": os.environ["HOME"]}
    return subprocess.run(["make", "preflight", *given], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)


def program(directory: Path, name: str, body: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with a shell's tools and nothing else."""
    for name in ("make", "bash", "sh", "head", "grep", "sed", "env"):
        source = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (tmp_path / name).symlink_to(source)
    return tmp_path


def test_a_missing_java_is_named_with_its_cure(bare: Path) -> None:
    done = preflight(str(bare), PYTHON=sys.executable)
    assert done.returncode != 0
    assert "no java on the PATH" in done.stderr
    assert "openjdk-17" in done.stderr


def test_a_java_of_another_version_is_refused(bare: Path) -> None:
    program(bare, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    done = preflight(str(bare), PYTHON=sys.executable)
    assert done.returncode != 0
    assert "11.0.2" in done.stderr
    assert "Java 17" in done.stderr


def test_a_python_of_another_version_is_refused(bare: Path) -> None:
    old = program(bare, "python3.9", '[ "$1" = --version ] && echo Python 3.9.1; exit 1')
    done = preflight(str(bare), PYTHON=str(old))
    assert done.returncode != 0
    assert "Python 3.9.1" in done.stderr
    assert "PYTHON=/usr/bin/python3.11" in done.stderr


@pytest.mark.parametrize("lacking", ["pdsh", "initdb", "chromium"])
def test_debian_is_asked_for_packages_only_where_a_program_is_missing(bare: Path, lacking: str) -> None:
    program(bare, "apt-get", f'echo "$@" >> {bare}/asked')
    env = {"PATH": str(bare), "HOME": os.environ["HOME"]}
    debian = bare / "postgresql"
    (debian / "15" / "bin").mkdir(parents=True)
    command = ["make", "system-packages", f"DEBIAN_POSTGRESQL={debian}"]
    places = dict.fromkeys(("ip", "ssh", "sshd", "pdsh", "chromium"), bare) | {"initdb": debian / "15" / "bin"}
    for name in set(places) - {lacking}:
        program(places[name], name, "exit 0")
    subprocess.run(command, cwd=CHECKOUT, env=env, check=True)
    asked = (bare / "asked").read_text()
    assert {"pdsh", "openssh-server", "postgresql", "chromium"} <= set(asked.split())
    program(places[lacking], lacking, "exit 0")
    subprocess.run(command, cwd=CHECKOUT, env=env, check=True)
    assert (bare / "asked").read_text() == asked


def test_what_a_laptop_lacks_skips_a_test_and_fails_it_where_all_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    require_or_skip("sh")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs no-such-program on PATH"):
        require_or_skip("sh", "no-such-program")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="needs no-such-program on PATH"):
        require_or_skip("no-such-program")


def test_no_route_to_maven_is_one_sentence_with_the_cure(tmp_path: Path) -> None:
    jars = str(tmp_path / "jars")
    script = f"import pathlib, etl.jars as j; j.jars_directory = lambda: pathlib.Path({jars!r}); raise SystemExit(j.main())"
    nowhere = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9 -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=9"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"SPARK_SUBMIT_OPTS": f"{nowhere} -Duser.home={tmp_path}"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "could not be fetched from Maven Central" in done.stderr
    assert not (tmp_path / "jars").exists()
