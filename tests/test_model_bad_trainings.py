"""Trainings that learn nothing end with an error or at the gate, and the champion's alias stays as it is, to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from etl.dataset import verify
from etl.errors import EXIT_GATE_REFUSED, EXIT_NOTHING_DUE, EXIT_OK, InputError
from etl.warehouse import Warehouse
from model import promote
from model.bundle import CANDIDATE, add_calibration, set_alias
from model.fit import fit
from model.trainer import Collapsed, NotFinite
from model.worker import finish
from tests.model_data import DS, Shop, small_shop, write_dataset
from tests.trainings import config

pytestmark = pytest.mark.fault("bad-training")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Beside other jobs the threads of a small training wait for each other twenty times as long as they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(root: Path, shop: Shop, **changes) -> None:
    """Make a shop the day's dataset, and a calibrated candidate of it, as `labeller train` does, in one process."""
    shutil.rmtree(root / "datasets", ignore_errors=True)
    settings = config(root, **changes)
    manifest = write_dataset(settings.dataset, shop)
    path = finish(settings, manifest, fit(settings, verify(settings.dataset)), "cpu")
    add_calibration(path, {})
    set_alias(Warehouse.at(str(root)), CANDIDATE, path)


def gate(root: Path, *more: str) -> int:
    return promote.main(["--root", str(root), "--ds", str(DS), *more])


def refused(root: Path) -> list[str]:
    return json.loads((root / "bundles" / "candidate.json").read_text())["refused"]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    train(root, small_shop())
    assert gate(root) == EXIT_OK
    return root


@pytest.fixture
def labelling(promoted: Path, root: Path) -> Iterator[Path]:
    """A copy of a warehouse with a champion that has passed the gate, whose alias must be the same afterwards."""
    shutil.copytree(promoted, root, dirs_exist_ok=True)
    yield root
    assert (root / "bundles" / "champion.json").read_bytes() == (promoted / "bundles" / "champion.json").read_bytes()


def one_title() -> Shop:
    """All items have one text, so there is one title."""
    shop = small_shop()
    shop.titles = {1000: "zoom 39 black"}
    shop.clicks = [(query, 1000) for query, _ in shop.clicks]
    shop.heldout = [(split, query, [1000]) for split, query, _ in shop.heldout]
    return shop


def shuffled(titles: int) -> Shop:
    """Which title a query led to is chance, in training and in what is held out."""
    shop, rng = small_shop(titles=titles), np.random.default_rng(0)
    clicked = rng.permutation([title for _, title in shop.clicks]).tolist()
    shop.clicks = [(query, title) for (query, _), title in zip(shop.clicks, clicked, strict=True)]
    shop.heldout = [(s, q, rng.choice(list(shop.titles), len(ids), replace=False).tolist()) for s, q, ids in shop.heldout]
    return shop


def test_a_learning_rate_of_100_ends_with_an_error_before_anything_is_stepped_with_it(labelling):
    with pytest.raises((NotFinite, Collapsed), match=r"no step was taken with (it|them).*lower --lr"):
        train(labelling, small_shop(), lr=100.0)


def test_a_training_that_diverges_in_its_last_step_makes_no_bundle(labelling):
    bundles = set((labelling / "bundles").iterdir())
    with pytest.raises(InputError, match=r"160 of 160 titles have vectors that are not finite .*lower --lr"):
        train(labelling, small_shop(), lr=1e30, epochs=0.01)
    assert set((labelling / "bundles").iterdir()) == bundles


def test_titles_that_are_all_equal_end_with_an_error(labelling):
    shop = small_shop()
    shop.titles = dict.fromkeys(shop.titles, "zoom 39 black")
    with pytest.raises(Collapsed, match=r"titles have a mean cosine of 1.0000"):
        train(labelling, shop)


def test_a_catalogue_of_one_title_is_refused_at_the_gate_with_a_champion_and_without(labelling, capsys):
    train(labelling, one_title(), epochs=0.5)
    assert gate(labelling) == EXIT_NOTHING_DUE
    (problem,) = refused(labelling)
    assert "recall@10 on test is 1.0000, which 100.0% of random rankings reach with 4 queries among 1 titles" in problem
    first = labelling.parent / "first"
    shutil.copytree(labelling, first)
    (first / "bundles" / "champion.json").unlink()
    assert gate(first) == EXIT_GATE_REFUSED
    assert "[promote] by_chance = 1 lets a shop that is meant to be so small go without" in capsys.readouterr().err
    assert not (first / "bundles" / "champion.json").exists()
    assert gate(first, "--by-chance", "1") == EXIT_OK


@pytest.mark.parametrize("titles", [120, 400])
def test_labels_that_were_shuffled_are_refused_at_the_gate(labelling, titles):
    train(labelling, shuffled(titles), epochs=2.0)
    assert gate(labelling) == EXIT_NOTHING_DUE
    said = "; ".join(refused(labelling))
    assert "below the floor" in said or "random rankings reach" in said
