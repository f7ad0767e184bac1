"""What a backfill is asked for, what it tells its stages, and what it says of days that were never made."""

from __future__ import annotations

import datetime as dt
import json
import time

import pytest

from etl.build_pairs import identity
from etl.code import code_version
from etl.contracts import RUNS, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, GateRefused, InputError, StageFailed, TryLater
from etl.inputs import read_input
from etl.pairs_config import PairsConfig
from etl.tables import write_slice
from etl.warehouse import Warehouse
from labeling.backfill import __main__ as backfill
from labeling.backfill.config import BackfillConfig, as_flags, passed_on, stage_settings
from labeling.backfill.diff import count_items, with_all_causes
from labeling.backfill.pins import same_files
from labeling.backfill.plan import Planner, late_days
from labeling.backfill.run import Outcome, refuse_failures
from labeling.label_changes import label_changes
from labeling.predict import PredictConfig, identity_settings
from tests.delta_data import lay, run_row
from tests.labeling_data import write_small_bundle
from tests.live_data import lineage, live_frame, live_row
from tests.rows import DS, lay_down, node, small_warehouse, term

PREVIOUS = DS - dt.timedelta(days=1)


def settings(root, **changes) -> BackfillConfig:
    return BackfillConfig(**{"root": str(root), "from_": PREVIOUS, "to": DS} | changes)


def test_another_code_than_the_pinned_one_is_refused(root, capsys):
    argv = ["plan", "--root", str(root), "--from", str(DS), "--to", str(DS)]
    assert backfill.main([*argv, "--code", "0.1.0+abc"]) == EXIT_BAD_INPUT
    assert f"code is '0.1.0+abc' (found '{code_version()}' here)" in capsys.readouterr().err
    assert settings(root, code=code_version()).code == code_version()


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


@pytest.mark.fault("clocks")
def test_the_hour_that_comes_twice_where_clocks_change_hides_no_late_clicks(spark, root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        first, second = (dt.datetime(2024, 10, 27, *at, tzinfo=dt.UTC) for at in ((0, 30), (1, 10)))
        assert first.astimezone().replace(tzinfo=None) > second.astimezone().replace(tzinfo=None)  # 02:30, then 02:10
        late = run_row("pairs", DS, finished_at=second, counts=f'{{"affected_days": "{PREVIOUS}"}}')
        lay(root / "runs", RUNS, [run_row("pairs", PREVIOUS, finished_at=first), late])
        runs = Planner(settings(root), ()).runs()
    time.tzset()
    assert late_days(PREVIOUS, runs) == [DS]
    assert runs[PREVIOUS, "pairs"]["finished_at"] == first.timestamp() * 1_000_000


@pytest.mark.parametrize(
    ("codes", "error"),
    [((2, 0), InputError), ((3, 0), GateRefused), ((75, 0), TryLater), ((3, 2), StageFailed), ((1,), StageFailed)],
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


def test_changes_are_counted_by_item_and_name_all_that_may_have_caused_them(spark):
    before, after = lineage(), lineage("r2", bundle="b2", vocabulary="v2")
    old = live_frame(spark, [live_row(f"i{n}") for n in range(5)], before)
    rows = [
        live_row("i0"),
        live_row("i1", category_probability=0.6),
        live_row("i2", ["pot"]),
        live_row("i3", path="Home > Pot", text_hash="another", title="Another title"),
        live_row("i9"),
    ]
    found = label_changes(old, live_frame(spark, rows, after), before, after).transform(with_all_causes).persist()
    assert count_items(found, of=4) == {"same": 1, "probability": 1, "changed": 2, "new": 1, "gone": 1}
    causes = {(row["item_id"], row["what"]): row["cause"] for row in found.collect()}
    assert causes["i2", "term"] == "model, vocabulary"
    assert causes["i3", "category"] == "title, model"
