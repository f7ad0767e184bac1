"""Examples for few-shot categories: whose word counts, what is drawn, and what a run with them depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from etl.contracts import CATALOGUE, ITEM_CATEGORIES, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.polars_scan import scan
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict, publish
from labeling.examples import count_examples, drawn_examples, example_sums, told_categories, with_examples
from labeling.overrides import OVERRIDES_SCHEMA
from tests.labeling_data import NODES, TERMS, pair, taxonomy, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down

CODES = {"i1": "xenq 40 chrome", "i2": "xenq 55 chrome", "i3": "xenq 70 chrome"}
"""Titles that no name of the tree says anything of."""


def told(spark: SparkSession, said: dict[str, str], people: dict[str, str] | None = None) -> DataFrame:
    catalogue = spark.createDataFrame(list(said.items()), "item_id string, seller_category string")
    if people is None:
        return told_categories(catalogue, None, taxonomy())
    rows = [(item_id, None, (id_, "x", None, None)) for item_id, id_ in people.items()]
    return told_categories(catalogue, spark.createDataFrame(rows, OVERRIDES_SCHEMA), taxonomy())


def texts(spark: SparkSession, rows: dict[str, str | None]) -> DataFrame:
    """Items of those texts, with a vector of two numbers that the text decides; None has no text and no vector."""
    vectors = {text: np.array([len(text), 1 + sum(map(ord, text)) % 7], "<f2").tobytes() for text in rows.values() if text}
    found = [(item_id, text, bytearray(vectors[text]) if text else None) for item_id, text in rows.items()]
    return spark.createDataFrame(found, "item_id string, text string, vector binary")


def test_a_node_may_be_told_by_id_path_or_name_and_what_is_none_is_null(spark):
    said = {"i1": "h21", "i2": "Home > Lamps", "i3": " KETTLE ", "i4": "garden"}
    found = {row["item_id"]: row["category_id"] for row in told(spark, said).collect()}
    assert found == {"i1": "h21", "i2": "h2", "i3": "h1", "i4": None}


def test_a_person_wins_over_the_seller_and_may_speak_where_the_seller_is_silent(spark):
    rows = told(spark, {"i1": "h1", "i2": "garden"}, {"i1": "f2", "i3": "f1"}).collect()
    assert sorted((row["item_id"], row["category_id"], row["by_person"]) for row in rows if row["category_id"]) == [
        ("i1", "f2", True),
        ("i3", "f1", True),
    ]


def test_a_text_is_one_example_of_the_node_that_most_say_and_people_count_before_sellers(spark):
    items = texts(spark, {f"i{n}": "lamp" for n in range(4)} | {f"k{n}": "kettle" for n in range(3)} | {"none": None})
    said = {"i0": "h21", "i1": "h22", "i2": "h22", "k0": "h1", "k1": "h1", "none": "h1"}
    drawn = drawn_examples(items, told(spark, said, {"k2": "f1"}), 10)
    assert sorted((row["text"], row["category_id"]) for row in drawn.collect()) == [("kettle", "f1"), ("lamp", "h22")]


def test_as_many_examples_as_allowed_are_drawn_the_same_at_any_partitioning(spark):
    rows = {f"i{n}": f"title {n}" for n in range(60)}
    said = told(spark, {item_id: "h1" if n % 3 else "f1" for n, item_id in enumerate(rows)})
    found = []
    for partitions in (1, 7):
        drawn = drawn_examples(texts(spark, rows).repartition(partitions), said.repartition(partitions), 5)
        sums = example_sums(drawn)
        found.append((sorted(row["text"] for row in drawn.collect()), {id_: v.tobytes() for id_, v in sums.items()}))
    assert found[0] == found[1]
    assert len(found[0][0]) == 10


def test_sums_are_of_unit_vectors(spark):
    rows = {"i1": "lamp", "i2": "long lamp"}
    sums = example_sums(drawn_examples(texts(spark, rows), told(spark, {"i1": "h2", "i2": "h2"}), 9))
    units = [
        np.array(v, float) / np.linalg.norm(v)
        for v in ([4, 1 + sum(map(ord, "lamp")) % 7], [9, 1 + sum(map(ord, "long lamp")) % 7])
    ]
    np.testing.assert_allclose(sums["h2"], units[0] + units[1])


def test_every_item_of_an_examples_text_is_marked_and_all_rows_are_kept(spark):
    items = texts(spark, {"i1": "lamp", "i2": "lamp", "i3": "kettle", "i4": None})
    drawn = drawn_examples(items, told(spark, {"i1": "h21"}), 9)
    marked = {row["item_id"]: row["example_of"] for row in with_examples(items, drawn).collect()}
    assert marked == {"i1": "h21", "i2": "h21", "i3": None, "i4": None}


def test_what_names_no_node_and_no_example_at_all_are_said(spark, caplog):
    said = told(spark, {"i1": "garden", "i2": "gifts"})
    counts = count_examples(said, drawn_examples(texts(spark, CODES), said, 9))
    assert counts == {"told": 2, "told_unknown": 2, "examples": 0, "nodes_with_examples": 0}
    assert "what is said of 2 items is no id, name or path" in caplog.text
    assert "categories are zero-shot" in caplog.text


@pytest.fixture(scope="module")
def told_shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three codes; the sellers of two say that they are dresses."""
    root = tmp_path_factory.mktemp("told") / "warehouse"
    root.mkdir()
    sellers = {"i1": "f2", "i2": "f2"}
    lay_down(spark, root, CATALOGUE, [item(i, title, seller_category=sellers.get(i)) for i, title in CODES.items()])
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    write_pairs(spark, root, [pair("gift", "i1", CODES["i1"])])
    write_small_bundle(root)
    assert embed_catalogue.main(argv(root)) == EXIT_OK
    return root


def argv(root: Path, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(DS), *more]


def staged(root: Path) -> dict[str, tuple[str | None, str]]:
    rows = scan(Warehouse(root).staged(ITEM_CATEGORIES)).select("item_id", "category_id", "run_id").collect()
    return {item_id: (category, run) for item_id, category, run in rows.iter_rows()}


@pytest.mark.slow
def test_the_run_with_examples_is_another_run_and_publishing_refuses_changed_ones(spark, told_shop, capsys):
    least = ("--min-step-probability", "0", "--min-probability", "0")
    assert predict.main(argv(told_shop, *least)) == EXIT_OK
    before = staged(told_shop)
    assert predict.main(argv(told_shop, *least, "--few-shot", "--few-shot-prior", "0.1")) == EXIT_OK
    after = staged(told_shop)
    assert before["i3"][0] != after["i3"][0] == "f2"
    assert before["i1"][1] != after["i1"][1]
    assert audit.main(argv(told_shop)) == EXIT_OK
    lay_down(spark, told_shop, CATALOGUE, [item(i, title, seller_category="f1") for i, title in CODES.items()])
    assert publish.main(argv(told_shop)) == EXIT_BAD_INPUT
    assert "examples is of version" in capsys.readouterr().err
