"""The gate and the publishing of one small warehouse: what goes live, and what does not."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import (
    ANNOTATION_SAMPLE,
    CATALOGUE,
    ETL_COUNTS,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    OVERRIDES,
    QUALITY,
    RUNS,
    VOCABULARY,
)
from etl.errors import EXIT_BAD_INPUT, EXIT_GATE_REFUSED, EXIT_OK
from etl.runs import record_stage
from etl.warehouse import Warehouse
from labeling import audit, predict, publish, rollback
from labeling.live_log import live_state
from tests.labeling_data import TERMS
from tests.live_data import changes
from tests.rows import DS, lay_down, term
from tests.small_night import NEXT, TITLES, argv, catalogue, live, live_version, rows


@pytest.fixture
def shop(first_night: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    return Path(shutil.copytree(first_night, tmp_path / "warehouse"))


def test_a_failed_audit_names_every_failure_and_leaves_the_live_labels_alone(spark, shop, capsys):
    before, history = live(shop), rows(spark, shop, ITEM_TERMS)
    staged = Warehouse.at(str(shop)).staged
    spark.sql(f"DELETE FROM delta.`{staged(ITEM_TERMS)}` WHERE item_id = 'i1'")
    spark.sql(f"UPDATE delta.`{staged(ITEM_CATEGORIES)}` SET path_ids = array('f', 'h2', 'h21') WHERE item_id = 'i5'")
    assert audit.main(argv(shop, DS, "--max-abstention", "0.1")) == EXIT_GATE_REFUSED
    said = capsys.readouterr().err
    for name in ("item_terms.items_without_outcome", "item_categories.paths_not_in_tree", "item_terms.abstention"):
        assert name in said
    assert publish.main(argv(shop)) == EXIT_GATE_REFUSED
    assert live(shop) == before
    assert rows(spark, shop, ITEM_TERMS) == history
    failed = tables.read(spark, str(shop / QUALITY.name), QUALITY).where("hard AND NOT passed")
    assert failed.count() == 4  # both halves abstain on 3 of 9 items, one item lacks its row, one path is torn


def test_only_a_run_that_was_audited_is_published(spark, shop, capsys):
    before = live(shop)
    assert predict.main(argv(shop, DS, "--max-terms", "1")) == EXIT_OK  # another run than the audited one
    assert publish.main(argv(shop)) == EXIT_BAD_INPUT
    assert "run `labeller audit` first" in capsys.readouterr().err
    assert live(shop) == before


def test_rows_staged_after_the_audit_are_not_published(spark, shop, capsys):
    before = live(shop)
    spark.sql(f"UPDATE delta.`{Warehouse.at(str(shop)).staged(ITEM_TERMS)}` SET score = 0.5 WHERE item_id = 'i1'")
    assert publish.main(argv(shop)) == EXIT_BAD_INPUT
    assert "is not what was audited: other rows in item_terms; run `labeller audit` again" in capsys.readouterr().err
    assert live(shop) == before


def test_inputs_that_changed_after_the_labelling_stop_the_publishing(spark, shop, capsys):
    before, history = live(shop), rows(spark, shop, ITEM_TERMS)
    lay_down(spark, shop, CATALOGUE, catalogue(TITLES | {"i1": "Another thing"}))
    lay_down(spark, shop, VOCABULARY, [*TERMS, term("t9", "spoon")])
    assert publish.main(argv(shop)) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "catalogue is of version 'rows:" in said
    assert "vocabulary is of version" in said
    assert (live(shop), rows(spark, shop, ITEM_TERMS)) == (before, history)


def test_overrides_win_while_they_hold_and_unknown_ones_are_left_out(spark, shop):
    def override(item: str, what: str, value: str, day: int, until: int | None = None, by: str = "ann") -> dict[str, Any]:
        at, end = (dt.datetime(2024, 5, d) if d else None for d in (day, until))
        return {"item_id": item, "what": what, "value": value, "author": by, "at": at, "until": end}

    given = [
        override("i1", "term", "t3", 1),
        override("i1", "term", "t1", 2),
        override("i1", "term", "t1", 1, by="bob"),
        override("i1", "category", "f2", 1),
        override("i1", "category", "f1", 2),
        override("i3", "term", "t1", 1, until=5),
        override("i4", "term", "t2", 20),
        override("i5", "term", "no such term", 1),
        override("i7", "category", "h2", 1),
    ]
    lay_down(spark, shop, OVERRIDES, given)
    assert publish.main(argv(shop)) == EXIT_OK
    found = live(shop)
    assert [t["term_id"] for t in found["i1"]["terms"]] == ["t1", "t3"]
    assert (found["i1"]["category_path"], found["i1"]["category_source"]) == ("Fashion > Sneakers", "override")
    assert {found[k]["term_source"] for k in ("i3", "i4", "i5", "i7")} == {"model"}
    assert (found["i7"]["category_path"], found["i7"]["category_reason"]) == ("Home > Lamps", None)
    assert found["i7"]["term_reason"] == "no_text"
    assert '"overrides": "rows:' in found["i1"]["inputs"]
    assert '"overrides"' not in found["i3"]["inputs"]
    version = live_version(spark, shop)
    assert changes(spark, shop, live_version=version, item_id="i1").keys() == {("i1", "term"), ("i1", "category")}
    assert {cause for _, _, cause in changes(spark, shop, live_version=version).values()} == {"override"}


@pytest.mark.slow
def test_a_correction_of_today_goes_live_before_the_night_if_that_is_asked_for(spark, shop):
    at = dt.datetime.combine(NEXT, dt.time(9))
    row = {"item_id": "i1", "what": "term", "value": "t3", "author": "ann", "at": at, "until": None}
    lay_down(spark, shop, OVERRIDES, [row])
    assert publish.main(argv(shop)) == EXIT_OK
    assert live(shop)["i1"]["term_source"] == "model"
    assert publish.main(argv(shop, DS, "--overrides-as-of", str(NEXT))) == EXIT_OK
    assert live(shop)["i1"]["term_source"] == "override"
    state = live_state(Warehouse.at(str(shop)))
    assert (state.now.ds, state.now.overrides_as_of) == (DS, NEXT)
    assert publish.main(argv(shop)) == EXIT_OK  # a task that is cleared takes no correction back
    assert live(shop)["i1"]["term_source"] == "override"


@pytest.mark.fault("volume")
@pytest.mark.slow
def test_the_audit_compares_with_the_days_before(spark, shop, capsys):
    where = Warehouse.at(str(shop))
    for table in (ITEM_TERMS, ITEM_CATEGORIES):
        few = tables.read(spark, where.staged(table), table, ds=DS).where("item_id IN ('i1', 'i3', 'i4')")
        tables.write_slice(few.withColumn("ds", F.lit(NEXT)), where.staged(table), table, {"ds": NEXT})
    lay_down(spark, shop, CATALOGUE, catalogue({k: TITLES[k] for k in ("i1", "i3", "i4")}, NEXT))
    assert audit.main(argv(shop, NEXT)) == EXIT_GATE_REFUSED
    assert "item_terms.items_against_median: found -0.666667" in capsys.readouterr().err


def times(factor: float, frame: DataFrame) -> DataFrame:
    """So many items for each that a label table has; of fewer than one all."""
    copies = F.explode(F.sequence(F.lit(1), F.lit(max(1, int(factor)))))
    return frame.withColumn("copy", copies).withColumn("item_id", F.concat_ws("-", "item_id", "copy")).drop("copy")


def put_clicks(spark: SparkSession, root: Path, ds: dt.date, today: int) -> None:
    """What the pairs of a night say that they counted: 200 events and 100 acts a day, and so many acts of ``ds``."""
    where = Warehouse.at(str(root))
    rows = []
    for day in [ds - dt.timedelta(days=n) for n in range(5)]:
        acts = today if day == ds else 100
        rows += [(ds, day, 1, "unknown_event", 2 * acts, 0, 2 * acts), (ds, day, 5, "impression", 2 * acts, acts, acts)]
    tables.write_slice(spark.createDataFrame(rows, ETL_COUNTS.ddl), where.table(ETL_COUNTS), ETL_COUNTS, {"ds": ds})
    record_stage(spark, where, ds, "pairs", inputs={}, counts={}, seconds=1.0, settings={"window_days": 5})


@pytest.mark.fault("volume")
@pytest.mark.parametrize("factor", [pytest.param(0.05, marks=pytest.mark.slow), 20])
def test_a_twentieth_or_twenty_times_of_catalogue_and_clicks_is_not_published_and_what_is_live_stays(
    spark, shop, capsys, factor
):
    where = Warehouse.at(str(shop))
    before = live(shop)
    for table in (ITEM_TERMS, ITEM_CATEGORIES):
        day = tables.read(spark, where.staged(table), table, ds=DS).localCheckpoint()
        tables.write_slice(times(1 / factor, day), where.table(table), table, {"ds": DS})
        now = times(factor, day).withColumn("ds", F.lit(NEXT))
        tables.write_slice(now, where.staged(table), table, {"ds": NEXT})
    ids = [f"{item}-{n + 1}" for item in TITLES for n in range(max(1, int(factor)))]
    lay_down(spark, shop, CATALOGUE, catalogue(dict.fromkeys(ids, "Steel kettle"), NEXT))
    put_clicks(spark, shop, DS, 100)
    put_clicks(spark, shop, NEXT, int(100 * factor))
    history = rows(spark, shop, ITEM_TERMS, "ds", "item_id")
    assert audit.main(argv(shop, NEXT)) == EXIT_GATE_REFUSED
    said = capsys.readouterr().err
    for name in ("item_terms.items", "item_categories.items", "pairs.events", "pairs.acts"):
        assert f"{name}_against_median: found {float(factor - 1)}, expected" in said
    assert f"acts of the day's click log, now {int(100 * factor)}, median of 4 other days of the window 100" in said
    assert publish.main(argv(shop, NEXT)) == EXIT_GATE_REFUSED
    assert (live(shop), rows(spark, shop, ITEM_TERMS, "ds", "item_id")) == (before, history)


@pytest.mark.slow
@pytest.mark.fault("volume")
def test_a_sale_that_is_said_to_be_one_goes_through_the_audit(spark, shop):
    put_clicks(spark, shop, DS - dt.timedelta(days=1), 100)
    put_clicks(spark, shop, DS, 1_000)
    assert audit.main(argv(shop)) == EXIT_GATE_REFUSED
    assert audit.main(argv(shop, DS, "--max-click-factor", "10")) == EXIT_OK


def test_a_newer_day_that_changed_no_label_still_keeps_older_ones_out(spark, root):
    where = Warehouse.at(str(root))
    assert live_state(where).newest is None
    days = {DS: 1, NEXT: 1, NEXT + dt.timedelta(days=1): 0}
    runs = [
        (ds, "publish", "r", "b", "c", "{}", f'{{"live": {went}}}', 1.0, dt.datetime(2024, 6, 1), None)
        for ds, went in days.items()
    ]
    tables.write_slice(spark.createDataFrame(runs, RUNS.ddl), where.table(RUNS), RUNS, {"stage": "publish"})
    assert live_state(where).newest == NEXT


def test_a_published_day_has_a_sample_of_its_labels_for_people_to_judge(first_night):
    sample = {row["item_id"]: row for row in pl.read_delta(str(first_night / ANNOTATION_SAMPLE.name)).to_dicts()}
    assert set(sample) == set(TITLES)  # of nine items all are drawn
    assert {row["inclusion"] for row in sample.values()} == {1.0}
    assert (sample["i1"]["term_id"], sample["i1"]["category_path"]) == ("t2", live(first_night)["i1"]["category_path"])
    assert (sample["i7"]["stratum"], sample["i7"]["term"]) == ("no term | no category", None)
    assert sample["i1"]["run_id"].startswith(f"{DS}-")


@pytest.mark.slow
def test_what_a_cut_changed_is_taken_back_by_a_rollback_and_stays_so_when_the_day_is_published_again(spark, shop):
    before, run_id = live(shop), live(shop)["i6"]["run_id"]
    jobs = ((predict, ("--max-terms", "1")), (audit, ()), (publish, ()))
    assert [job.main(argv(shop, DS, *more)) for job, more in jobs] == [EXIT_OK] * 3
    found = changes(spark, shop, live_version=live_version(spark, shop))
    assert {key: cause for key, (_, _, cause) in found.items()} == {("i6", "terms"): "threshold"}
    assert rollback.main(["--root", str(shop), "--to", run_id]) == EXIT_OK
    assert live(shop) == before
    assert publish.main(argv(shop)) == EXIT_OK
    assert live(shop) == before
    assert publish.main(argv(shop, DS, "--undo-rollback")) == EXIT_OK
    assert len(live(shop)["i6"]["terms"]) == 1
