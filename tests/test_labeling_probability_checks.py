"""The audit's comparison of stated probabilities with the day's clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl.contracts import CATALOGUE, ITEM_TERMS, PAIRS, QUALITY
from etl.errors import EXIT_GATE_REFUSED, EXIT_OK
from etl.polars_scan import scan
from etl.text import Normaliser
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict
from labeling.probability import FORMAT
from labeling.probability_checks import clicked_for, reliability_checks, stated_and_clicked
from labeling.report import clicks
from model.bundle import add_calibration
from tests.delta_data import lay, term_row
from tests.labeling_data import pair, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down, small_warehouse, term

THINGS = ("kettle", "dress", "lamp", "drill", "sofa", "mat")


def checks(shift: float, cases: int = 1_000) -> list[audit.Check]:
    rng = np.random.default_rng(0)
    stated = rng.uniform(0.3, 0.6, cases)
    clicked = (rng.random(cases) < stated + shift).astype(np.float64)
    return reliability_checks(stated, clicked, warn=0.1, block=0.3, least=50)


@pytest.mark.parametrize(("shift", "passed", "hard"), [(0.0, True, False), (0.2, False, False), (0.4, False, True)])
def test_far_from_the_clicks_is_a_warning_and_very_far_stops_the_night(shift, passed, hard):
    error, skill, auc = checks(shift)
    assert (error.name, error.passed, error.hard) == ("item_terms.calibration_error", passed, hard)
    assert error.value == pytest.approx(shift, abs=0.06)
    assert [(check.passed, check.hard) for check in (skill, auc)] == [(True, False)] * 2
    assert (skill.value > 0) is passed
    assert auc.value > 0.55


def test_of_too_few_clicked_terms_nothing_is_said():
    assert [(check.value, check.passed) for check in checks(0.4, cases=49)] == [(None, True)] * 3


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 titles that held-out queries led to, half of them for the term that they say, half for another one."""
    root = tmp_path_factory.mktemp("shop")
    (root / "warehouse.toml").write_text('[warehouse]\nabsent = ["taxonomy"]\n')
    small_warehouse(spark, root, vocabulary=[term(f"t{n}", thing) for n, thing in enumerate(THINGS)])
    says = [(THINGS[n % 6], THINGS[(n + (n // 6) % 2) % 6], n) for n in range(60)]
    rows = [pair(asked, f"i{n:02}", f"{said} no {n}", split="test") for said, asked, n in says]
    lay_down(spark, root, CATALOGUE, [item(row["item_id"], row["title"]) for row in rows])
    write_pairs(spark, root, [*rows, pair("no", "i00", "kettle no 0")])
    write_small_bundle(root)
    assert embed_catalogue.main(argv(root)) == EXIT_OK
    return root


def argv(root: Path, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(DS), *more]


def calibration_file(root: Path) -> Path:
    return next((root / "bundles").glob("*/manifest.json")).with_name("calibration.json")


def label(root: Path, stated: float) -> None:
    """Stage labels of a bundle whose curves give each best term this probability, and no further one any."""
    curves = {kind: {"knots": [[0.0, p], [1.0, p]]} for kind, p in (("first", stated), ("further", 0.0))}
    add_calibration(calibration_file(root).parent, {"format": FORMAT, "terms": {"calibrated": True} | curves})
    assert predict.main(argv(root)) == EXIT_OK


def found(root: Path) -> dict:
    """What the last audit wrote of the calibration error."""
    checks = pl.read_delta(str(root / QUALITY.name)).filter(pl.col("check") == "item_terms.calibration_error")
    staged = pl.read_delta(str(root / "staging" / ITEM_TERMS.name))["run_id"][0]
    return checks.filter(pl.col("run_id") == staged).row(0, named=True)


def test_the_report_compares_the_same_terms_with_the_same_clicks_as_the_audit(spark, tmp_path):
    """Through two engines; among them a main term that was trained, and further terms of which one was."""
    names = [term(f"t{n}", thing) for n, thing in enumerate(THINGS)]
    vocabulary, normalise = Vocabulary.of(names), Normaliser()
    asked = [(f"i{n:02}", THINGS[n % 6], "test", 2.0) for n in range(12)]
    asked += [("i00", THINGS[1], "train", 1.0), ("i01", THINGS[3], "train", 9.0), ("i02", "no term", "test", 1.0)]
    lay(tmp_path / "pairs", PAIRS, [pair(q, i, f"No {i}", split=s, weight=w) for i, q, s, w in asked])
    given = [(f"i{n:02}", f"t{(n + n % 2) % 6}", 1, 0.5 + n / 100) for n in range(13)] + [("i00", "t1", 2, 0.4)]
    lay(tmp_path / "item_terms", ITEM_TERMS, [term_row(i, t, rank=r, probability=p) for i, t, r, p in given])
    rows, pairs = (spark.read.format("delta").load(str(tmp_path / name)) for name in ("item_terms", "pairs"))
    found = clicks.stated_and_clicked(Warehouse(tmp_path), DS, vocabulary, normalise, scan(str(tmp_path / "item_terms")))
    items = clicked_for(rows, pairs, vocabulary, normalise)
    expected = stated_and_clicked(rows, items, vocabulary)
    assert np.array_equal(found, expected)
    assert (found[0].shape, found[1].sum()) == ((11,), 6)


@pytest.mark.slow
def test_a_bundle_whose_curve_is_distorted_is_warned_of_and_refused_beyond_the_setting(shop, capsys):
    label(shop, stated=0.8)
    assert audit.main(argv(shop)) == EXIT_OK
    assert (found(shop)["passed"], found(shop)["hard"]) == (False, False)
    assert found(shop)["value"] == pytest.approx(0.8 - 0.5, abs=0.02)
    assert audit.main(argv(shop, "--block-calibration-error", "0.2")) == EXIT_GATE_REFUSED
    assert "item_terms.calibration_error: found 0.3" in capsys.readouterr().err
    calibration_file(shop).unlink()  # a bundle without a calibration is warned of, and never refused for its error
    assert audit.main(argv(shop, "--block-calibration-error", "0.2")) == EXIT_OK
