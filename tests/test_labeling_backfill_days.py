"""Days that are made, made again and compared, on one small warehouse: real Spark, Delta and an untrained bundle."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl import build_pairs, tables
from etl.contracts import CATALOGUE, CLICK_LOG, LABELS_CURRENT, OUTPUTS, RUNS, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_GATE_REFUSED, EXIT_OK, EXIT_TRY_LATER
from etl.lease import hold_day
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict, publish
from labeling.backfill import __main__ as backfill
from labeling.backfill.config import BackfillConfig
from labeling.backfill.diff import diff_days
from labeling.backfill.plan import Planner
from labeling.live_log import live_state
from model.bundle import set_alias
from tests.labeling_data import NODES, TERMS, write_small_bundle
from tests.rows import DS, event, item, lay_down, term

pytestmark = pytest.mark.slow  # a night of five stages

PREVIOUS = DS - dt.timedelta(days=1)
TITLES = {
    "i1": "Steel kettle 1.7 l",
    "i2": "Red dress, cotton",
    "i3": "Running shoes 39",
    "i4": "Brass table lamp",
    "i5": "Kettle and dress",
    "i6": "Wooden spoon",
}


@pytest.fixture(scope="module")
def made(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of two days, the first of which was made; tests work on a copy."""
    root = tmp_path_factory.mktemp("made") / "warehouse"
    root.mkdir()
    days = (PREVIOUS, DS)
    clicks = [
        event(query, item_id, ds=day, user_id=f"u{n}", session_id=f"s{n}", event_time=dt.datetime.combine(day, dt.time(12)))
        for day in days
        for query, item_id in (("kettle", "i1"), ("dress", "i2"), ("sneakers", "i3"))
        for n in range(12)
    ]
    lay_down(spark, root, CLICK_LOG, clicks, "delta")
    lay_down(spark, root, CATALOGUE, [item(i, title, ds=day) for day in days for i, title in TITLES.items()], "delta")
    lay_down(spark, root, VOCABULARY, TERMS, "delta")
    lay_down(spark, root, TAXONOMY, NODES, "delta")
    write_small_bundle(root)
    # Two items of six have no term or no category, and a split of three queries would leave none to train on.
    (root / "warehouse.toml").write_text("[audit]\nmax_abstention = 0.9\n[pairs]\nvalid_share = 0.0\ntest_share = 0.0\n")
    for stage in (build_pairs, embed_catalogue, predict, audit, publish):
        assert stage.main(["--root", str(root), "--ds", str(PREVIOUS)]) == EXIT_OK
    return root


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "warehouse"))


def planner(root: Path, first: dt.date = PREVIOUS, last: dt.date = PREVIOUS, **changes: Any) -> Planner:
    return Planner(BackfillConfig(**{"root": str(root), "from_": first, "to": last} | changes), ())


def argv(action: str, root: Path, first: dt.date, last: dt.date, *more: str) -> list[str]:
    return [action, "--root", str(root), "--from", str(first), "--to", str(last), *more]


def add_terms(spark: SparkSession, root: Path) -> None:
    """Another version of the vocabulary: a term for what had none."""
    lay_down(spark, root, VOCABULARY, [*TERMS, term("t9", "spoon")], "delta")


def contents(root: Path) -> dict[str, pl.DataFrame]:
    """Rows of every table but the log of runs, in an order of their own."""
    tables_there = [table for table in OUTPUTS if table is not RUNS and (root / table.name).is_dir()]
    return {table.name: pl.read_delta(str(root / table.name)).sort(table.keys) for table in tables_there}


def test_stages_that_are_done_with_the_same_pins_are_left_out(shop):
    plan = planner(shop).day(PREVIOUS)
    assert plan.problem == ""
    assert plan.stages == {"relate": "it did not follow the publishing"}
    assert plan.exists["vectors"] == "6 of 6"
    assert plan.exists["published"] == "went live"


def test_a_night_that_came_to_the_log_since_changes_no_day_of_before(spark, shop):
    later = DS + dt.timedelta(days=1)
    row = event(ds=later, event_time=dt.datetime.combine(later, dt.time(12)))
    schema = ", ".join(f"{column.name} {column.type}" for column in CLICK_LOG.columns)
    frame = spark.createDataFrame([tuple(row[name] for name in CLICK_LOG.names)], schema)
    frame.write.format("delta").mode("append").save(str(shop / "click_log"))
    assert "pairs" not in planner(shop).day(PREVIOUS).stages


def test_what_changed_is_the_reason_and_what_it_costs_is_known(spark, shop):
    add_terms(spark, shop)
    plan = planner(shop).day(PREVIOUS)
    assert plan.stages == dict.fromkeys(("predict", "audit", "publish", "relate"), "changed: vocabulary")
    assert plan.seconds is None  # relate never ran
    window = planner(shop, window_days=3).day(PREVIOUS)
    assert window.stages["pairs"] == "settings changed (window_days)"
    assert window.stages["predict"] == "pairs are made"


def test_a_day_as_it_was_is_made_with_the_versions_that_its_lineage_names(spark, shop):
    add_terms(spark, shop)
    plan = planner(shop, mode="as-it-was", force=True).day(PREVIOUS)
    assert plan.problem == ""
    assert plan.flags["publish"] == ("--pins", "vocabulary=0")
    assert plan.flags["predict"][:4] == ("--pins", "vocabulary=0", "--bundle", bundle_of(shop))
    before = contents(shop)
    for stage in (predict, audit, publish):
        name = stage.__name__.rpartition(".")[2]
        assert stage.main(["--root", str(shop), "--ds", str(PREVIOUS), *plan.flags[name]]) == EXIT_OK
    assert all(contents(shop)[name].equals(rows) for name, rows in before.items())


