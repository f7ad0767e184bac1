"""Going back to what was live: exactly, by one commit that is on record, and until the next day."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from etl.contracts import ITEM_TERMS, LABEL_CHANGES, LABELS_CURRENT, OVERRIDES, RUNS, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.log_history import drop_history, vacuum
from etl.tables import latest_version, read, write_slice
from etl.warehouse import Warehouse
from labeling import rollback
from labeling.audit import earlier_days
from labeling.label_changes import record_changes
from labeling.live_log import ROLLBACK, LiveCommit, LiveState, live_commits, live_state
from labeling.publish import PublishConfig, goes_live
from tests.live_data import changes, commit, go_live, lineage, live_row
from tests.rows import DS, lay_down, node, term

NEXT, THIRD, FOURTH = (DS + dt.timedelta(days=n) for n in (1, 2, 3))

SET = [{"term_id": "id pot", "term": "pot", "score": None, "probability": None}]
BY_PERSON = live_row("i3", ["pot"]) | {"terms": SET, "term_source": "override", "term_probability": None}

FIRST_DAY = [live_row("i1"), live_row("i2"), BY_PERSON]
SECOND_DAY = [live_row("i1", ["lamp"]), BY_PERSON, live_row("i4")]


@pytest.fixture(scope="module")
def two_days(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days that went live, the second labelled by another bundle; a person set a term of i3. Tests work on a copy."""
    base = tmp_path_factory.mktemp("two_days") / "warehouse"
    base.mkdir()
    set_overrides(spark, base, override("i3", "term", "id pot"))
    model = {
        "ds": DS,
        "item_id": "i3",
        "rank": 1,
        "term_id": "id kettle",
        "term": "kettle",
        "score": 0.5,
        "probability": 0.6,
    }
    row = dict.fromkeys(ITEM_TERMS.names) | model | {"evidence": []} | lineage("r1")
    frame = spark.createDataFrame([tuple(row[name] for name in ITEM_TERMS.names)], ITEM_TERMS.ddl)
    path = Warehouse.at(str(base)).table(ITEM_TERMS)
    write_slice(frame, path, ITEM_TERMS, {"ds": DS})
    commit(spark, base, DS, FIRST_DAY, lineage("r1"), {ITEM_TERMS.name: latest_version(spark, path)})
    write_slice(frame.limit(0), path, ITEM_TERMS, {"ds": DS})  # the day was labelled anew since
    go_live(spark, base, NEXT, SECOND_DAY, lineage("r2", bundle="b2"))
    return base


@pytest.fixture
def shop(two_days: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_days, tmp_path / "warehouse"))


def back(root: Path, to: object, *more: str) -> int:
    return rollback.main(["--root", str(root), "--to", str(to), *more])


def live(spark: SparkSession, root: Path, version: int | None = None) -> dict[str, dict[str, Any]]:
    rows = read(spark, str(root / LABELS_CURRENT.name), LABELS_CURRENT, version=version).collect()
    return {row["item_id"]: row.asDict(recursive=True) for row in rows}


def override(item: str, what: str, value: str) -> dict[str, Any]:
    return {"item_id": item, "what": what, "value": value, "author": "ann", "at": dt.datetime(2024, 5, 1), "until": None}


def set_overrides(spark: SparkSession, root: Path, *rows: dict[str, Any]) -> None:
    names = ("kettle", "pot", "sofa")
    lay_down(spark, root, VOCABULARY, [term(f"id {name}", name) for name in names])
    lay_down(spark, root, TAXONOMY, [node("h", None, "Home")])
    lay_down(spark, root, OVERRIDES, list(rows))


def test_rows_are_exactly_those_of_then_and_the_rollback_is_on_record(spark, shop):
    version = latest_version(spark, str(shop / LABELS_CURRENT.name))
    assert back(shop, DS) == EXIT_OK
    assert live(spark, shop) == live(spark, shop, version=1)
    found = live_commits(Warehouse.at(str(shop)))[0]
    assert (found.version, found.stage, found.ds, found.run_id) == (version + 1, ROLLBACK, DS, "r1")
    (run,) = read(spark, str(shop / RUNS.name), RUNS, stage=ROLLBACK).collect()
    assert (run["ds"], run["run_id"], run["bundle"]) == (DS, "r1", "b1")
    assert json.loads(run["counts"]) == {"changed_rollback": 3, "deleted": 1, "inserted": 1, "updated": 1}
    assert changes(spark, shop, ds=NEXT, live_version=version + 1) == {
        ("i1", "term"): ("lamp", "kettle", "rollback"),
        ("i2", "new"): (None, "kettle", "rollback"),
        ("i4", "gone"): ("kettle", None, "rollback"),
    }
    row = read(spark, str(shop / LABEL_CHANGES.name), LABEL_CHANGES, live_version=version + 1, item_id="i1").head()
    assert (row["differs"], row["bundle"]) == (["model"], "b1")


