"""One command answers where a label comes from: Delta tables read without Spark, and a real bundle."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LABELS_CURRENT, RUNS
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import explain
from tests.delta_data import category_row, lay, lineage, live_row, run_row, term_row
from tests.labeling_data import write_small_bundle
from tests.rows import DS

NEXT = DS + dt.timedelta(days=1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of three items: i1 changed on the first, i2 is a person's, i3 abstains; i9 is in no history any more."""
    root = tmp_path_factory.mktemp("explain")
    bundle = write_small_bundle(root).id
    for ds in (DS, NEXT):
        made = lineage(bundle, ds)
        close = {"runner_up_id": "t4", "runner_up": "table lamp", "evidence": ["boil water"]}
        terms = [term_row("i1", ds=ds, **close), term_row("i2", ds=ds), term_row("i3", None, ds=ds)]
        lay(root / "item_terms", ITEM_TERMS, [row | made for row in terms])
        lay(root / "item_categories", ITEM_CATEGORIES, [category_row(f"i{n}", ds) | made for n in (1, 2, 3)])
        lay(root / "runs", RUNS, [run_row("predict", ds, inputs='{"catalogue": "delta:7"}')])
    person = live_row("i2", term="dress", term_source="override", term_probability=None)
    silent = live_row("i3", term=None, terms=[], term_probability=None, term_reason="no_text")
    gone = live_row("i9", ds=DS - dt.timedelta(days=400))
    live = [row | lineage(bundle) for row in (live_row("i1"), person, silent)]
    lay(root / "labels_current", LABELS_CURRENT, [*live, gone])
    at = dt.datetime(2024, 5, 1)
    given = [{"item_id": "i2", "what": "term", "value": "t3", "author": "ann", "at": at, "until": None}]
    (root / "overrides").mkdir()
    pl.DataFrame(given, schema_overrides={"until": pl.Datetime("us")}).write_parquet(root / "overrides" / "part.parquet")
    return root


def asked(capsys: pytest.CaptureFixture[str], shop: Path, item: str, *more: str) -> dict[str, Any]:
    assert explain.main(["--root", str(shop), "--item", item, "--json", *more]) == EXIT_OK
    return json.loads(capsys.readouterr().out)


def test_a_live_label_leads_to_its_evidence_runner_up_bundle_and_input_versions(shop, capsys):
    found = asked(capsys, shop, "i1")
    (term,) = found["terms"]
    assert (found["live"]["term"], found["ds"]) == ("kettle", str(DS))
    assert (term["evidence"], term["runner_up"], term["margin"]) == (["boil water"], "table lamp", 0.2)
    assert found["category"]["path"] == ["Home", "Kettle"]
    assert found["lineage"]["inputs"] == {"catalogue": "rows:1"}
    assert (found["bundle"]["id"], found["bundle"]["ds"]) == (found["lineage"]["bundle"], str(DS))
    assert [(s["stage"], s["inputs"]) for s in found["stages"]] == [("predict", {"catalogue": "delta:7"})]


def test_evidence_of_another_run_never_passes_for_that_of_the_live_label(shop, tmp_path, capsys):
    copy = Path(shutil.copytree(shop, tmp_path / "shop"))
    again = lineage("b2", run_id=f"{DS}-r2")
    for table in ("item_terms", "item_categories"):
        shutil.rmtree(copy / table)
    lay(copy / "item_terms", ITEM_TERMS, [term_row("i1", "t3", term="dress") | again])
    found = asked(capsys, copy, "i1")
    assert (found["lineage"]["run_id"], found["run_id"]) == (f"{DS}-r1", f"{DS}-r2")
    assert explain.main(["--root", str(copy), "--item", "i1"]) == EXIT_OK
    assert "another run than that of the live label" in " ".join(capsys.readouterr().out.split())


def test_what_another_day_said_is_asked_by_its_day(shop, capsys):
    found = asked(capsys, shop, "i1", "--ds", str(NEXT))
    assert (found["ds"], found["lineage"]["run_id"]) == (str(NEXT), f"{NEXT}-r1")


def test_a_person_who_won_is_named_beside_what_the_model_said(shop, capsys):
    assert explain.main(["--root", str(shop), "--item", "i2"]) == EXIT_OK
    printed = " ".join(capsys.readouterr().out.split())
    assert "live term dress (set by a person, which wins over the model)" in printed
    assert "override term t3 by ann at 2024-05-01" in printed
    assert "term 1 kettle (t2): probability 0.8000" in printed


def test_an_abstention_is_explained_by_its_reason(shop, capsys):
    assert explain.main(["--root", str(shop), "--item", "i3"]) == EXIT_OK
    printed = " ".join(capsys.readouterr().out.split())
    assert "live term none: no_text" in printed
    assert "no term no_text" in printed


def test_a_live_row_older_than_the_history_still_tells_its_lineage(shop, capsys):
    found = asked(capsys, shop, "i9")
    assert (found["ds"], found["terms"]) == (None, [])
    assert found["lineage"]["vocabulary"] == "v1"
    assert found["bundle"] == {"id": "b1", "missing": f"no longer at {shop}/bundles/b1"}


@pytest.mark.parametrize("more", [["--item", "i404"], ["--item", "i1", "--ds", "2024-01-01"]])
def test_an_item_or_a_day_that_is_not_there_is_refused_by_name(shop, capsys, more):
    assert explain.main(["--root", str(shop), *more]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert f"no label of item '{more[1]}'" in said
    assert ("on ds=2024-01-01" in said) == (len(more) > 2)
