from __future__ import annotations

from typing import get_type_hints

import pytest

from etl.check_inputs import CheckConfig
from etl.config import SECTIONS
from etl.errors import EXIT_BAD_INPUT, InputError
from labeling import check_night, cli
from labeling.check_night import STAGES, check_settings
from model.presets import PRESETS
from model.train_config import TrainConfig
from tests.rows import DS


def settings(root, text: str) -> CheckConfig:
    (root / "warehouse.toml").write_text(text)
    return CheckConfig(root=str(root), ds=DS)


def test_settings_that_every_stage_takes_pass(root):
    check_settings(settings(root, '[warehouse]\nabsent = ["taxonomy"]\n[pairs]\nmin_users = 3\n[train]\npreset = "bag"\n'))


def test_what_any_stage_would_refuse_is_refused_at_once_with_the_name_that_was_meant(root):
    wrong = """
    [pair]
    [pairs]
    min_user = 3
    [predict]
    min_probability = 2.0
    [train]
    preset = "hybird"
    """
    with pytest.raises(InputError) as refused:
        check_settings(settings(root, wrong.replace("    ", "")))
    message = str(refused.value)
    assert "[pair] is no section: did you mean pairs?" in message
    check = settings(root, wrong.replace("    ", "").replace("[pair]\n", ""))
    with pytest.raises(InputError) as refused:
        check_settings(check)
    message = str(refused.value)
    assert "[pairs] min_user is no setting: did you mean min_users?" in message
    assert "min_probability: Input should be less than or equal to 1" in message
    assert "preset: Input should be 'published', 'hybrid', 'hybrid-both', 'bag' or 'tiny' (found 'hybird')" in message


def test_the_command_refuses_them_before_spark_starts(root, capsys):
    settings(root, "[audit]\nmax_abstension = 1\n")
    assert check_night.main(["--root", str(root), "--ds", str(DS)]) == EXIT_BAD_INPUT
    assert "did you mean max_abstention?" in capsys.readouterr().err


def test_a_missing_or_misspelt_day_is_said_in_our_words(root, capsys):
    assert check_night.main(["--root", str(root)]) == EXIT_BAD_INPUT
    assert "ds is not given: say --ds YYYY-MM-DD" in capsys.readouterr().err
    assert check_night.main(["--root", str(root), "--ds", "yesterday"]) == EXIT_BAD_INPUT
    assert "ds: 'yesterday' is no day (expected YYYY-MM-DD)" in capsys.readouterr().err


def test_no_stage_with_settings_is_forgotten():
    sections = {section for stage in STAGES for section in stage.sections}
    assert sections == set(SECTIONS) - {"sample"}
    assert cli.COMMANDS["check"].module == "labeling.check_night"


def test_the_presets_that_a_setting_may_name_are_those_that_there_are():
    assert set(get_type_hints(TrainConfig)["preset"].__args__) == set(PRESETS)
