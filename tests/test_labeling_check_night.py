from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

from etl.config import SECTIONS
from etl.contracts import QUALITY, RUNS
from etl.dataset_config import DatasetConfig
from etl.errors import EXIT_BAD_INPUT, InputError
from etl.tokenizer import WordHashTokenizer
from labeling import check_night, cli
from labeling.check_night import STAGES, NightConfig, check_settings
from model.bundle import write_bundle
from model.encoder import Encoder
from model.presets import PRESETS, EncoderConfig
from model.train_config import TrainConfig
from tests.delta_data import lay, run_row
from tests.rows import DS


def settings(root, text: str, **flags: str) -> NightConfig:
    (root / "warehouse.toml").write_text(text)
    return NightConfig(root=str(root), ds=DS, **flags)


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


def refusal(root, text: str, **flags: str) -> str:
    with pytest.raises(InputError) as refused:
        check_settings(settings(root, text, **flags))
    return str(refused.value)


def test_files_that_training_would_miss_hours_later_are_named_at_once(root):
    wrong = '[train]\nhostfile = "/no/hosts"\ninit_from = "/no/bert"\ndeepspeed_config = "/no/settings.json"\n'
    message = refusal(root, wrong)
    assert "hostfile /no/hosts cannot be read" in message
    assert "DeepSpeed settings /no/settings.json cannot be read" in message
    assert "there is no directory /no/bert to start from (init_from)" in message
    assert "hostfile /other/hosts cannot be read" in refusal(root, wrong, hostfile="/other/hosts")


def test_a_hostfile_needs_the_programs_that_start_the_hosts(root, monkeypatch):
    (root / "hosts").write_text("gpu-1 slots=8\n")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "pdsh is not on PATH" in refusal(root, "", hostfile=str(root / "hosts"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[train]\npreset = "published"\n', "preset 'published' needs wordpiece tokens, the dataset has wordhash"),
        ('[dataset]\ntokenizer = "both"\n', "preset 'hybrid' needs wordhash tokens, the dataset has both"),
        (
            '[train]\npreset = "tiny"\ninit_from = "BUNDLE"\n[dataset]\nrows = 4096\n',
            "the encoder of BUNDLE is not the one to train",
        ),
        ('[train]\ninit_from = "BUNDLE"\n[dataset]\nrows = 8192\n', "was not made with the tokenizer of BUNDLE"),
        (
            '[train]\ninit_from = "BUNDLE"\n[dataset]\ntokenizer = "wordpiece"\n',
            'tokenizer = "wordpiece" trains another: set [dataset] tokenizer_from = "BUNDLE"',
        ),
    ],
)
def test_an_encoder_that_does_not_suit_the_datasets_tokenizer_is_refused(root, bundle, text, message):
    assert message.replace("BUNDLE", bundle) in refusal(root, text.replace("BUNDLE", bundle))


def test_a_bundle_starts_its_own_preset_on_its_own_tokenizer(root, bundle):
    check_settings(settings(root, f'[train]\npreset = "bag"\ninit_from = "{bundle}"\n[dataset]\nrows = 4096\n'))
    check_settings(
        settings(root, f'[train]\npreset = "bag"\ninit_from = "{bundle}"\n[dataset]\ntokenizer_from = "{bundle}"\n')
    )


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("rows = 4096\n", ""),
        ('rows = 4096\n[text]\nproduct_text = "{title} {brand}"\n', "was not made with the tokenizer of"),
        ("rows = 8192\n", "was not made with the tokenizer of"),
        ('tokenizer = "wordpiece"\n', 'set [dataset] tokenizer_from = "champion"'),
    ],
)
def test_a_champion_that_cannot_be_the_start_is_said_and_stops_no_night(root, bundle, dataset, said, caplog):
    preset = "published" if "wordpiece" in dataset else "bag"
    text = f'[train]\npreset = "{preset}"\ninit_from = "champion"\n[dataset]\n{dataset}'
    check_settings(settings(root, text))  # before there is one
    (root / "bundles").mkdir()
    shutil.copytree(bundle, root / "bundles" / Path(bundle).name)
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": Path(bundle).name}))
    caplog.clear()
    check_settings(settings(root, text))
    assert said in caplog.text
    assert ("random weights" in caplog.text) == bool(said)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    """One of the preset bag, as drawn."""
    tokenizer = WordHashTokenizer(replace(DatasetConfig(root=".", ds=DS).spec(), rows=2**12))
    encoder = Encoder(EncoderConfig(rows=2**12))
    made = write_bundle(tmp_path_factory.mktemp("shop") / "bundles", encoder, tokenizer, ds=DS, metrics={}, lineage={})
    return str(made)


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


def test_tables_made_under_another_contract_are_refused_before_the_night_starts_and_older_words_are_not(root):
    lay(root / "runs", replace(RUNS, columns=RUNS.columns[:-1]), [run_row("publish")])
    lay(root / "quality", QUALITY, [])  # by another engine: no comments, no constraints
    with pytest.raises(InputError, match="run `labeller migrate`") as refused:
        check_night.run(settings(root, ""))
    assert refused.value.problems == (f"runs at {root}/runs: column settings: missing (expected string)",)
