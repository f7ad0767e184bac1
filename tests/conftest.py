"""One Spark session for the whole run, and a fresh warehouse directory for each test that asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from pyspark.sql import SparkSession

from etl.config import SparkJobConfig
from etl.session import start_session
from tests import small_night
from tests.model_data import DS, small_shop, write_dataset

LAUNCHING = ("hosts", "loss", "many_nodes", "resize", "resume", "train")
"""Files of the training whose tests start ranks of their own, test_model_….py."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap files first; then the two nights, which take longest; then all that starts Spark or ranks."""
    launching = {f"test_model_{name}.py" for name in LAUNCHING}
    sparking = {item.path for item in items if "spark" in getattr(item, "fixturenames", ())}

    def place(item: pytest.Item) -> int:
        if item.path.name == "test_nightly_end_to_end.py":
            return 1
        return 2 * (item.path in sparking or item.path.name in launching)

    items.sort(key=place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked gpu are skipped without one."""
    if item.get_closest_marker("gpu") is not None:
        import torch  # takes seconds, and most files do without

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU, and torch finds none")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one Spark session; jobs under test get it from ``getOrCreate`` too."""
    scratch = tmp_path_factory.mktemp("spark")
    config = SparkJobConfig(
        root=str(scratch),
        ds="2024-05-07",
        master="local[2]",
        driver_memory="2g",
        spark_conf={
            "spark.sql.shuffle.partitions": "2",
            "spark.local.dir": str(scratch),
            "spark.sql.warehouse.dir": str(scratch / "spark-warehouse"),
        },
    )
    session = start_session("tests", config)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def first_night(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A small warehouse of two days, the first of which is live; tests work on a copy.

    One for all workers, since it takes minutes: the first that wants it makes it, others wait.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    night = shared / "first-night"
    with FileLock(shared / "first-night.lock"):
        if not (shared / "first-night.made").exists():
            shutil.rmtree(night, ignore_errors=True)  # of a worker that failed
            small_night.first_night(spark, night)
            (shared / "first-night.made").touch()
    return night


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty warehouse."""
    path = tmp_path / "warehouse"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def shop_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with nothing but the dataset of a small shop."""
    path = tmp_path_factory.mktemp("shop")
    write_dataset(path / "datasets" / f"ds={DS}", small_shop())
    return path
