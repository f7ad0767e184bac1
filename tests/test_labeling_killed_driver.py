"""A night whose driver is killed before and after each of its boundaries: what is read then, and what the rerun leaves."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl.contracts import (
    ANNOTATION_SAMPLE,
    ITEM_CATEGORIES,
    ITEM_EMBEDDINGS,
    ITEM_TERMS,
    LABEL_CHANGES,
    LABELS_CURRENT,
    QUALITY,
    RUNS,
)
from etl.contracts.table import Table
from etl.errors import EXIT_OK
from etl.lease import DayTaken, hold_day
from labeling import audit, embed_catalogue, predict, publish
from tests.small_night import NEXT, argv, live, rows

pytestmark = [pytest.mark.slow, pytest.mark.fault("killed-at-boundary")]

STAGES: dict[str, ModuleType] = {"embed": embed_catalogue, "predict": predict, "audit": audit, "publish": publish}


class Point(NamedTuple):
    """Where the driver dies: around a call, by module and name, of the table if one is named."""

    stage: str
    at: str
    table: str = ""


POINTS = (
    Point("embed", "etl.tables:execute_merge"),
    Point("embed", "etl.runs:record_stage"),
    Point("predict", "etl.tables:write_slice", ITEM_TERMS.name),
    Point("predict", "etl.tables:write_slice", ITEM_CATEGORIES.name),
    Point("predict", "etl.runs:record_stage"),
    Point("audit", "etl.tables:write_slice", QUALITY.name),
    Point("audit", "etl.runs:record_stage"),
    Point("publish", "etl.tables:write_slice", ITEM_TERMS.name),
    Point("publish", "etl.tables:write_slice", ITEM_CATEGORIES.name),
    Point("publish", "labeling.publish:make_live"),
    Point("publish", "labeling.label_changes:record_changes"),
    Point("publish", "etl.tables:write_slice", ANNOTATION_SAMPLE.name),
    Point("publish", "etl.runs:record_stage"),
)

SAME: dict[Table, tuple[str, ...]] = {
    ITEM_EMBEDDINGS: ("text_hash", "bundle", "vector", "reason"),
    ITEM_TERMS: ITEM_TERMS.names,
    ITEM_CATEGORIES: ITEM_CATEGORIES.names,
    LABELS_CURRENT: LABELS_CURRENT.names,
    LABEL_CHANGES: LABEL_CHANGES.names,
    ANNOTATION_SAMPLE: ANNOTATION_SAMPLE.names,
    QUALITY: ("ds", "run_id", "check", "passed"),
    RUNS: ("ds", "stage", "run_id"),
}
"""Of each table the columns that a night decides; times and versions are those of its attempts."""


@pytest.fixture(scope="module")
def before(spark: SparkSession, first_night: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The warehouse as each stage of the second night finds it, by stage, and as the night leaves it, as ``undisturbed``."""
    base = tmp_path_factory.mktemp("stages")
    root = Path(shutil.copytree(first_night, base / "warehouse"))
    found = {}
    for stage, job in STAGES.items():
        found[stage] = Path(shutil.copytree(root, base / stage))
        assert job.main(argv(root, NEXT)) == EXIT_OK
    return found | {"undisturbed": root}


@pytest.fixture(scope="module")
def wanted(spark: SparkSession, before: dict[str, Path]) -> dict[str, list[tuple]]:
    return contents(spark, before["undisturbed"])


def contents(spark: SparkSession, root: Path) -> dict[str, list[tuple]]:
    """What is decided of each table's rows, by its name; rows that stand twice are there twice."""
    return {table.name: rows(spark, root, table, *names) for table, names in SAME.items()}


def killed(root: Path, point: Point, when: str) -> None:
    """Run the stage in a process of its own until it dies there."""
    at = ["--at", point.at, "--when", when, *(["--table", point.table] if point.table else [])]
    argv_ = [sys.executable, "-m", "tests.fault_worker", *at, "--", point.stage, *argv(root, NEXT, "--master", "local[2]")]
    done = subprocess.run(argv_, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


def require_free(root: Path, ds: dt.date) -> None:
    """See that the dead process holds its day no longer."""
    try:
        with hold_day(root / "locks", ds, "test"):
            pass
    except DayTaken as error:
        pytest.fail(str(error))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS, ids=lambda point: "-".join(filter(None, (point.stage, point.at, point.table))))
def test_labels_stay_readable_and_the_rerun_ends_with_one_copy_of_everything(spark, before, wanted, tmp_path, point, when):
    root = Path(shutil.copytree(before[point.stage], tmp_path / "warehouse"))
    old, new = live(root), live(before["undisturbed"])
    killed(root, point, when)
    assert live(root) in (old, new)
    assert {row["item_id"]: row["term"] for row in rows_of_spark(spark, root)} in (terms(old), terms(new))
    require_free(root, NEXT)
    stages = list(STAGES)
    for stage in stages[stages.index(point.stage) :]:
        assert STAGES[stage].main(argv(root, NEXT)) == EXIT_OK
    assert contents(spark, root) == wanted
    assert not list(root.rglob("*.tmp"))


def rows_of_spark(spark: SparkSession, root: Path) -> list[dict]:
    frame = spark.read.format("delta").load(str(root / LABELS_CURRENT.name))
    return [row.asDict() for row in frame.select("item_id", "term").collect()]


def terms(labels: dict[str, dict]) -> dict[str, str | None]:
    return {item: row["term"] for item, row in labels.items()}


def test_a_table_whose_maker_was_killed_before_its_first_commit_is_made_by_the_rerun(spark, before, tmp_path):
    root = Path(shutil.copytree(before["embed"], tmp_path / "warehouse"))
    shutil.rmtree(root / ITEM_EMBEDDINGS.name)
    (root / ITEM_EMBEDDINGS.name / "_delta_log").mkdir(parents=True)
    assert embed_catalogue.main(argv(root, NEXT)) == EXIT_OK
    assert pl.read_delta(str(root / ITEM_EMBEDDINGS.name)).height > 0
