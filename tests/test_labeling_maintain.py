"""The upkeep of a warehouse: what is old goes, what is live or referred to stays. Real Spark and Delta."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from etl.contracts import ITEM_CATEGORIES, ITEM_EMBEDDINGS, ITEM_TERMS, LABELS_CURRENT, RUNS, SIMILAR_ITEMS
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import maintain
from tests.delta_data import category_row, lay, live_row, run_row, term_row
from tests.rows import DS

OLD, BEFORE, LIVE = DS - dt.timedelta(days=100), DS - dt.timedelta(days=20), DS
ALIASED = ("of-champion", "of-candidate", "of-best")
STAYS = ("of-rollback", *ALIASED, "of-live-row", "of-history", "of-settings", "newest")


def put_bundles(root: Path) -> None:
    """Bundles by name, oldest first; only what the upkeep reads of one."""
    for age, name in enumerate(reversed(("unused", *STAYS))):
        (root / "bundles" / name).mkdir(parents=True)
        made = DS - dt.timedelta(days=age)
        manifest = {"ds": str(made), "lineage": {"dataset": str(made)}}
        (root / "bundles" / name / "manifest.json").write_text(json.dumps(manifest))
    best = {"bundle": "of-best", "ds": "", "split": "test", "value": 1.0}
    for alias, more in (("champion", {"best": best}), ("candidate", {})):
        (root / "bundles" / f"{alias}.json").write_text(json.dumps({"bundle": f"of-{alias}", "ds": str(DS)} | more))
    (root / "warehouse.toml").write_text(f'[train]\ninit_from = "{root}/bundles/of-settings"\n')


def put_tables(root: Path) -> None:
    for ds in (OLD, BEFORE, LIVE):
        bundle = {OLD: "unused", BEFORE: "of-history", LIVE: "of-champion"}[ds]
        for n in range(3):  # three small files a day
            lay(root / "item_terms", ITEM_TERMS, [term_row(f"i{n}", ds=ds, bundle=bundle)])
        lay(root / "item_categories", ITEM_CATEGORIES, [category_row("i1", ds, bundle=bundle)])
        near = {"ds": ds, "item_id": "i1", "rank": 1, "similar_item_id": "i2", "score": 0.5, "bundle": bundle}
        lay(root / "similar_items", SIMILAR_ITEMS, [near])
        lay(root / "staging" / "item_terms", ITEM_TERMS, [term_row("i1", ds=ds, bundle=bundle)])
    runs = [(BEFORE, "of-rollback"), (LIVE, "of-champion")]
    commits = [json.dumps({"stage": "publish", "ds": str(ds), "run_id": "r", "bundle": bundle}) for ds, bundle in runs]
    bundles = {"i1": "of-champion", "i2": "of-live-row", "i3": "of-champion"}
    rows = [live_row(item, bundle=bundle) for item, bundle in bundles.items()]
    lay(root / "labels_current", LABELS_CURRENT, rows[:1], userMetadata=commits[0])
    lay(root / "labels_current", LABELS_CURRENT, rows[1:], userMetadata=commits[1])
    lay(root / "runs", RUNS, [run_row("publish", ds) for ds in (OLD, BEFORE, LIVE)])
    for bundle in ("unused", "of-history"):
        lay(root / "item_embeddings", ITEM_EMBEDDINGS, [{"bundle": bundle, "text_hash": "0", "dim": 0, "first_ds": OLD}])


def put_directories(root: Path) -> None:
    for ds in (*(f"2024-05-0{n}" for n in (1, 2, 3, 5, 6, 7)), "2024-01-01"):
        (root / "datasets" / f"ds={ds}").mkdir(parents=True)
        (root / "datasets" / f"ds={ds}" / "manifest.json").write_text("{}")
    for ds in ("2024-05-01", "2024-04-01"):
        (root / "checkpoints" / f"ds={ds}" / "step-00000100").mkdir(parents=True)
    for name, days in (("dead", 40), ("young", 2)):
        file = root / "item_terms" / f"ds={LIVE}" / f"part-{name}.parquet"
        shutil.copy(next((root / "item_terms" / f"ds={LIVE}").glob("*.parquet")), file)
        os.utime(file, (time.time() - days * 86_400,) * 2)


def argv(root: Path, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(LIVE + dt.timedelta(days=300)), "--keep-bundles", "1", *more]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("untouched") / "warehouse"
    root.mkdir()
    put_bundles(root)
    put_tables(root)
    put_directories(root)
    return root


@pytest.fixture(scope="module")
def kept(spark, untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse after one upkeep, called for a day long after the live one."""
    root = Path(shutil.copytree(untouched, tmp_path_factory.mktemp("kept") / "warehouse"))
    toml = root / "warehouse.toml"
    toml.write_text(toml.read_text().replace(str(untouched), str(root)))
    assert maintain.main(argv(root)) == EXIT_OK
    return root