def test_a_day_as_it_was_is_refused_with_all_that_is_gone(spark, shop):
    shutil.rmtree(shop / "taxonomy")
    lay_down(spark, shop, TAXONOMY, NODES[:3])
    (shop / "bundles" / bundle_of(shop)).rename(shop / "elsewhere")
    write_small_bundle(shop, seed=1)
    problem = planner(shop, mode="as-it-was").day(PREVIOUS).problem
    assert f"bundle {bundle_of(shop)} is not under" in problem
    assert "holds no such content (and, as no Delta table, has no history)" in problem


def test_a_diff_counts_what_would_change_and_why_before_anything_is_live(spark, shop):
    add_terms(spark, shop)
    live = pl.read_delta(str(shop / "labels_current"))
    for stage in (predict, audit):
        assert stage.main(["--root", str(shop), "--ds", str(PREVIOUS)]) == EXIT_OK
    (found,) = diff_days(planner(shop))
    assert found.against == f"what is live ({PREVIOUS})"
    assert found.items == {"same": 5, "changed": 1}
    assert found.causes == [("term", "vocabulary", 1)]
    (example,) = found.examples
    assert (example["item_id"], example["new"]) == ("i6", "spoon")
    assert example["old"] is None
    assert pl.read_delta(str(shop / "labels_current")).equals(live)
    assert planner(shop).day(PREVIOUS).stages.keys() == {"publish", "relate"}


def test_a_diff_of_another_bundle_names_the_model(shop):
    other = write_small_bundle(shop, seed=1)
    set_alias(Warehouse.at(str(shop)), "champion", other.path)
    for stage in (embed_catalogue, predict, audit):
        assert stage.main(["--root", str(shop), "--ds", str(PREVIOUS)]) == EXIT_OK
    (found,) = diff_days(planner(shop))
    assert {cause for _, cause, _ in found.causes} <= {"model"}
    assert found.items.get("same", 0) < len(TITLES)


def test_a_diff_leaves_out_a_day_whose_labels_would_not_change(shop, caplog):
    shutil.rmtree(shop / "staging")
    with caplog.at_level(logging.INFO):
        assert diff_days(planner(shop)) == []
    assert f"ds={PREVIOUS}: its labels would not change" in caplog.text


def test_a_diff_of_days_that_are_not_staged_names_them(shop, capsys):
    assert backfill.main(argv("diff", shop, PREVIOUS, DS)) == EXIT_BAD_INPUT
    assert f"staging holds no labels of {DS} (expected all days of the range)" in capsys.readouterr().err


@pytest.mark.fault("same-day-twice")
def test_a_day_that_another_process_has_is_refused_and_nothing_is_written(shop, capsys):
    before = contents(shop)
    with hold_day(shop / "locks", PREVIOUS, "labeller predict"):
        assert backfill.main(argv("run", shop, PREVIOUS, PREVIOUS)) == EXIT_TRY_LATER
    assert f"ds={PREVIOUS} is being written by process" in capsys.readouterr().err
    assert all(contents(shop)[name].equals(rows) for name, rows in before.items())


@pytest.mark.fault("same-day-twice")
def test_days_side_by_side_are_made_once_and_a_second_run_changes_no_row(spark, shop, caplog):
    caplog.set_level(logging.INFO)
    options = ("--parallel", "2", "--driver-memory", "1g", "--master", "local[1]")
    assert backfill.main(argv("run", shop, PREVIOUS, DS, *options)) == EXIT_OK
    made = contents(shop)
    assert made["item_terms"].filter(pl.col("rank") <= 1).group_by("ds").len().sort("ds")["len"].to_list() == [6, 6]
    assert live_state(Warehouse.at(str(shop))).newest == DS
    versions = {name: tables.latest_version(spark, str(shop / name)) for name in [*made, RUNS.name]}
    caplog.clear()
    assert backfill.main(argv("run", shop, PREVIOUS, DS, *options)) == EXIT_OK
    assert "days=2 changed=0 stages=0" in caplog.text
    assert backfill.main(argv("run", shop, PREVIOUS, PREVIOUS, "--force", *options)) == EXIT_OK
    assert all(contents(shop)[name].equals(rows) for name, rows in made.items())
    assert tables.latest_version(spark, str(shop / LABELS_CURRENT.name)) == versions[LABELS_CURRENT.name]


def test_a_day_whose_audit_refuses_is_told_and_what_is_live_stays(shop, capsys):
    before = pl.read_delta(str(shop / "labels_current"))
    toml = shop / "warehouse.toml"
    toml.write_text(toml.read_text().replace("max_abstention = 0.9", "max_abstention = 0.0"))
    options = ("--force", "--driver-memory", "1g", "--master", "local[1]")
    assert backfill.main(argv("run", shop, PREVIOUS, PREVIOUS, *options)) == EXIT_GATE_REFUSED
    assert f"ds={PREVIOUS}: `labeller audit` ended with 3" in capsys.readouterr().err
    assert pl.read_delta(str(shop / "labels_current")).equals(before)


def bundle_of(root: Path) -> str:
    return pl.read_delta(str(root / "item_terms"))["bundle"][0]
