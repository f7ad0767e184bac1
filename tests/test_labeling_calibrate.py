from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from etl.contracts import CATALOGUE
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import calibrate
from labeling.calibrate import (
    CalibrateConfig,
    Case,
    fit_temperature,
    fit_terms,
    isotonic,
)
from labeling.categories import CategoryTree
from labeling.clicked import Clicked, as_clicked
from labeling.probability import FORMAT, Calibration
from model.bundle import load_bundle
from tests.labeling_data import pair, query_encoder, taxonomy, title_vectors, write_pairs, write_small_bundle
from tests.rows import DS, lay_down, node, small_warehouse, term
from tests.rows import item as catalogue_item

SETTINGS = CalibrateConfig(root=".", ds=DS, min_cases=20, min_queries=4)


def item(query_id: int, held_out: set[int], trained: set[int] = frozenset()) -> Clicked:
    return Clicked("", "", frozenset(trained), frozenset(held_out), query_id)


Drawn = tuple[list[Clicked], list[list[tuple[int, float]]], list[str]]


def drawn(cases: int, queries: int = 40) -> Drawn:
    """Items whose best candidate is right with a probability equal to its score, and whose second never is."""
    rng = np.random.default_rng(0)
    scores = rng.random(cases).round(6)
    right = rng.random(cases) < scores
    items = [item(n % queries, {0} if hit else {1}) for n, hit in enumerate(right)]
    return items, [[(0, float(score)), (2, float(score) / 2)] for score in scores], ["latin"] * cases


def test_the_curves_find_the_frequencies_behind_the_scores():
    content = fit_terms(*drawn(4_000), SETTINGS)
    fitted = Calibration.of({"format": FORMAT, "terms": content})
    assert fitted.terms_calibrated
    np.testing.assert_allclose(fitted.joint.first.at(np.array([0.2, 0.5, 0.8])), [0.2, 0.5, 0.8], atol=0.06)
    assert fitted.joint.further.at(np.array([0.0, 0.5])).max() < 0.01
    assert content["first"]["ece"] < 0.05
    assert content["first"]["ece_cases"] == 2_000


def test_the_curve_never_falls_and_never_claims_certainty():
    cases = [
        Case(True, score, right, 1, "") for score, right in zip((0.1, 0.2, 0.3, 0.4, 0.5), (0, 1, 0, 1, 1), strict=True)
    ]
    knots = np.array(isotonic(cases))
    assert (np.diff(knots[:, 1]) >= 0).all()
    assert knots[0, 1] > 0
    assert knots[-1, 1] < 1


def test_a_term_clicked_in_training_is_no_case():
    items, ranked, languages = drawn(100)
    before = fit_terms(items, ranked, languages, SETTINGS)
    trained = [item(one.query_id, set(one.held_out), trained={2}) for one in items[:60]] + items[60:]
    content = fit_terms(trained, ranked, languages, SETTINGS)
    assert content["first"]["knots"] == before["first"]["knots"]
    assert (before["further"]["cases"], content["further"]["cases"]) == (100, 40)


@pytest.mark.parametrize(("cases", "queries"), [(10, 40), (400, 3)])
def test_too_few_items_or_queries_leave_the_default_and_say_so(cases, queries):
    content = fit_terms(*drawn(cases, queries), SETTINGS)
    assert content["calibrated"] is False
    found = Calibration.of({"format": FORMAT, "terms": content})
    np.testing.assert_allclose(found.joint.probabilities(np.array([0.4, 0.2])), [0.4, 0.2])


def two_languages(own: int) -> Drawn:
    """2,000 Latin items whose best candidate is right as often as its score says, ``own`` Chinese ones: 1 - score."""
    items, ranked, _ = drawn(2_000 + own)
    turned = [item(i.query_id + 100, {1} if 0 in i.held_out else {0}) for i in items[2_000:]]
    return items[:2_000] + turned, ranked, ["latin"] * 2_000 + ["chinese"] * own


def test_a_language_that_differs_gets_its_own_curve_and_each_its_calibration_error():
    content = fit_terms(*two_languages(1_000), SETTINGS)
    found = Calibration.of({"format": FORMAT, "terms": content})
    assert {name: kinds["first"]["curve"] for name, kinds in content["languages"].items()} == {
        "chinese": "own",
        "latin": "own",
    }
    assert found.curves("红色 鞋").first.at(np.array([0.9])) < 0.6 < found.curves("red shoe").first.at(np.array([0.9]))
    assert found.curves("туфли") == found.joint
    assert content["languages"]["latin"]["first"]["ece"] < 0.08
    assert content["languages"]["latin"]["first"]["ece_cases"] == 1_000


def test_a_language_with_too_few_items_has_the_joint_curve_and_says_so():
    content = fit_terms(*two_languages(150), SETTINGS)
    chinese = content["languages"]["chinese"]["first"]
    assert (chinese["curve"], chinese["cases"], "knots" in chinese) == ("joint", 150, False)
    assert chinese["ece"] > 0.1


def test_a_language_whose_own_curve_is_no_nearer_to_the_clicks_has_the_joint_one():
    items, ranked, _ = drawn(2_000)
    content = fit_terms(items, ranked, ["latin"] * 1_750 + ["mixed"] * 250, SETTINGS)
    assert content["languages"]["mixed"]["first"]["curve"] == "joint"


def test_a_language_of_hardly_a_right_case_has_the_joint_curve():
    items, ranked, languages = two_languages(1_000)
    further = fit_terms(items, ranked, languages, SETTINGS)["languages"]["chinese"]["further"]
    assert (further["curve"], further["right"], further["cases"]) == ("joint", 0, 1_000)


