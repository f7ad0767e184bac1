"""One product text and one normaliser from the pairs to the live labels, on real Spark."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl import build_dataset, build_pairs
from etl.catalogue import read_catalogue
from etl.contracts import CATALOGUE, CLICK_LOG, TAXONOMY, VOCABULARY, Column
from etl.dataset import decode_ids
from etl.dataset_config import DatasetConfig
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.pairs_config import PairsConfig
from etl.product_template import ProductTemplate
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, label_title, predict, publish
from labeling.product_text import with_texts
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
from tests.rows import DS, event, item, lay_down, small_warehouse

TEMPLATE = "{title} {brand}"
BRANDED = dataclasses.replace(CATALOGUE, columns=(*CATALOGUE.columns, Column("brand", "string", "Its brand.")))

ITEMS = [
    item("i1", "Pro", brand="Kettle"),
    item("i2", None, brand="Table lamp"),
    item("i3", "Sneakers", brand=None),
    item("i4", None, brand=None),
    item("i5", "夏季連衣裙", brand="  "),
]


def spark_job(root: Path, **changes: Any) -> dict[str, Any]:
    return {"root": str(root), "ds": DS, "master": "local[2]"} | changes


def asked(root: Path, spark: SparkSession, queries: list[str], items: list[str], **settings: Any) -> pl.DataFrame:
    """PAIRS after two users asked each of the queries and clicked the item beside it."""
    clicks = zip(queries, items, strict=True)
    rows = [event(q, i, user_id=f"u{n}", session_id=f"s{n}{q}") for q, i in clicks for n in range(2)]
    lay_down(spark, root, CLICK_LOG, rows)
    build_pairs.run(PairsConfig(**spark_job(root, window_days=1, min_users=2, **settings)))
    return pl.read_delta(str(root / "pairs")).sort("item_id")


def test_the_catalogue_has_the_text_that_the_template_renders(spark, root):
    lay_down(spark, root, BRANDED, ITEMS)
    found = {r["item_id"]: r for r in read_catalogue(spark, Warehouse(root), DS, TEMPLATE).collect()}
    template = ProductTemplate(TEMPLATE)
    assert {k: row["text"] for k, row in found.items()} == {row["item_id"]: template.render(row) for row in ITEMS}
    assert {k: row["title"] for k, row in found.items()} == {row["item_id"]: row["title"] for row in ITEMS}
    assert found["i4"]["text"] is None


def test_a_template_with_a_column_that_the_catalogue_lacks_is_refused_by_name(spark, root):
    lay_down(spark, root, BRANDED, ITEMS)
    with pytest.raises(InputError, match=r"column colour is missing \(expected string: \[text\] product_text names it\)"):
        read_catalogue(spark, Warehouse(root), DS, "{title} {colour}")


@pytest.mark.parametrize(("simplified", "queries"), [(True, ["运动鞋"]), (False, ["运动鞋", "運動鞋"])])
@pytest.mark.slow
def test_two_scripts_of_one_query_are_one_query_if_the_option_is_on(spark, root, simplified, queries):
    small_warehouse(spark, root)
    pairs = asked(root, spark, ["運動鞋", "运动鞋"], ["i1", "i1"], simplified_chinese=simplified)
    assert sorted(pairs["query"]) == queries
    assert pairs["clicks"].sum() == 4


@pytest.fixture(scope="module")
def branded(spark, tmp_path_factory) -> Path:
    """A warehouse whose pairs and dataset know the brand and one script."""
    root = tmp_path_factory.mktemp("branded") / "warehouse"
    root.mkdir()
    lay_down(spark, root, BRANDED, ITEMS)
    settings = {"simplified_chinese": True, "product_text": TEMPLATE, "valid_share": 0, "test_share": 0}
    asked(root, spark, ["boil water", "light", "run", "連衣裙"], ["i1", "i2", "i3", "i5"], **settings)
    text = {key: settings[key] for key in ("simplified_chinese", "product_text")}
    build_dataset.run(DatasetConfig(**spark_job(root, ranks=1, rows=2**12, **text)))
    return root


@pytest.mark.slow
def test_an_item_without_title_is_paired_by_its_other_columns(branded):
    pairs = pl.read_delta(str(branded / "pairs")).sort("item_id")
    assert pairs["item_id"].to_list() == ["i1", "i2", "i3", "i5"]
    assert pairs["title"].to_list() == ["Pro", None, "Sneakers", "夏季連衣裙"]


@pytest.mark.slow
def test_the_brand_reaches_the_token_ids_of_the_dataset_and_the_text_that_is_embedded_alike(spark, branded):
    directory = branded / "datasets" / f"ds={DS}"
    tokenizer = load_tokenizer(directory)
    stored = pl.read_parquet(directory / "titles" / "*.parquet")["title"]
    catalogue = read_catalogue(spark, Warehouse(branded), DS, tokenizer.spec.product_text)
    texts = [row["text"] for row in catalogue.transform(with_texts(tokenizer.spec.normalise)).collect() if row["text"]]
    assert sorted(texts) == ["pro kettle", "sneakers", "table lamp", "夏季连衣裙"]
    found = sorted(decode_ids(ids, "int64").tolist() for ids in stored)
    assert found == sorted(tokenizer.ids(text, "title").tolist() for text in texts)


@pytest.mark.slow
def test_pairs_of_another_product_text_are_refused_by_the_dataset(spark, branded, capsys):
    flags = ["--root", str(branded), "--ds", str(DS), "--master", "local[2]"]
    assert build_dataset.main(flags) == EXIT_BAD_INPUT
    assert "the catalogue or [text] of warehouse.toml changed since" in capsys.readouterr().err


@pytest.mark.slow
def test_labelling_takes_text_and_script_of_the_bundle_and_not_of_the_settings(spark, root, capsys):
    for table, rows in ((BRANDED, ITEMS), (VOCABULARY, TERMS), (TAXONOMY, NODES)):
        lay_down(spark, root, table, rows)
    write_pairs(spark, root, [pair("boil water", "i1", "Pro")])
    write_small_bundle(root, simplified_chinese=True, product_text=TEMPLATE)
    (root / "warehouse.toml").write_text('[text]\nproduct_text = "{title}"\nsimplified_chinese = false\n')
    flags = ["--root", str(root), "--ds", str(DS)]
    assert [job.main(flags) for job in (embed_catalogue, predict, audit)] == [EXIT_OK] * 3
    lay_down(spark, root, BRANDED, [*ITEMS[:-1], ITEMS[-1] | {"brand": "Acme"}])
    assert publish.main(flags) == EXIT_BAD_INPUT
    assert "catalogue is of version" in capsys.readouterr().err
    lay_down(spark, root, BRANDED, ITEMS)
    assert publish.main(flags) == EXIT_OK
    live = {row["item_id"]: row for row in pl.read_delta(str(root / "labels_current")).to_dicts()}
    terms = {"i1": "kettle", "i2": "table lamp", "i3": "sneakers", "i4": None, "i5": "dress"}
    assert {k: row["term"] for k, row in live.items()} == terms
    assert [live[row["item_id"]]["title"] for row in ITEMS] == [row["title"] for row in ITEMS]
    hits = pl.read_delta(str(root / "item_terms")).filter(pl.col("rank") == 1)
    assert dict(hits.select("item_id", "lexical_hit").iter_rows()) == dict.fromkeys(("i1", "i2", "i3", "i5"), True)

    (typed,) = label_title.label_titles(str(root), ["夏季連衣裙"])
    assert (typed["terms"][0]["term"], typed["terms"][0]["lexical_hit"]) == ("dress", True)