@pytest.mark.slow
def test_a_rollback_that_was_made_changes_nothing_when_it_is_made_again(spark, shop):
    assert back(shop, "r1") == EXIT_OK
    names = (LABELS_CURRENT.name, LABEL_CHANGES.name)
    before = [latest_version(spark, str(shop / name)) for name in names]
    assert back(shop, "r1") == EXIT_OK
    assert [latest_version(spark, str(shop / name)) for name in names] == before


@pytest.mark.slow
def test_after_a_rollback_the_day_that_was_taken_back_stays_so_and_the_next_goes_live(spark, shop, caplog):
    assert back(shop, DS) == EXIT_OK
    state = live_state(Warehouse.at(str(shop)))
    assert not goes_live(state, settings(NEXT), "r2")
    assert "with run r1 of ds=2024-05-07, since a rollback made it live again" in caplog.text
    assert not goes_live(state, settings(DS), "r1b")
    assert goes_live(state, settings(DS), "r1")
    assert goes_live(state, settings(NEXT, undo_rollback=True), "r2")
    go_live(spark, shop, THIRD, [live_row("i1", ["pot"])], lineage("r3", bundle="b1", vocabulary="v2"))
    assert changes(spark, shop, ds=THIRD, item_id="i1") == {("i1", "term"): ("kettle", "pot", "vocabulary")}
    assert live_state(Warehouse.at(str(shop))).admits(THIRD, "r3b")


def settings(ds: dt.date, **more: Any) -> PublishConfig:
    return PublishConfig(root=".", ds=ds, **more)


def live_commit(ds: dt.date, run_id: str, *, rolled_back: bool = False) -> LiveCommit:
    return LiveCommit(1, "publish", ds, dt.datetime(2024, 6, 1), lineage(run_id), ds, rolled_back, {}, ds)


def test_an_older_day_never_goes_live_with_or_without_a_rollback(caplog):
    for state in (LiveState(NEXT, live_commit(NEXT, "r2")), LiveState(THIRD, live_commit(NEXT, "r2", rolled_back=True))):
        assert not goes_live(state, settings(DS, undo_rollback=True), "r1")
        assert f"stays with ds={state.newest}, which is newer" in caplog.text
        assert state.admits(FOURTH, "r4")
    assert LiveState(NEXT, live_commit(NEXT, "r2")).admits(NEXT, "r2b")
    assert LiveState(None, None).admits(DS, "r1")


def test_a_day_that_is_made_anew_after_a_rollback_keeps_the_newer_one_taken_back():
    """NEXT was taken back; DS is labelled anew, published with --undo-rollback, and its task is cleared once more."""
    back = LiveState(NEXT, live_commit(DS, "r1", rolled_back=True))
    assert goes_live(back, settings(DS, undo_rollback=True), "r1b")
    assert back.stays_back(DS, "r1b")
    mended = LiveState(NEXT, live_commit(DS, "r1b", rolled_back=True))
    assert not goes_live(mended, settings(NEXT), "r2")
    assert goes_live(mended, settings(DS), "r1b")
    assert goes_live(mended, settings(NEXT, undo_rollback=True), "r2")
    assert not mended.stays_back(NEXT, "r2")
    assert not mended.stays_back(THIRD, "r3")


def test_overrides_are_judged_no_earlier_than_for_what_is_live():
    corrected = replace(live_commit(NEXT, "r2"), overrides_as_of=FOURTH)
    state = LiveState(NEXT, corrected)
    assert [state.overrides_as_of(ds) for ds in (DS, NEXT, THIRD, FOURTH)] == [DS, FOURTH, FOURTH, FOURTH]
    assert state.overrides_as_of(FIFTH := FOURTH + dt.timedelta(days=1)) == FIFTH
    assert LiveState(NEXT, replace(corrected, overrides_as_of=None)).overrides_as_of(THIRD) == THIRD
    assert LiveState(None, None).overrides_as_of(DS) == DS


@pytest.mark.slow
def test_a_run_of_the_older_day_that_goes_live_says_in_its_commit_that_the_newer_one_stays_back(spark, shop):
    assert back(shop, DS) == EXIT_OK
    commit(spark, shop, DS, [live_row("i1", ["pot"])], lineage("r1b"))
    state = live_state(Warehouse.at(str(shop)))
    assert (state.now.run_id, state.now.rolled_back, state.newest) == ("r1b", True, NEXT)