def days(root: Path, table: str) -> list[dt.date]:
    return pl.read_delta(str(root / table))["ds"].unique().sort().to_list()


@pytest.mark.slow
def test_days_older_than_a_table_keeps_go_and_are_counted_from_the_live_day_not_from_a_slip_of_the_pen(kept):
    assert days(kept, "item_terms") == days(kept, "item_categories") == [BEFORE, LIVE]
    assert days(kept, "similar_items") == days(kept, "staging/item_terms") == [LIVE]
    assert days(kept, "runs")[:3] == [OLD, BEFORE, LIVE]


@pytest.mark.slow
def test_what_is_live_is_the_same_rows_in_fewer_files_and_its_earlier_version_can_still_be_read(untouched, kept):
    live = [pl.read_delta(str(root / "labels_current")).sort("item_id") for root in (untouched, kept)]
    assert live[0].equals(live[1])
    terms = [
        pl.read_delta(str(root / "item_terms")).filter(pl.col("ds") == LIVE).sort("item_id") for root in (untouched, kept)
    ]
    assert terms[0].equals(terms[1])
    files = [f for f in DeltaTable(str(kept / "item_terms")).file_uris() if f"ds={LIVE}" in f]
    assert len(files) == len(DeltaTable(str(kept / "labels_current")).file_uris()) == 1
    assert len(pl.read_delta(str(kept / "labels_current"), version=0)) == 1


@pytest.mark.slow
def test_bundles_that_an_alias_a_setting_a_live_row_kept_history_or_a_rollback_refers_to_stay(kept):
    assert {path.name for path in (kept / "bundles").iterdir() if path.is_dir()} == set(STAYS)
    assert pl.read_delta(str(kept / "item_embeddings"))["bundle"].to_list() == ["of-history"]


@pytest.mark.slow
def test_the_newest_datasets_and_those_of_champion_candidate_and_best_stay(kept):
    trainings = {name: json.loads((kept / "bundles" / name / "manifest.json").read_text()) for name in ALIASED}
    assert sorted(made["lineage"]["dataset"] for made in trainings.values()) == ["2024-05-01", "2024-05-02", "2024-05-03"]
    left = sorted(path.name for path in (kept / "datasets").iterdir())
    assert left == [f"ds=2024-05-0{n}" for n in (1, 2, 3, 6, 7)]
    assert [path.name for path in (kept / "checkpoints").iterdir()] == ["ds=2024-05-01"]


@pytest.mark.slow
def test_files_that_no_young_version_needs_are_removed_and_younger_ones_are_not(kept):
    left = {file.name for file in (kept / "item_terms").rglob("*.parquet")}
    assert "part-dead.parquet" not in left
    assert "part-young.parquet" in left


