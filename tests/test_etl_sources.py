"""Where the inputs are, as configured: what is taken, and what is refused by name."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path

import pytest

from etl.config import JobConfig, from_args
from etl.contracts import CATALOGUE, CLICK_LOG, OVERRIDES
from etl.errors import InputError
from etl.sources import Source
from etl.warehouse import Warehouse
from tests.rows import DS


def configured(root: Path, text: str) -> JobConfig:
    (root / "warehouse.toml").write_text(text)
    return from_args(JobConfig, argparse.Namespace(config=None, root=str(root), ds=DS))


def test_a_path_is_relative_to_the_root_and_the_default_is_our_name_under_it(root):
    config = configured(root, '[warehouse.inputs.click_log]\npath = "../logs/clicks"\n')
    warehouse = Warehouse.of(config)
    assert Path(warehouse.table(CLICK_LOG)).resolve() == root.parent / "logs" / "clicks"
    assert warehouse.table(CATALOGUE) == str(root / "catalogue")


def test_an_input_whose_place_is_configured_is_never_taken_for_absent(root):
    config = configured(root, '[warehouse.inputs.overrides]\npath = "gone"\n')
    assert Warehouse.of(config).has(OVERRIDES)
    assert not Warehouse.at(str(root)).has(OVERRIDES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[warehouse.inputs.clicklog]\n", "clicklog is no input table: did you mean click_log?"),
        ('[warehouse.inputs.click_log]\npaht = "x"\n', "click_log.paht is no setting: did you mean path?"),
        (
            '[warehouse.inputs.click_log]\ncolumns = { userid = "uid" }\n',
            "click_log.columns: userid is no column of ours: did you mean user_id?",
        ),
        ('[warehouse.inputs.catalogue]\ntable = "a.b"\npath = "c"\n', "both table 'a.b' and path 'c' are given"),
        ('[warehouse.inputs.catalogue]\nday_format = "YYYYMMDD"\n', "day_format 'YYYYMMDD' is unknown (expected yyyy"),
        ('[warehouse.inputs.taxonomy]\nday_format = "yyyyMMdd"\n', "day_format is given for taxonomy, which has no day"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_could_be(root, text, message):
    with pytest.raises(InputError) as error:
        configured(root, text)
    assert message in str(error.value)


def test_all_unknown_names_are_told_at_once(root):
    with pytest.raises(InputError, match=r"no input table.*no setting"):
        configured(root, '[warehouse.inputs.clicks]\n[warehouse.inputs.catalogue]\ntabel = "x"\n')


@pytest.mark.parametrize(
    ("day_format", "text"),
    [("", "2024-05-07"), ("yyyyMMdd", "20240507"), ("dd.MM.yyyy", "07.05.2024"), ("ddMMyyyy", "07052024")],
)
def test_a_day_is_written_as_they_write_it(day_format, text):
    assert Source(day_format=day_format).day(dt.date(2024, 5, 7)) == text
