"""What a night says before it is dear: dry runs, and inputs that stop it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from etl.contracts import (
    CATALOGUE,
    ITEM_EMBEDDINGS,
    RUNS,
    TAXONOMY,
    VOCABULARY,
)
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import embed_catalogue, predict
from model.bundle import add_calibration
from tests.labeling_data import TERMS
from tests.rows import DS, lay_down, node, term
from tests.small_night import NEXT, TITLES, argv, catalogue


@pytest.fixture
def shop(first_night: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    return Path(shutil.copytree(first_night, tmp_path / "warehouse"))


@pytest.mark.fault("poison")
def test_too_many_items_without_text_stop_the_run_before_anything_is_encoded(spark, shop, capsys):
    shutil.rmtree(shop / ITEM_EMBEDDINGS.name)
    assert embed_catalogue.main(argv(shop, DS, "--min-poison-items", "0")) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "3 of 9 items cannot be encoded" in said
    assert "item_id 'i7': no_text" in said
    assert not (shop / ITEM_EMBEDDINGS.name).exists()
    assert predict.main(argv(shop)) == EXIT_BAD_INPUT
    assert "run the stage that writes it first" in capsys.readouterr().err


def test_titles_that_were_not_encoded_stop_the_labelling(spark, shop, capsys):
    assert predict.main(argv(shop, NEXT)) == EXIT_BAD_INPUT
    assert "2 items of catalogue/ds=2024-05-08 have no vector" in capsys.readouterr().err


def test_the_tree_and_the_vocabulary_are_checked_before_labelling(spark, shop, capsys):
    lay_down(spark, shop, TAXONOMY, [node("a", "b", "A"), node("b", "a", "B")])
    assert predict.main(argv(shop)) == EXIT_BAD_INPUT
    assert "makes a cycle" in capsys.readouterr().err
    lay_down(spark, shop, VOCABULARY, [term("t1", " ")])
    assert predict.main(argv(shop)) == EXIT_BAD_INPUT
    assert "term_id 't1'" in capsys.readouterr().err


def versions(root: Path) -> dict[str, int]:
    return {str(p.parent.relative_to(root)): len(list(p.glob("*.json"))) for p in root.rglob("_delta_log")}


def said(caplog: pytest.LogCaptureFixture, job: Any, *more: str) -> str:
    """What a dry run logs; it writes nothing."""
    caplog.clear()
    with caplog.at_level("INFO"):
        assert job.main([*more, "--dry-run"]) == EXIT_OK
    assert "dry run: nothing was written" in caplog.text
    return caplog.text


def test_a_dry_run_of_the_encoding_counts_what_is_missing_and_writes_nothing(shop, caplog):
    before = versions(shop)
    plan = said(caplog, embed_catalogue, *argv(shop, NEXT))
    assert "plan: 9 items, 7 distinct texts: reuse 5 vectors, encode 2 texts with bundle" in plan
    assert re.search(r"plan: cost about \d+ s \([\d,]+ a second, measured for 2024-05-07", plan)
    shutil.rmtree(shop / ITEM_EMBEDDINGS.name)
    shutil.rmtree(shop / RUNS.name)
    plan = said(caplog, embed_catalogue, *argv(shop, NEXT))
    assert "reuse 0 vectors, encode 7 texts" in plan
    assert "plan: cost unknown" in plan
    assert versions(shop) == {k: v for k, v in before.items() if k not in (f"{ITEM_EMBEDDINGS.name}", RUNS.name)}


@pytest.mark.slow
def test_a_dry_run_of_the_labelling_names_what_changed_and_writes_nothing(spark, shop, caplog):
    assert "changed: everything (not labelled yet)" in said(caplog, predict, *argv(shop, NEXT))
    plan = said(caplog, predict, *argv(shop))
    assert "changed: nothing, the same rows come out" in plan
    assert re.search(r"plan: score 9 items .*\n.*plan: cost about \d+ s", plan)
    assert "changed: settings" in said(caplog, predict, *argv(shop, DS, "--max-terms", "1"))
    lay_down(spark, shop, VOCABULARY, [*TERMS, term("t9", "spoon")])
    lay_down(spark, shop, CATALOGUE, catalogue(TITLES | {"i1": "Another thing"}))
    add_calibration(next((shop / "bundles").glob("*/")), {})
    before = versions(shop)
    plan = said(caplog, predict, *argv(shop))
    assert "changed: calibration, vocabulary, catalogue" in plan
    assert "plan: 1 items have no vector yet" in plan
    assert versions(shop) == before
