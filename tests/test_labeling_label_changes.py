"""What a commit to the live labels changed, and which of all that differs caused it."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from etl.contracts import CAUSES, CHANGED, LABEL_CHANGES, LABELS_CURRENT
from etl.log_history import vacuum
from etl.tables import latest_version, read
from etl.warehouse import Warehouse
from labeling.label_changes import CATEGORY, TERMS, label_changes, record_changes, run_differences
from labeling.live_log import live_commits
from tests.live_data import changes, commit, go_live, lineage, live_frame, live_row
from tests.rows import DS

NEXT, THIRD = DS + dt.timedelta(days=1), DS + dt.timedelta(days=2)


def found(spark: SparkSession, old: list[dict], new: list[dict], **after: Any) -> dict[tuple[str, str], list]:
    """(item, what) -> [old, new, cause, differs] between a run and one that differs in ``after``."""
    before, now = lineage("r1"), lineage("r2", **after)
    rows = label_changes(live_frame(spark, old, before), live_frame(spark, new, now), before, now).collect()
    assert {row["what"] for row in rows} <= set(CHANGED)
    assert {row["cause"] for row in rows} <= set(CAUSES)
    return {(row["item_id"], row["what"]): [row[name] for name in ("old", "new", "cause", "differs")] for row in rows}


@pytest.mark.parametrize(
    ("cause", "half", "after"),
    [
        ("model", TERMS, {"bundle": "b2", "calibration": "k2"}),
        ("vocabulary", TERMS, {"vocabulary": "v2"}),
        ("taxonomy", CATEGORY, {"taxonomy": "x2"}),
        ("examples", CATEGORY, {"inputs": {"pairs": "p1", "examples": "e2"}}),
        ("threshold", TERMS, {"calibration": "k2"}),
        ("threshold", TERMS, {"settings": {"min_probability": 0.5}}),
        ("threshold", CATEGORY, {"settings": {"min_step_probability": 0.5}}),
        ("clicks", TERMS, {"inputs": {"pairs": "p2"}}),
        ("code", CATEGORY, {"code": "2"}),
    ],
)
def test_what_differs_between_two_runs_is_named(cause, half, after):
    assert run_differences(lineage("r1"), lineage("r2", **after), half)[0] == cause


@pytest.mark.parametrize(
    ("half", "after"),
    [
        (TERMS, {"taxonomy": "x2"}),
        (CATEGORY, {"vocabulary": "v2", "inputs": {"pairs": "p2"}}),
        (TERMS, {"settings": {"min_step_probability": 0.5, "evidence_queries": 1}}),
        (CATEGORY, {"settings": {"min_probability": 0.5}}),
    ],
)
def test_what_cannot_touch_a_half_is_no_cause_of_its_changes(half, after):
    assert run_differences(lineage("r1"), lineage("r2", **after), half) == []


def test_of_several_causes_the_likeliest_is_first_and_all_are_listed():
    after = {"bundle": "b2", "calibration": "k2", "vocabulary": "v2", "code": "2", "inputs": {"pairs": "p2"}}
    assert run_differences(lineage("r1"), lineage("r2", **after), TERMS) == [
        "model",
        "vocabulary",
        "threshold",
        "clicks",
        "code",
    ]


def test_each_half_of_an_item_changes_with_a_cause_of_its_own(spark):
    old = [live_row("i1"), live_row("i2", ["dress", "gown"]), live_row("i3"), live_row("i4"), live_row("i5")]
    new = [
        live_row("i1", ["pot"], "Home > Pots"),
        live_row("i2", ["dress", "skirt"]),
        live_row("i3", term_probability=0.4),
        live_row("i4", category_probability=None),
        live_row("i5"),
    ]
    assert found(spark, old, new, vocabulary="v2", taxonomy="x2") == {
        ("i1", "term"): ["kettle", "pot", "vocabulary", ["vocabulary"]],
        ("i1", "category"): ["Home > Kettle", "Home > Pots", "taxonomy", ["taxonomy"]],
        ("i2", "terms"): ["dress | gown", "dress | skirt", "vocabulary", ["vocabulary"]],
        ("i3", "term_confidence"): ["0.8", "0.4", "vocabulary", ["vocabulary"]],
        ("i4", "category_confidence"): ["0.7", None, "taxonomy", ["taxonomy"]],
    }


def test_a_person_comes_before_the_title_and_the_title_before_the_model(spark):
    by_person = {"term_source": "override", "term_probability": None}
    other = {"text_hash": "other", "title": "Another title"}
    old = [live_row("i1"), live_row("i2"), live_row("i3", **by_person), live_row("i4", **by_person), live_row("i5")]
    new = [
        live_row("i1", ["pot"], **other),
        live_row("i2", ["pot"], **other, **by_person),
        live_row("i3", ["pot"]),
        live_row("i4", ["pot"], **other, **by_person),
        live_row("i5", **other),
    ]
    causes = {key: value[2:] for key, value in found(spark, old, new, bundle="b2").items()}
    assert causes == {
        ("i1", "term"): ["title", ["title", "model"]],
        ("i2", "term"): ["override", ["override", "title", "model"]],
        ("i3", "term"): ["override", ["override", "model"]],
        ("i4", "term"): ["override", ["override"]],
    }


def test_another_hash_of_the_same_title_is_the_models_when_the_bundle_is_another_and_the_titles_else(spark):
    new = [live_row("i1", ["pot"], text_hash="other")]
    assert found(spark, [live_row("i1")], new, bundle="b2")["i1", "term"][2:] == ["model", ["model"]]
    assert found(spark, [live_row("i1")], new)["i1", "term"][2:] == ["title", ["title"]]


def test_a_term_that_a_person_set_changes_its_name_by_the_vocabulary(spark):
    old = live_row("i1", term_source="override")
    renamed = old | {"term": "kettles", "terms": [old["terms"][0] | {"term": "kettles"}]}
    assert found(spark, [old], [renamed], bundle="b2", vocabulary="v2") == {
        ("i1", "term"): ["kettle", "kettles", "vocabulary", ["vocabulary"]]
    }


def test_rows_of_before_there_were_hashes_and_settings_are_compared_by_what_they_have(spark):
    old = [live_row("i1", text_hash=None), live_row("i2", text_hash=None, title="Another")]
    before = lineage("r1") | {"settings": None}
    assert run_differences(before, lineage("r2"), TERMS) == []
    causes = {
        item: value[2] for (item, _), value in found(spark, old, [live_row("i1", ["pot"]), live_row("i2", ["pot"])]).items()
    }
    assert causes == {"i1": "unknown", "i2": "title"}


def test_a_label_that_changed_by_hand_has_no_cause_that_is_known(spark):
    assert found(spark, [live_row()], [live_row(terms=["pot"])]) == {("i1", "term"): ["kettle", "pot", "unknown", []]}


@pytest.fixture(scope="module")
def two_days(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days that went live; on the second a title changed, an item came and one went."""
    root = tmp_path_factory.mktemp("two_days")
    go_live(spark, root, DS, [live_row("i1"), live_row("i2"), live_row("i3")], lineage("r1"))
    go_live(spark, root, NEXT, SECOND, lineage("r2"))
    return root


