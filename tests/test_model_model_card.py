"""The card of a bundle: what the files beside it say, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.errors import InputError
from etl.text import normalise
from etl.tokenizer import WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from model.bundle import add_calibration, load_bundle, write_bundle
from model.fit import draw
from model.model_card import CARD_FILE, GATE_FILE, model_card, record_gate, write_card
from model.presets import PRESETS
from tests.model_data import DS

TINY = PRESETS["tiny"].encoder
METRICS: dict[str, Any] = {
    "heldout": {"test": {"queries": 283, "recall@10": 0.512081}},
    "untrained": {"test": {"queries": 283, "recall@10": 0.143868}},
    "slices": {"test": {"language latin": {"queries": 156, "recall@10": [0.547795, 0.499378, 0.59575]}}},
    "languages": {"latin": 5219},
    "counts": {"pairs": 82131},
    "cleaning": {
        "settings": {"window_days": 14, "min_users": 10},
        "counts": {"events": 1_838_716, "personal_data": 769, "scraper": 0, "affected_days": "none"},
    },
    "settings": {"steps": 400, "preset": "tiny", "tau": 0.05},
    "seconds": 216.3,
    "curve": [[20, 6.94], [400, 1.397]],
}
VERDICT = {"ds": "2024-05-07", "promoted": True, "problems": [], "floor": 0.05, "tolerance": 0.02, "compared": None}


def bundle(root: Path, metrics: dict[str, Any] = METRICS, **lineage: Any) -> Path:
    tokenizer = WordHashTokenizer(TokenizerSpec(rows=TINY.rows, normaliser=normalise.hash))
    return write_bundle(root / "bundles", draw(TINY, 1), tokenizer, ds=DS, metrics=metrics, lineage={"inputs": {}} | lineage)


def test_the_card_says_what_it_was_trained_on_and_from_whom_clicks_may_come(root):
    card = model_card(bundle(root, code="0.1.0+abc 1234567", inputs={"pairs": "delta:3"}))
    for said in (
        "Clicks of 14 days up to 2024-05-07", "at least 10 distinct users", "| events | 1,838,716 |",
        "| personal_data | 769 |",
        "| pairs | 82,131 |", "| queries to train on, latin | 5,219 |", "400 steps in 3.6 minutes", "from 6.940 to 1.397",
        "code 0.1.0+abc 1234567", "| input pairs | delta:3 |", "The training started from random weights.",
    ):  # fmt: skip
        assert said in card
    assert "scraper" not in card  # a rule that dropped nothing


def test_the_card_has_the_held_out_figures_beside_those_of_chance_and_the_slices_with_their_intervals(root):
    card = model_card(bundle(root))
    assert "| test | trained | 283 | 0.512 |\n| test | random start | 283 | 0.144 |" in card
    assert "| test | language latin | 156 | 0.548 | 0.499 | 0.596 |" in card


def test_the_card_of_a_bundle_of_before_says_what_is_not_on_record(root):
    card = model_card(bundle(root, metrics={}))
    for said in ("how they were cleaned is not", "code not on record", "Steps and time are not", "None yet", "Not judged"):
        assert said in card


def test_the_card_tells_a_calibration_by_frequency_from_one_that_only_ranks(root):
    path = bundle(root)
    terms = {"cases": 127, "queries": 120, "calibrated": True, "first": {"ece": 0.081834}}
    calibration = {"ds": "2024-05-07", "terms": terms, "categories": {"cases": 5, "queries": 2, "calibrated": False}}
    calibration_id = add_calibration(path, calibration)
    card = model_card(path)
    assert f"Calibration {calibration_id}, fitted on clicks of 2024-05-07" in card
    assert "- terms: 127 cases of 120 queries; expected calibration error 0.082" in card
    assert "- categories: 5 cases of 2 queries, which is too few" in card


def test_the_gate_s_verdict_stands_on_the_card_with_its_reasons_and_the_comparison(root):
    path = bundle(root)
    compared = {
        "bundle": "b0",
        "queries": 283,
        "split": "test",
        "mean": -0.031,
        "low": -0.05,
        "high": -0.01,
        "champion": 0.5,
    }
    record_gate(path, VERDICT | {"promoted": False, "problems": ["behind beyond doubt"], "compared": compared})
    card = (path / CARD_FILE).read_text()
    assert "Refused, on the held-out queries of 2024-05-07" in card
    assert "\n- behind beyond doubt\n" in card
    assert (
        "- beside champion b0, on the same 283 queries of test: recall@10 -0.0310 (95% interval -0.0500 to -0.0100)" in card
    )
    record_gate(path, VERDICT)
    assert "Passed, on the held-out queries" in (path / CARD_FILE).read_text()


@pytest.mark.parametrize(("licence", "said"), [("apache-2.0", "licence apache-2.0."), ("", "not stated there, so ask")])
def test_the_licence_of_the_weights_that_it_started_from_is_named_or_asked_for(root, licence, said):
    init = {"directory": "/models/minilm", "digest": "0123456789abcdef0123", "licence": licence}
    card = model_card(bundle(root, init=init))
    assert "from the weights 0123456789abcdef of /models/minilm" in card
    assert said in card


def test_card_and_verdict_are_no_part_of_what_the_bundle_proves(root):
    path = bundle(root)
    record_gate(path, VERDICT)
    (path / CARD_FILE).write_text("edited by somebody")
    assert load_bundle(path).id == path.name
    write_card(path)
    assert (path / CARD_FILE).read_text().startswith(f"# Model card: bundle {path.name}\n")
    assert (path / GATE_FILE).is_file()


def test_a_value_cannot_break_out_of_its_cell(root):
    card = model_card(bundle(root, metrics=METRICS | {"settings": {"preset": "a | b\n<script>"}}))
    assert "| preset | a \\| b &lt;script> |" in card


def test_a_directory_that_is_no_bundle_has_no_card(root):
    with pytest.raises(InputError, match="is no bundle"):
        write_card(root)
    assert not (root / CARD_FILE).exists()
