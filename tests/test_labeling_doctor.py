"""The diagnosis of a machine, on this machine and on ones that lack something."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeling import doctor
from labeling.machine import amount


def test_this_machine_can_run_the_pipeline_and_every_line_has_a_status(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--root", str(root)]) == 0
    out = capsys.readouterr().out
    for what in (
        "Python",
        "Java",
        "Delta jars",
        "packages",
        "compiler",
        "hosts",
        "CPU",
        "GPU",
        "memory",
        "scratch",
        "disk",
        "warehouse",
    ):
        assert what in out
    assert "fail" not in out


def test_missing_java_is_a_failure_with_the_command_that_installs_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(root))
    found = doctor.check_java()
    assert found.status == "fail"
    assert f"JAVA_HOME={root}" in found.found
    assert "openjdk-17" in found.cure
    assert doctor.main(["--root", str(root)]) == 2
    assert "no java" in capsys.readouterr().out


def test_without_pdsh_one_machine_trains_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.check_launcher()
    assert found.status == "ok"
    assert "no pdsh: training on this machine only" in found.found
    assert "no ssh" not in found.found


@pytest.mark.parametrize(
    ("version", "status"), [("17.0.9", "ok"), ("21.0.1", "warn"), ("11.0.2", "fail"), ("1.8.0_392", "fail")]
)
def test_other_javas_than_17_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, status: str
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2023-10-17' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert doctor.check_java().status == status


def test_package_of_another_version_and_a_missing_one_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "requirements" / "jobs.txt"
    file.parent.mkdir()
    file.write_text("numpy==1.0.0\n    # via x\nno-such-package==2.0\nrich==15.0.0\n")
    below = tmp_path / "some" / "where"
    below.mkdir(parents=True)
    (found,) = doctor.check_packages(doctor.requirements_file(below))
    assert found.status == "fail"
    assert "(expected 1.0.0)" in found.found
    assert "no-such-package missing (expected 2.0)" in found.found
    assert "rich" not in found.found


def test_copy_without_pins_is_a_warning_that_nothing_was_compared() -> None:
    (found,) = doctor.check_packages(None)
    assert found.status == "warn"
    assert "not compared" in found.found


def test_warehouse_that_does_not_exist_yet_is_a_warning_that_says_how_to_make_one(tmp_path: Path) -> None:
    by_name = {finding.what: finding for finding in doctor.check_root(str(tmp_path / "new" / "shop"))}
    assert by_name["warehouse"].status == "warn"
    assert "labeller sample" in by_name["warehouse"].cure
    assert str(tmp_path) in by_name["disk"].found


def test_inputs_are_looked_for_where_the_settings_say_and_bad_settings_are_a_failure(root: Path) -> None:
    (root / "warehouse.toml").write_text('[warehouse.inputs.click_log]\ntable = "shop.clicks"\n')
    assert next(f for f in doctor.check_root(str(root)) if f.what == "warehouse").found == f"{root}: click_log"
    (root / "warehouse.toml").write_text("[warehouse.inputs.clicks]\n")
    found = next(f for f in doctor.check_root(str(root)) if f.what == "warehouse")
    assert found.status == "fail"
    assert "did you mean click_log?" in found.cure


def test_compiler_that_is_not_on_the_path_is_named(tmp_path: Path) -> None:
    found = doctor.check_compiler(str(tmp_path))
    assert (found.status, found.found) == ("fail", "no g++ and no ninja")


def test_amounts_fail_below_the_first_limit_and_warn_below_the_second() -> None:
    assert [amount("disk", gb, (2, 10), "x", "free some").status for gb in (1, 5, 20)] == ["fail", "warn", "ok"]
