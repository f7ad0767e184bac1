"""The console command: what it lists, what it imports, and what becomes of exit codes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from etl.contracts import ITEM_TERMS
from etl.errors import EXIT_OK
from labeling import cli


def test_help_lists_every_subcommand_by_stage_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert [stage for stage in cli.STAGES if f"\n{stage}:\n" in out] == list(cli.STAGES)
    for command in cli.COMMANDS.values():
        assert f"  {command.name} " in out
        assert command.summary in out


def test_every_subcommand_has_a_module_that_can_be_found() -> None:
    lacking = [command.module for command in cli.COMMANDS.values() if importlib.util.find_spec(command.module) is None]
    assert lacking == []


def test_subcommand_gets_the_rest_of_the_line_and_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tables", "--help"])
    assert stopped.value.code == 0
    assert "usage: labeller tables" in capsys.readouterr().out


def test_exit_code_of_a_job_is_passed_through() -> None:
    assert cli.main(["tables", "--root", "/no/such/warehouse"]) == 2


def test_misspelt_subcommand_exits_with_2_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predct"]) == 2
    assert "did you mean predict?" in capsys.readouterr().err


def test_help_imports_neither_torch_nor_spark() -> None:
    code = "import sys; from labeling import cli; cli.overview(); print(sorted({'torch', 'pyspark'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tables_says_what_the_columns_of_one_table_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "item_terms"]) == EXIT_OK
    printed = capsys.readouterr().out
    assert all(column.name in printed for column in ITEM_TERMS.columns)
    assert "Why the system abstains" in printed
    assert "([predict]" in printed
