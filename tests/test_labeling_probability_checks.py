"""The audit's comparison of stated probabilities with the day's clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl.contracts import CATALOGUE, QUALITY
from etl.errors import EXIT_GATE_REFUSED, EXIT_OK
from labeling import audit, embed_catalogue, predict
from labeling.probability import FORMAT
from labeling.probability_checks import reliability_checks
from model.bundle import add_calibration
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
    return root


def night(root: Path, stated: float) -> int:
    """The audit's exit code where each best term has this probability and no further one passes."""
    bundle = next((root / "bundles").glob("*/manifest.json")).parent
    curves = {kind: {"knots": [[0.0, p], [1.0, p]]} for kind, p in (("first", stated), ("further", 0.0))}
    add_calibration(bundle, {"format": FORMAT, "terms": {"calibrated": True} | curves})
    flags = ["--root", str(root), "--ds", str(DS), "--min-probability", "0.1"]
    assert [job.main(flags[: 6 if job is predict else 4]) for job in (embed_catalogue, predict)] == [EXIT_OK] * 2
    return audit.main(flags[:4])


def error_of(root: Path) -> dict:
    found = pl.read_delta(str(root / QUALITY.name)).filter(pl.col("check") == "item_terms.calibration_error").to_dicts()
    assert len({row["run_id"] for row in found}) == len(found)
    return max(found, key=lambda row: row["value"])


def test_a_bundle_whose_curve_is_distorted_is_warned_of_and_one_far_off_is_refused(shop, capsys):
    assert night(shop, stated=0.52) == EXIT_OK
    assert error_of(shop)["passed"]
    assert night(shop, stated=0.8) == EXIT_OK
    assert (error_of(shop)["passed"], error_of(shop)["hard"]) == (False, False)
    assert error_of(shop)["value"] == pytest.approx(0.3, abs=0.01)
    assert night(shop, stated=0.95) == EXIT_GATE_REFUSED
    assert "item_terms.calibration_error: found 0.45" in capsys.readouterr().err


def test_an_uncalibrated_bundle_is_warned_of_and_never_refused_for_it(shop, capsys):
    bundle = next((shop / "bundles").glob("*/manifest.json")).parent
    (bundle / "calibration.json").unlink(missing_ok=True)
    flags = ["--root", str(shop), "--ds", str(DS)]
    assert [job.main(flags) for job in (embed_catalogue, predict)] == [EXIT_OK] * 2
    assert audit.main([*flags, "--block-calibration-error", "0"]) == EXIT_OK
