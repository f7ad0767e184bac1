"""What a job is given names places under its root, and no link in them leads out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from etl.config import WarehouseConfig, arg_parser, from_args
from etl.contracts import CATALOGUE, ITEM_TERMS, LABELS_CURRENT
from etl.dataset import verify
from etl.durable import SEAL, write_sealed
from etl.errors import EXIT_BAD_INPUT, InputError
from etl.warehouse import Warehouse
from labeling import cli
from labeling.encoding import labelling_bundle
from model.bundle import champion, load_bundle
from model.bundle import verify as verify_bundle
from tests.bundles import promote_untrained_bundle
from tests.model_data import DS, small_shop, write_dataset

pytestmark = pytest.mark.fault("malicious")

OUT = ("../outside", "/etc", "..", ".", "a/b", "", ".writing-x", "b1\n")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is not in the warehouse."""
    path = tmp_path / "outside"
    path.mkdir()
    return path


@pytest.fixture
def warehouse(root: Path) -> Warehouse:
    return Warehouse.at(str(root))


PLACES = {
    "datasets": lambda at: at.dataset(DS),
    f"datasets/ds={DS}": lambda at: at.dataset(DS),
    "bundles": lambda at: at.bundles,
    "bundles/b1": lambda at: at.bundle("b1"),
    "staging": lambda at: at.staged(ITEM_TERMS),
    "staging/item_terms": lambda at: at.staged(ITEM_TERMS),
    "labels_current": lambda at: at.table(LABELS_CURRENT),
    f"checkpoints/ds={DS}": lambda at: at.training_checkpoints(DS),
    f"training/ds={DS}": lambda at: at.training_figures(DS),
    f"reports/ds={DS}": lambda at: at.report(DS),
    "item_index": lambda at: at.item_indexes,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_of_ours_that_is_a_link_out_of_the_root_is_refused(warehouse, outside, place):
    link = warehouse.root / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(InputError, match=r"is a link to .*outside.* \(expected a place under .*\): move it there"):
        PLACES[place](warehouse)
    link.unlink()
    (warehouse.root / "elsewhere").mkdir()
    link.symlink_to(warehouse.root / "elsewhere")  # one that stays within is as good as a directory
    PLACES[place](warehouse)


def test_an_input_may_be_a_link_since_its_path_is_free_anyway(warehouse, outside):
    (warehouse.root / "catalogue").symlink_to(outside)
    assert warehouse.table(CATALOGUE) == str(warehouse.root / "catalogue")


@pytest.mark.parametrize("name", OUT)
def test_a_bundle_is_named_by_its_id_and_by_no_path(warehouse, outside, name):
    with pytest.raises(InputError, match="give the name of a directory there"):
        warehouse.bundle(name)
    if name:
        with pytest.raises(InputError, match="give the name of a directory there"):
            labelling_bundle(warehouse, name)


def test_an_alias_that_was_pointed_out_of_the_warehouse_is_refused(warehouse, outside):
    name = promote_untrained_bundle(warehouse.root)
    shutil.move(warehouse.bundles / name, outside / name)
    (warehouse.bundles / "champion.json").write_text(json.dumps({"bundle": f"../../outside/{name}"}))
    with pytest.raises(InputError, match="give the name of a directory there"):
        champion(warehouse)


def test_a_bundle_whose_files_lie_elsewhere_is_refused(warehouse, outside):
    path = warehouse.bundle(promote_untrained_bundle(warehouse.root))
    shutil.move(path / "metrics.json", outside / "metrics.json")
    (path / "metrics.json").symlink_to(outside / "metrics.json")
    with pytest.raises(InputError, match=r"metrics.json leads out of the bundle"):
        load_bundle(path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../../outside/metrics.json"] = manifest["files"].pop("metrics.json")
    del manifest[SEAL]
    write_sealed(path / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"outside/metrics.json leads out of the bundle"):
        verify_bundle(path)


def test_a_dataset_whose_files_lie_elsewhere_is_refused(root, outside):
    directory = root / "datasets" / f"ds={DS}"
    write_dataset(directory, small_shop(titles=40, clicks=80), files=1)
    (file,) = (directory / "titles").glob("*.parquet")
    shutil.move(file, outside / file.name)
    file.symlink_to(outside / file.name)
    with pytest.raises(InputError, match=rf"titles/{file.name} is a link \(expected a file\)"):
        verify(directory)
    manifest = (directory / "manifest.json").read_text()
    (directory / "manifest.json").write_text(manifest.replace(f"titles/{file.name}", f"../../../outside/{file.name}"))
    with pytest.raises(InputError, match=rf"outside/{file.name} is missing"):
        verify(directory)


@pytest.mark.parametrize("pin", ["../catalogue=1", "catalogue=../1", "catalogue=-1", "catalogue", "click_log;=1"])
def test_a_pin_names_an_input_and_a_version_and_nothing_else(root, pin):
    args = arg_parser(WarehouseConfig, "job", "").parse_args(["--root", str(root), "--pins", pin])
    with pytest.raises(InputError, match=r"pins"):
        from_args(WarehouseConfig, args)


DAYS = ("yesterday", "2024-05-07/..", "2024-05-07' OR '1'='1", "2024-13-01", "../2024-05-07")
DATED = {"pairs", "embed", "predict", "audit", "publish", "maintain", "train", "relate"}


@pytest.mark.parametrize("ds", DAYS)
def test_a_day_that_is_none_is_refused_by_every_job_before_it_does_anything(root, ds, capsys):
    for command in DATED:
        assert cli.main([command, "--root", str(root), "--ds", ds]) == EXIT_BAD_INPUT
        assert "is no day (expected YYYY-MM-DD)" in capsys.readouterr().err
    assert list(root.iterdir()) == []
