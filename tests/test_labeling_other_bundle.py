"""A bundle that lies under the name of another is refused by whatever takes a bundle, with both names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from etl.errors import EXIT_BAD_INPUT
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from labeling import cli
from model.bundle import CANDIDATE, CHAMPION, set_alias, write_bundle
from model.encoder import Encoder
from model.presets import EncoderConfig
from tests.model_data import DS, small_shop, write_dataset

OTHER = "0123456789ab"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, str]:
    """A warehouse whose champion and candidate is OTHER, where the files of another bundle lie, and the id of that one."""
    warehouse = Warehouse(tmp_path_factory.mktemp("mixed"))
    write_dataset(warehouse.dataset(DS), small_shop(titles=20, clicks=40), rows=2**10)
    torch.manual_seed(0)
    encoder, tokenizer = Encoder(EncoderConfig(rows=2**10, dim=8)), load_tokenizer(warehouse.dataset(DS))
    lineage = {"inputs": {}, "dataset": str(DS)}
    made = write_bundle(warehouse.bundles, encoder, tokenizer, ds=DS, metrics={"heldout": {}}, lineage=lineage)
    shutil.copytree(made, warehouse.bundles / OTHER)
    for name in (CHAMPION, CANDIDATE):
        set_alias(warehouse, name, warehouse.bundles / OTHER)
    return Path(warehouse.root), made.name


@pytest.mark.fault("model-damaged")
@pytest.mark.parametrize(
    "command",
    [
        ["dataset", "--tokenizer-from", "champion"],
        ["mine"],
        ["train", "--preset", "tiny", "--engine", "torch", "--init-from", "champion"],
        ["train", "--preset", "tiny", "--engine", "torch", "--init-from", "ROOT/bundles/OTHER"],
        ["train", "--preset", "tiny", "--engine", "torch", "--distil-from", "ROOT/bundles/OTHER"],
        ["calibrate"],
        ["calibrate", "--bundle", "OTHER"],
        ["promote"],
        ["embed"],
        ["embed", "--bundle", "OTHER"],
        ["evaluate"],
        ["label", "red shoe"],
        ["export-onnx", "--out", "ROOT/onnx"],
    ],
    ids=" ".join,
)
def test_a_stage_that_takes_a_bundle_refuses_the_files_of_another_under_its_name(mixed, command, capsys):
    root, made = mixed
    given = [word.replace("ROOT", str(root)).replace("OTHER", OTHER) for word in command]
    day = [] if command[0] in ("label", "export-onnx") else ["--ds", str(DS)]
    assert cli.main([*given, "--root", str(root), *day]) == EXIT_BAD_INPUT
    assert f"bundles/{OTHER} holds bundle {made} (expected {OTHER}" in capsys.readouterr().err