def click(label: int, split: str, weight: float = 1.0, query_id: int = 1) -> dict[str, Any]:
    return {"label": label, "split": split, "weight": weight, "item_id": "i1", "text": "a title", "query_id": query_id}


def test_an_item_whose_main_label_was_trained_is_no_case():
    assert as_clicked([click(1, "train", 5.0), click(2, "valid")], ["valid"]) is None
    assert as_clicked([click(1, "valid", 3.0), click(1, "train", 1.0), click(2, "valid", 1.0)], ["valid"]) is None


def test_an_item_whose_main_label_is_held_out_keeps_what_was_trained_apart():
    found = as_clicked([click(1, "train"), click(2, "valid", 3.0, query_id=7), click(3, "valid", query_id=8)], ["valid"])
    assert found == Clicked("i1", "a title", frozenset({1}), frozenset({2, 3}), 7)


def test_of_a_held_out_item_the_clicks_for_held_out_queries_count_too():
    found = as_clicked([click(1, "item"), click(2, "valid", 3.0, query_id=7)], ["item", "valid"])
    assert found == Clicked("i1", "a title", frozenset(), frozenset({1, 2}), 1)


def test_the_temperature_is_lower_the_surer_the_right_child_is_first(root):
    bundle = write_small_bundle(root)
    tree = CategoryTree.build(taxonomy(), query_encoder(bundle))
    vectors = title_vectors(bundle, ["kettle steel", "sneakers red"] * 10)
    right = [tree.ids.index(id_) for id_ in ("h1", "f1")] * 10
    mixed = [tree.ids.index(id_) for id_ in ("h1", "f1", "f2", "h2", "h21")] * 4
    sure = fit_temperature(tree, vectors, [item(1, {node}) for node in right])
    unsure = fit_temperature(tree, vectors, [item(1, {node}) for node in mixed])
    assert sure["temperature"] < unsure["temperature"]
    assert sure["step_nll"] < unsure["step_nll"]


def argv(root) -> list[str]:
    return ["--root", str(root), "--ds", str(DS), "--min-cases", "8", "--min-queries", "4"]


def test_the_job_fits_on_held_out_queries_that_are_forms_and_repeats_itself(spark, root):
    things = ["kettle", "dress", "lamp", "drill", "sofa", "mat"]
    small_warehouse(spark, root, vocabulary=[term(f"t{n}", thing) for n, thing in enumerate(things)])
    bundle = write_small_bundle(root)
    rows = [
        pair(thing, f"{thing}{m}", f"{thing} no {n}{m}", split=split)
        for split, names in (("valid", things), ("test", ["saw"]), ("train", ["no"]))
        for n, thing in enumerate(names)
        for m in range(2)
    ]
    lay_down(spark, root, CATALOGUE, [catalogue_item(row["item_id"], row["title"]) for row in rows])
    write_pairs(spark, root, rows)
    assert calibrate.main(argv(root)) == EXIT_OK
    first = load_bundle(bundle.path)
    assert first.calibration["terms"]["calibrated"] is True
    assert first.calibration["terms"]["first"]["right"] == 12
    assert first.calibration["terms"]["queries"] == 6
    assert first.calibration["categories"]["source"] == "training"
    assert calibrate.main(argv(root)) == EXIT_OK
    assert load_bundle(bundle.path).calibration_id == first.calibration_id
    assert json.loads((bundle.path / "calibration.json").read_text())["id"] == first.calibration_id


def test_items_are_encoded_by_the_product_text_of_the_bundle(spark, root):
    things = ["kettle", "dress", "lamp", "drill", "sofa", "mat"]
    small_warehouse(spark, root, vocabulary=[term(f"t{n}", thing) for n, thing in enumerate(things)])
    bundle = write_small_bundle(root, product_text="{title} {seller_category}")
    rows = [pair(thing, f"{thing}{n}", f"No {thing} {n}", split="valid") for thing in things for n in range(2)]
    shown = [catalogue_item(row["item_id"], None, seller_category=row["query"]) for row in rows]
    lay_down(spark, root, CATALOGUE, shown)
    write_pairs(spark, root, [*rows, pair("no", "i1", "no", split="train")])
    assert calibrate.main(argv(root)) == EXIT_OK
    assert load_bundle(bundle.path).calibration["terms"]["first"]["right"] == 12


def test_a_query_for_one_half_of_a_bilingual_name_counts_for_its_category(spark, root):
    names = {"c1": "Kettles 水壶", "c2": "Dresses 连衣裙", "c3": "Lamps 灯具", "c4": "Sofas 沙发"}
    small_warehouse(spark, root, vocabulary=[term("t1", "kettle")], taxonomy=[node(k, None, v) for k, v in names.items()])
    bundle = write_small_bundle(root)
    asked = {"水壶": "steel kettle", "dresses": "red dress", "灯具": "table lamp", "sofas": "corner sofa", "lamps": "lamp"}
    rows = [pair(q, f"{q}{n}", f"{title} {n}", split="valid") for q, title in asked.items() for n in range(3)]
    lay_down(spark, root, CATALOGUE, [catalogue_item(row["item_id"], row["title"]) for row in rows])
    write_pairs(spark, root, [*rows, pair("no", "i1", "no", split="train")])
    assert calibrate.main(argv(root)) == EXIT_OK
    found = load_bundle(bundle.path).calibration["categories"]
    assert (found["cases"], found["queries"], found["calibrated"]) == (15, 5, True)


def test_without_a_candidate_the_job_says_what_to_run(root, capsys):
    assert calibrate.main(argv(root)) == EXIT_BAD_INPUT
    assert "run `labeller train` first" in capsys.readouterr().err