def test_a_dry_run_counts_rows_and_bytes_and_changes_no_file(untouched, caplog):
    before = {file: file.stat().st_mtime_ns for file in untouched.rglob("*")}
    with caplog.at_level("INFO"):
        assert maintain.main(argv(untouched, "--dry-run")) == EXIT_OK
    assert {file: file.stat().st_mtime_ns for file in untouched.rglob("*")} == before
    sizes = [f.stat().st_size for f in (untouched / "item_terms" / f"ds={OLD}").glob("*.parquet")]
    assert f"plan: item_terms: 3 rows, {sum(sizes)} bytes of ds {OLD} to {OLD}" in caplog.text
    assert f"plan: {untouched}/bundles/unused: " in caplog.text
    dead = (untouched / "item_terms" / f"ds={LIVE}" / "part-dead.parquet").stat().st_size
    assert f"dead_bytes={dead} rows=9 " in caplog.text


def put_leftovers(root: Path, days: float) -> set[str]:
    """What killed jobs left that long ago; returns what of it is known to be of no use."""
    gone = {"bundles/.writing-x", "bundles/.b.removing", "datasets/.ds=2024-05-07.building", "datasets/.ds=2024-05-06.old"}
    for name in (*gone, "datasets/.ds=2024-05-09.old"):
        (root / name / "pairs").mkdir(parents=True)
        (root / name / "pairs" / "part-0.parquet").write_text("")
        for path in (root / name / "pairs" / "part-0.parquet", root / name / "pairs", root / name):
            os.utime(path, (time.time() - days * 86_400,) * 2)
    return gone


@pytest.mark.fault("leftovers")
@pytest.mark.parametrize(("days", "goes"), [(2, True), (0.5, False)])
def test_what_killed_jobs_left_of_bundles_and_datasets_goes_a_day_after(untouched, root, caplog, days: float, goes: bool):
    shutil.copytree(untouched, root, dirs_exist_ok=True)
    left = put_leftovers(root, days)
    with caplog.at_level("INFO"):
        assert maintain.main(argv(root, "--dry-run")) == EXIT_OK
    said = set(re.findall(rf"plan: {root}/([^:]+/\.[^:]+): ", caplog.text))
    assert said == (left if goes else {"bundles/.b.removing"})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--keep-days", "item_terms=10"], "keep_days of item_terms is 10 (expected >= 31: rollback_days and the live day)"),
        (["--keep-days", "runs=30"], "keep_days of runs is 30 (expected >= 90: the history's records)"),
        (["--rollback-days", "40"], "vacuum_days is 30 (expected >= 40: rollback_days)"),
        (["--vacuum-days", "14", "--rollback-days", "14"], "vacuum_days: Input should be greater than or equal to 30"),
        (["--keep-days", "labels_current=9"], "keep_days names ['labels_current'], which have no days"),
    ],
)
def test_a_retention_shorter_than_a_reader_needs_is_refused(untouched, capsys, flags: list[str], said: str):
    assert maintain.main(argv(untouched, "--dry-run", *flags)) == EXIT_BAD_INPUT
    assert said in capsys.readouterr().err


def test_pairs_are_kept_as_long_as_the_window_whose_late_clicks_name_them(untouched, root, capsys):
    shutil.copytree(untouched, root, dirs_exist_ok=True)
    (root / "warehouse.toml").write_text("[pairs]\nwindow_days = 60\n")
    assert maintain.main(argv(root, "--dry-run")) == EXIT_BAD_INPUT
    assert "keep_days of pairs is 35 (expected >= 60: [pairs] window_days" in capsys.readouterr().err


def test_a_warehouse_without_live_labels_is_left_alone(root, capsys):
    assert maintain.main(argv(root)) == EXIT_BAD_INPUT
    assert "has no live labels" in capsys.readouterr().err


def rows_of(root: Path) -> dict[str, Any]:
    return {name: len(pl.read_delta(str(root / name))) for name in ("item_terms", "similar_items", "labels_current")}


@pytest.mark.slow
def test_a_second_upkeep_finds_nothing_to_let_go(kept, caplog):
    before = rows_of(kept)
    with caplog.at_level("INFO"):
        assert maintain.main(argv(kept, "--dry-run")) == EXIT_OK
    assert "dead_bytes=0 rows=0 row_bytes=0 directories=0" in caplog.text
    assert rows_of(kept) == before
