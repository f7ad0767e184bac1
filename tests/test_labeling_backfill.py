"""What a backfill is asked for, what it tells its stages, and what it says of days that were never made."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from etl.build_pairs import identity
from etl.contracts import LABELS_CURRENT, RUNS, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, GateRefused, InputError, StageFailed
from etl.inputs import read_input
from etl.lease import DayTaken
from etl.pairs_config import PairsConfig
from etl.tables import write_slice
from etl.warehouse import Warehouse
from labeling import backfill
from labeling.backfill_config import BackfillConfig, as_flags, passed_on, stage_settings
from labeling.backfill_diff import by_cause, compare
from labeling.backfill_pins import same_files
from labeling.backfill_plan import Planner, late_days
from labeling.backfill_run import Outcome, refuse_failures
from labeling.predict import PredictConfig, identity_settings
from tests.labeling_data import write_small_bundle
from tests.rows import DS, lay_down, node, small_warehouse, term

PREVIOUS = DS - dt.timedelta(days=1)


def settings(root, **changes) -> BackfillConfig:
    return BackfillConfig(**{"root": str(root), "from_": PREVIOUS, "to": DS} | changes)


def test_days_are_made_newest_first_or_oldest_first(root):
    assert settings(root).days == [DS, PREVIOUS]
    assert settings(root, order="oldest").days == [PREVIOUS, DS]


def test_a_range_that_ends_before_it_starts_is_refused(root, capsys):
    argv = ["plan", "--root", str(root), "--from", str(DS), "--to", str(PREVIOUS)]
    assert backfill.main(argv) == EXIT_BAD_INPUT
    assert f"the range is {DS} to {PREVIOUS} (expected --to on or after --from)" in capsys.readouterr().err


def test_a_range_without_its_first_day_is_refused(root, capsys):
    assert backfill.main(["run", "--root", str(root), "--to", str(DS)]) == EXIT_BAD_INPUT
    assert "from is not given: say --from YYYY-MM-DD" in capsys.readouterr().err


@pytest.mark.parametrize("pin", [("--bundle", "b"), ("--window-days", "3"), ("--pins", "vocabulary=1")])
def test_days_as_they_were_take_no_pins_of_today(root, capsys, pin):
    argv = ["plan", "--root", str(root), "--from", str(DS), "--to", str(DS), "--mode", "as-it-was", *pin]
    assert backfill.main(argv) == EXIT_BAD_INPUT
    assert "takes bundle, window and versions of each day's lineage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "of", "changes"),
    [
        (PairsConfig, identity, {"min_users": 3, "countries": ("CN", "DE"), "simplified_chinese": True}),
        (PairsConfig, identity, {"arrived_by": DS + dt.timedelta(days=1), "product_text": "{title} {brand}"}),
        (PredictConfig, identity_settings, {"few_shot": True, "max_gap": 0.125}),
    ],
)
def test_recorded_settings_come_back_as_flags(root, kind, of, changes):
    recorded = kind(root=str(root), ds=DS, **changes).model_dump(mode="json", include=of(kind(root=str(root), ds=DS)).keys())
    told = stage_settings(kind, ("--root", str(root), "--ds", str(DS), *as_flags(recorded)))
    assert of(told) == recorded


def test_stages_get_the_flags_of_the_command_line_and_read_the_file_themselves(root):
    (root / "warehouse.toml").write_text('[spark]\nspark_conf = { "spark.hadoop.fs.s3a.secret.key" = "hush" }\n')
    given = ["--master", "local[1]", "--spark-conf", "a=b", "--pins", "vocabulary=3", "--from", str(DS), "--to", str(DS)]
    args = backfill.arg_parser().parse_args(["run", "--root", str(root), *given])
    assert passed_on(args) == ("--spark-conf", "a=b", "--pins", "vocabulary=3", "--master", "local[1]")


def test_a_pin_of_what_is_no_input_is_refused(root, capsys):
    argv = ["plan", "--root", str(root), "--from", str(DS), "--to", str(DS), "--pins", "vocabolary=1"]
    assert backfill.main(argv) == EXIT_BAD_INPUT
    assert "vocabolary is no input table (expected some of click_log, catalogue, vocabulary" in capsys.readouterr().err


def test_a_pinned_version_of_an_input_is_read_whatever_came_later(spark, root):
    lay_down(spark, root, VOCABULARY, [term()], "delta")
    lay_down(spark, root, VOCABULARY, [term(), term("t2", "kettle")], "delta")
    for pins, rows in (({"vocabulary": 0}, 1), ({}, 2)):
        warehouse = Warehouse.of(settings(root, pins=pins))
        assert read_input(spark, warehouse, VOCABULARY).count() == rows


def test_a_pin_of_a_table_without_versions_is_refused(spark, root):
    lay_down(spark, root, VOCABULARY, [term()])
    with pytest.raises(InputError, match="is no Delta table, so there is no version 0 of it to read"):
        read_input(spark, Warehouse.of(settings(root, pins={"vocabulary": 0})), VOCABULARY)


def test_an_input_is_the_same_where_no_file_that_is_read_changed(spark, root):
    lay_down(spark, root, TAXONOMY, [node("c", None, "Shoes")], "delta")
    warehouse = Warehouse.at(str(root))
    assert same_files(spark, warehouse, TAXONOMY, [], "delta:0", "delta:0")
    spark.sql(f"ALTER TABLE delta.`{root}/taxonomy` SET TBLPROPERTIES ('a' = 'b')")
    assert same_files(spark, warehouse, TAXONOMY, [], "delta:0", "delta:1")
    lay_down(spark, root, TAXONOMY, [node("c", None, "Boots")], "delta")
    assert not same_files(spark, warehouse, TAXONOMY, [], "delta:1", "delta:2")
    assert not same_files(spark, warehouse, TAXONOMY, [], "parquet:abc", "delta:2")


def test_a_day_that_was_never_made_needs_every_stage_and_one_without_a_catalogue_cannot_be_made(spark, root, capsys):
    small_warehouse(spark, root)
    write_small_bundle(root)
    assert backfill.main(["plan", "--root", str(root), "--from", str(PREVIOUS), "--to", str(DS)]) == EXIT_OK
    said = " ".join(capsys.readouterr().out.split())
    assert f"{DS} none no 0 of 2 none no pairs embed predict audit publish relate ?" in said
    assert f"{DS} pairs: not made yet" in said
    assert f"{PREVIOUS} cannot be made: catalogue/ds={PREVIOUS} has 0 rows" in said
    assert backfill.main(["plan", "--json", "--root", str(root), "--from", str(PREVIOUS), "--to", str(DS)]) == EXIT_OK
    newest, oldest = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (newest["ds"], newest["stages"]["pairs"], newest["problem"]) == (str(DS), "not made yet", "")
    assert (oldest["ds"], oldest["stages"]) == (str(PREVIOUS), {})
    assert oldest["problem"].startswith(f"catalogue/ds={PREVIOUS} has 0 rows")
    assert not (root / "runs").exists()


def test_late_clicks_name_the_days_whose_pairs_lack_them(spark, root):
    small_warehouse(spark, root)
    for ds, hour, affected in ((PREVIOUS, 1, "none"), (DS, 2, str(PREVIOUS))):
        at = dt.datetime(2024, 6, 1, hour)
        row = (ds, "pairs", None, None, "c", "{}", f'{{"affected_days": "{affected}"}}', 1.0, at, "{}")
        write_slice(spark.createDataFrame([row], RUNS.ddl), f"{root}/runs", RUNS, {"ds": ds, "stage": "pairs"})
    runs = Planner(settings(root), ()).runs()
    assert late_days(PREVIOUS, runs) == [DS]
    assert late_days(DS, runs) == []


@pytest.mark.parametrize(
    ("codes", "error"),
    [((2, 0), InputError), ((3, 0), GateRefused), ((75, 0), DayTaken), ((3, 2), StageFailed), ((1,), StageFailed)],
)
def test_days_that_fail_are_all_named_by_an_error_of_their_kind(codes, error):
    outcomes = [Outcome(DS - dt.timedelta(days=n), [], code, f"why {n}" if code else "") for n, code in enumerate(codes)]
    with pytest.raises(error) as raised:
        refuse_failures(outcomes)
    failed = [outcome for outcome in outcomes if outcome.code]
    assert str(raised.value).startswith(f"{len(failed)} of {len(codes)} days were not made")
    assert all(f"ds={outcome.ds}: {outcome.failure}" in str(raised.value) for outcome in failed)


def test_days_that_were_all_made_are_no_failure():
    refuse_failures([Outcome(DS, ["pairs"])])


def live_row(item_id: str, term_id: str | None = "t2", category: str | None = "h1", **changes) -> tuple:
    """A row of LABELS_CURRENT."""
    terms = [] if term_id is None else [(term_id, f"name of {term_id}", 0.9, 0.8)]
    row = {
        "item_id": item_id, "ds": DS, "title": "Steel kettle", "term": terms[0][1] if terms else None,
        "term_probability": terms[0][3] if terms else None, "terms": terms, "term_source": "model",
        "term_reason": None if terms else "low_probability", "category_id": category, "category_path": f"path of {category}",
        "category_probability": 0.7, "category_source": "model", "category_reason": None, "run_id": "r", "bundle": "b1",
        "calibration": "c", "vocabulary": "v1", "taxonomy": "x1", "code": "k", "inputs": '{"pairs": "p1"}',
    }  # fmt: skip
    return tuple((row | changes)[name] for name in LABELS_CURRENT.names)


def test_changes_are_told_by_kind_and_by_all_that_differs(spark):
    old = [live_row(f"i{n}") for n in range(7)]
    new = [
        live_row("i0"),
        live_row("i1", category_probability=0.6),
        live_row("i2", "t3", vocabulary="v2", taxonomy="x2"),
        live_row("i3", None, title="Brass lamp", bundle="b2", inputs='{"pairs": "p2"}'),
        live_row("i4", category="f1", taxonomy="x2", vocabulary="v2"),
        live_row("i5", "t1", term_source="override", bundle="b2"),
        live_row("i9"),
    ]
    frames = [spark.createDataFrame(rows, LABELS_CURRENT.ddl) for rows in (new, old)]
    compared = compare(*frames).persist()
    kinds = {row["item_id"]: row["kind"] for row in compared.collect()}
    changed = dict.fromkeys(("i2", "i3", "i4", "i5"), "changed")
    assert kinds == {"i0": "same", "i1": "probability", **changed, "i6": "gone", "i9": "new"}
    assert {tuple(row) for row in by_cause(compared).collect()} == {
        ("term", "vocabulary", "i2", "Steel kettle", "name of t2", "name of t3"),
        ("term", "title, model, clicks", "i3", "Brass lamp", "name of t2", "none: low_probability"),
        ("category", "taxonomy", "i4", "Steel kettle", "path of h1", "path of f1"),
        ("term", "override", "i5", "Steel kettle", "name of t2", "name of t1"),
    }