SECOND = [live_row("i1"), live_row("i2", ["lamp"], text_hash="other"), live_row("i4", [], None)]


def test_every_item_that_the_feed_of_a_day_names_has_its_change_and_lineage(spark, two_days):
    assert changes(spark, two_days, ds=DS) == {(f"i{n}", "new"): (None, "kettle", "new_item") for n in (1, 2, 3)}
    assert changes(spark, two_days, ds=NEXT) == {
        ("i2", "term"): ("kettle", "lamp", "title"),
        ("i3", "gone"): ("kettle", None, "gone_item"),
        ("i4", "new"): (None, None, "new_item"),
    }
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 2)
    named = {row["item_id"] for row in feed.load(str(two_days / LABELS_CURRENT.name)).collect()}
    assert {item for item, _ in changes(spark, two_days, ds=NEXT)} == named
    rows = (
        read(spark, str(two_days / LABEL_CHANGES.name), LABEL_CHANGES, ds=NEXT).select("live_version", *lineage()).distinct()
    )
    assert [row.asDict() for row in rows.collect()] == [{"live_version": 2, **lineage("r2")}]


def test_a_rerun_of_what_is_live_changes_no_row_of_either_table(spark, two_days):
    names = (LABELS_CURRENT.name, LABEL_CHANGES.name)
    before = [latest_version(spark, str(two_days / name)) for name in names]
    go_live(spark, two_days, NEXT, SECOND, lineage("r2"))
    assert [latest_version(spark, str(two_days / name)) for name in names] == before


@pytest.mark.slow
def test_what_a_crash_left_unrecorded_is_written_by_whoever_comes_next(spark, root):
    commit(spark, root, DS, [live_row("i1")], lineage("r1"))
    commit(spark, root, NEXT, [live_row("i1", ["pot"])], lineage("r2", bundle="b2"))
    counts = record_changes(spark, Warehouse.at(str(root)))
    assert counts == {"changed_model": 1, "changed_new_item": 1}
    assert changes(spark, root, ds=NEXT) == {("i1", "term"): ("kettle", "pot", "model")}
    assert record_changes(spark, Warehouse.at(str(root))) == {}


def test_a_table_that_was_made_anew_is_recorded_from_its_first_commit_on(spark, two_days, tmp_path):
    shop = Path(shutil.copytree(two_days, tmp_path / "warehouse"))
    shutil.rmtree(shop / LABELS_CURRENT.name)
    go_live(spark, shop, THIRD, [live_row("i1")], lineage("r3"))
    assert latest_version(spark, str(shop / LABELS_CURRENT.name)) < 2, "behind what is recorded"
    assert changes(spark, shop, ds=THIRD) == {("i1", "new"): (None, "kettle", "new_item")}


@pytest.mark.slow
def test_a_day_that_changes_no_label_goes_live_by_a_commit_and_is_what_the_next_is_compared_with(spark, root):
    go_live(spark, root, DS, [live_row("i1")], lineage("r1"))
    go_live(spark, root, NEXT, [live_row("i1")], lineage("r2", bundle="b2"))
    assert [commit.run_id for commit in live_commits(Warehouse.at(str(root)))] == ["r2", "r1"]
    go_live(spark, root, THIRD, [live_row("i1", ["pot"])], lineage("r3", bundle="b2", vocabulary="v2"))
    assert changes(spark, root, ds=THIRD) == {("i1", "term"): ("kettle", "pot", "vocabulary")}


@pytest.mark.slow
def test_a_commit_whose_feed_was_vacuumed_is_said_to_be_unrecorded_and_stops_no_later_one(spark, root, caplog):
    go_live(spark, root, DS, [live_row("i1")], lineage("r1"))
    commit(spark, root, NEXT, [live_row("i1", ["lamp"])], lineage("r2", bundle="b2"))
    vacuum(spark, str(root / LABELS_CURRENT.name), hours=0)
    commit(spark, root, THIRD, [live_row("i1", ["pot"])], lineage("r3", bundle="b3"))
    assert record_changes(spark, Warehouse.at(str(root))) == {"changed_model": 1, "changed_unrecorded": 1}
    assert "label_changes will lack what labels_current version 2 changed" in caplog.text
    assert changes(spark, root, ds=THIRD) == {("i1", "term"): ("lamp", "pot", "model")}
