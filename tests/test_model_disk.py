"""A disk that is full while a training saves: the checkpoint or bundle of before is whole, and a rerun goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.dataset import verify as verify_dataset
from etl.disk import DiskFull, naming_full_disk
from etl.warehouse import Warehouse
from model.bundle import CANDIDATE, CHAMPION, champion, set_alias, verify
from model.checkpoints import Checkpoints
from model.fit import fit
from model.ranks import Ranks
from tests.labeling_data import write_small_bundle
from tests.small_disk import SmallDisk, mounted
from tests.trainings import config, cut_off

pytestmark = pytest.mark.fault("disk-full")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk", 64) as small:
        yield small


def test_a_checkpoint_without_room_leaves_the_one_before_it_whole_and_the_training_goes_on_from_there(
    disk: SmallDisk, shop_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, checkpoints = config(shop_root), disk.path / "checkpoints"
    cut_off(settings, checkpoints, 3, monkeypatch)
    disk.fill(leaving=1 << 16)
    with pytest.raises(DiskFull, match=rf"- {checkpoints}: 0\.\d MB free"):
        fit(settings, verify_dataset(settings.dataset), checkpoints=checkpoints)
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000003"]
    disk.free()
    cut_off(settings, checkpoints, 6, monkeypatch)
    found = Checkpoints(checkpoints, Ranks()).newest()
    assert found is not None
    assert found.position.step == 6


def test_a_bundle_or_alias_without_room_leaves_the_champion_as_it_was(disk: SmallDisk) -> None:
    warehouse = Warehouse.at(str(disk.path))
    before = write_small_bundle(disk.path)
    disk.fill(leaving=1 << 16)
    with pytest.raises(DiskFull, match="No space left on device"), naming_full_disk(disk.path):
        write_small_bundle(disk.path, seed=1)
    assert sorted(path.name for path in warehouse.bundles.iterdir()) == [before.id, "candidate.json", "champion.json"]
    disk.free()
    after = write_small_bundle(disk.path, seed=1)
    set_alias(warehouse, CHAMPION, before.path)
    disk.fill()
    for alias in (CANDIDATE, CHAMPION):
        with pytest.raises(DiskFull), naming_full_disk(disk.path):
            set_alias(warehouse, alias, before.path if alias == CANDIDATE else after.path)
    assert champion(warehouse) == before.path
    assert not list(warehouse.bundles.glob(".*"))
    assert verify(before.path)["id"] == before.id
    disk.free()
    set_alias(warehouse, CHAMPION, after.path)
    assert champion(warehouse) == after.path
