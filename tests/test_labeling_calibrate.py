from __future__ import annotations

import json
from typing import Any

import pytest

from etl.contracts import CATALOGUE
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.warehouse import Warehouse
from labeling import calibrate
from labeling.calibrate import fit_temperature
from labeling.categories import CategoryTree
from labeling.clicked import Clicked, as_clicked
from labeling.term_prototypes import TermPrototypes
from model.bundle import load_bundle, set_alias
from tests.labeling_data import pair, query_encoder, taxonomy, title_vectors, write_pairs, write_small_bundle
from tests.rows import DS, lay_down, node, small_warehouse, term
from tests.rows import item as catalogue_item


def item(query_id: int, held_out: set[int], trained: set[int] = frozenset()) -> Clicked:
    return Clicked("", "", frozenset(trained), frozenset(held_out), query_id)


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
    assert sure["nll"] < unsure["nll"]


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
    rows.append(pair("mat", "clicked", "mat no 60"))
    lay_down(spark, root, CATALOGUE, [catalogue_item(row["item_id"], row["title"]) for row in rows])
    write_pairs(spark, root, rows)
    assert calibrate.main(argv(root)) == EXIT_OK
    first = load_bundle(bundle.path)
    assert first.calibration["terms"]["calibrated"] is True
    assert first.calibration["terms"]["first"]["right"] == 12
    assert first.calibration["terms"]["queries"] == 6
    assert first.calibration["categories"]["source"] == "training"
    assert TermPrototypes.of(first).forms == ("mat",)
    assert f"Calibration {first.calibration_id}" in (bundle.path / "MODEL_CARD.md").read_text()
    assert calibrate.main(argv(root)) == EXIT_OK
    assert load_bundle(bundle.path).calibration_id == first.calibration_id
    assert json.loads((bundle.path / "calibration.json").read_text())["id"] == first.calibration_id


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_candidate_of_another_day_is_refused(root, capsys):
    bundle = write_small_bundle(root)
    set_alias(Warehouse.at(str(root)), "candidate", bundle.path)
    assert calibrate.main(["--root", str(root), "--ds", "2024-05-09"]) == EXIT_BAD_INPUT
    assert f"candidate {bundle.id} was trained on the dataset of {DS} (expected 2024-05-09" in capsys.readouterr().err


def test_without_a_candidate_the_job_says_what_to_run(root, capsys):
    assert calibrate.main(argv(root)) == EXIT_BAD_INPUT
    assert "run `labeller train` first" in capsys.readouterr().err