@pytest.mark.slow
def test_going_back_to_the_newest_day_undoes_a_rollback(spark, shop):
    before = live(spark, shop)
    assert [back(shop, DS), back(shop, NEXT)] == [EXIT_OK, EXIT_OK]
    assert live(spark, shop) == before
    state = live_state(Warehouse.at(str(shop)))
    assert (state.now.run_id, state.now.rolled_back) == ("r2", False)


@pytest.mark.slow
def test_overrides_of_now_win_and_one_that_was_withdrawn_gives_way_to_the_model_of_then(spark, shop):
    set_overrides(spark, shop, override("i1", "term", "id sofa"), override("i2", "category", "h"))
    assert back(shop, DS) == EXIT_OK
    found, then = live(spark, shop), live(spark, shop, version=1)
    assert (found["i1"]["term"], found["i1"]["term_source"], found["i1"]["run_id"]) == ("sofa", "override", "r1")
    assert (found["i2"]["category_path"], found["i2"]["category_source"]) == ("Home", "override")
    assert (found["i2"]["terms"], found["i2"]["term_source"]) == (then["i2"]["terms"], "model")
    assert (found["i3"]["term"], found["i3"]["term_probability"], found["i3"]["term_source"]) == ("kettle", 0.6, "model")


def test_a_dry_run_counts_changes_by_cause_with_examples_and_writes_nothing(spark, shop, caplog):
    before = {path: latest_version(spark, str(shop / path)) for path in (LABELS_CURRENT.name, LABEL_CHANGES.name)}
    with caplog.at_level(logging.INFO):
        assert back(shop, DS, "--dry-run") == EXIT_OK
    assert "plan: term changes for 1 items, cause model: i1: lamp -> kettle" in caplog.text
    assert "plan: gone changes for 1 items, cause gone_item: i4: kettle -> None" in caplog.text
    assert "term_model=1" in caplog.text
    assert {path: latest_version(spark, str(shop / path)) for path in before} == before
    assert not (shop / RUNS.name).exists()


def test_a_day_that_was_never_live_is_refused_and_those_that_were_are_named(spark, shop, tmp_path, capsys):
    assert back(shop, FOURTH) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "--to '2024-05-10' is no day or run that was live" in said
    assert "ds=2024-05-08, run r2 (live since" in said
    assert "ds=2024-05-07, run r1 (live since" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    assert back(empty, DS) == EXIT_BAD_INPUT
    assert "nothing: no day was published yet" in capsys.readouterr().err


@pytest.mark.slow
def test_a_day_whose_files_were_vacuumed_is_refused(spark, shop, capsys):
    before = live(spark, shop)
    vacuum(spark, str(shop / LABELS_CURRENT.name), hours=0)
    assert back(shop, DS) == EXIT_BAD_INPUT
    assert "files of labels_current version 1 are gone" in capsys.readouterr().err
    assert live(spark, shop) == before


@pytest.mark.slow
def test_a_history_that_was_dropped_since_stops_no_rollback(spark, shop, caplog):
    drop_history(spark, str(shop / ITEM_TERMS.name), {})
    assert back(shop, DS) == EXIT_OK
    assert set(live(spark, shop)) == {"i1", "i2", "i3"}
    assert "item_terms version" in caplog.text
    assert "is gone" in caplog.text


@pytest.mark.slow
def test_the_audit_compares_with_no_day_that_was_taken_back(spark, shop):
    where = Warehouse.at(str(shop))
    silent = {"ds": NEXT, "item_id": "i1", "rank": 0, "reason": "no_text", "evidence": []} | lineage("r2")
    row = spark.createDataFrame([tuple(silent.get(name) for name in ITEM_TERMS.names)], ITEM_TERMS.ddl)
    write_slice(row, where.table(ITEM_TERMS), ITEM_TERMS, {"ds": NEXT})
    assert earlier_days(spark, where, ITEM_TERMS, THIRD).count() == 1
    assert back(shop, DS) == EXIT_OK
    assert earlier_days(spark, where, ITEM_TERMS, THIRD).count() == 0


@pytest.mark.slow
def test_what_a_rollback_changed_is_recorded_by_the_next_job_if_it_crashed_in_between(spark, shop, monkeypatch):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollback, "record_changes", crash)
    with pytest.raises(KeyboardInterrupt):
        back(shop, DS)
    monkeypatch.undo()
    assert live(spark, shop) == live(spark, shop, version=1)
    assert record_changes(spark, Warehouse.at(str(shop))) == {"changed_rollback": 3}
