"""Adapters of the public sets, on tiny files of the same formats; a Spark reader checks what they write."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pyspark.sql import SparkSession

from benchmarks.sets import bigbasket, homedepot, taobao
from benchmarks.sets.homedepot_evaluation import FUSED, fuse, measures
from benchmarks.sets.homedepot_judgements import read_judgements, unseen_queries
from etl.contracts import CATALOGUE, CLICK_LOG, TAXONOMY, VOCABULARY, Table
from etl.inputs import read_input
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.truth import load_truth
from tests.bundles import promote_untrained_bundle
from tests.rows import DS

NEXT = DS + dt.timedelta(days=1)


def write_csv(path: Path, header: list[str], rows: list[list[object]], encoding: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def judgements(tmp_path: Path) -> str:
    """Forty queries of six judged products each; the first three products are right for it, two fairly, one wrong."""
    rows: list[list[object]] = []
    for query in range(40):
        for rank, relevance in enumerate(["3", "3", "2.67", "2.67", "2.67" if query % 2 else "2.33", "1"]):
            product = 100_000 + (query + rank) % 45
            rows.append([len(rows), product, f"Café lamp no {product}.", f"lamp {query}", relevance])
    header = ["id", "product_uid", "product_title", "search_term", "relevance"]
    write_csv(tmp_path / "homedepot" / "train.csv.gz", header, rows, "latin-1")
    return str(tmp_path / "homedepot")


@pytest.fixture
def products(tmp_path: Path) -> str:
    """Sixty products of ten types; the type Tea stands under two parents, one title is null and one repeated."""
    header = [
        "index",
        "product",
        "category",
        "sub_category",
        "brand",
        "sale_price",
        "market_price",
        "type",
        "rating",
        "",
        "",
    ]
    rows: list[list[object]] = []
    for n in range(60):
        path = ("Food", "Drinks" if n % 2 else "Gifts") if n % 10 == 0 else ("Home & Garden", f"Sub {n % 3}")
        kind = "Tea" if n % 10 == 0 else f"Kind {n % 10}"
        rows.append([n + 1, f"Product {n}", *path, "Brand", 1, 1, kind, 4, "", ""])
    rows += [
        [61, "", "Food", "Drinks", "Brand", 1, 1, "Tea", 4, "", ""],
        [62, "Product 7", "X", "Y", "B", 1, 1, "Z", 4, "", ""],
    ]
    write_csv(tmp_path / "bigbasket" / "BigBasket_Products.csv.gz", header, rows, "utf-8")
    return str(tmp_path / "bigbasket")


@pytest.fixture
def tagged(tmp_path: Path) -> str:
    """Titles with HCCX spans: two terms, a space among the characters, a title that is nothing but its term."""
    parts = {
        "train": [[("红", "O"), ("雨", "B-HCCX"), ("鞋", "I-HCCX"), (" ", "O"), ("套", "B-HCCX")], [("无", "O")]],
        "dev": [[("茶", "B-HCCX")]],
        "test": [[("新", "O"), ("雨", "B-HCCX"), ("鞋", "I-HCCX"), ("雨", "O"), ("鞋", "O")], [("伞", "B-HCCX")]],
    }
    directory = tmp_path / "taobao"
    directory.mkdir()
    for part, titles in parts.items():
        text = "".join("".join(f"{c} {tag}\n" for c, tag in title) + "\n" for title in titles)
        (directory / f"{part}.txt.gz").write_bytes(gzip.compress(text.encode()))
    return str(directory)


def rows_of(root: Path, table: Table, ds: dt.date | None = None) -> pl.DataFrame:
    return local_tables.read(Warehouse(root), table, ds)


def test_unseen_queries_never_enter_the_click_log_but_their_titles_and_terms_are_there(root: Path, judgements: str) -> None:
    assert homedepot.main(["warehouse", "--data", judgements, "--root", str(root)]) == 0
    unseen = unseen_queries(read_judgements(judgements))
    log = rows_of(root, CLICK_LOG, DS)
    assert len(unseen) == 4
    assert set(log["query"]) == {f"lamp {n}" for n in range(40)} - unseen
    assert rows_of(root, CATALOGUE, DS).height == 45
    assert set(rows_of(root, VOCABULARY)["term"]) == {f"lamp {n}" for n in range(1, 40, 2)}  # five products >= 2.67


def test_every_judged_row_is_an_impression_and_a_relevant_one_a_click_too(root: Path, judgements: str) -> None:
    homedepot.main(["warehouse", "--data", judgements, "--root", str(root)])
    log = rows_of(root, CLICK_LOG, DS)
    assert dict(log["event"].value_counts().iter_rows()) == {"impression": 36 * 6, "click": 36 * 5}
    clicks = log.filter(pl.col("event") == "click")
    assert clicks["position"].max() == 5
    assert clicks["event_time"].dt.date().unique().to_list() == [DS]


def test_truth_of_a_title_lacks_its_terms_if_a_word_of_each_is_not_in_it(root: Path, judgements: str) -> None:
    homedepot.main(["warehouse", "--data", judgements, "--root", str(root)])
    truth = load_truth(Warehouse(root))
    assert truth is not None
    assert truth.lacking == set(truth.terms)  # every title says lamp, none the number
    assert not truth.categories


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "data", "tables"),
    [
        (homedepot, "judgements", (CLICK_LOG, CATALOGUE, VOCABULARY)),
        (bigbasket, "products", (CLICK_LOG, CATALOGUE, TAXONOMY)),
        (taobao, "tagged", (CLICK_LOG, CATALOGUE, VOCABULARY)),
    ],
)
def test_spark_reads_the_adapted_tables_by_their_contracts(
    spark: SparkSession, root: Path, request: pytest.FixtureRequest, adapter: object, data: str, tables: tuple[Table, ...]
) -> None:
    assert adapter.main(["warehouse", "--data", request.getfixturevalue(data), "--root", str(root)]) == 0  # type: ignore[attr-defined]
    for table in tables:
        frame = read_input(spark, Warehouse(root), table)
        required = [column.name for column in table.columns if not column.nullable]
        assert frame.count() == frame.dropna(subset=required).count() > 0


def test_written_twice_the_warehouse_is_the_same_and_changed_settings_are_kept(root: Path, products: str) -> None:
    bigbasket.main(["warehouse", "--data", products, "--root", str(root)])
    first = rows_of(root, CLICK_LOG, DS)
    (root / "warehouse.toml").write_text("[warehouse]\nabsent = ['vocabulary']\n")
    bigbasket.main(["warehouse", "--data", products, "--root", str(root)])
    assert rows_of(root, CLICK_LOG, DS).equals(first)
    assert "min_users" not in (root / "warehouse.toml").read_text()


def test_directory_with_something_else_in_it_is_never_emptied(
    root: Path, products: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "click_log").mkdir()
    (root / "click_log" / "real.parquet").write_bytes(b"precious")
    assert bigbasket.main(["warehouse", "--data", products, "--root", str(root)]) == 2
    assert (root / "click_log" / "real.parquet").read_bytes() == b"precious"
    assert "give --root a new directory" in capsys.readouterr().err


def test_missing_data_and_a_missing_column_are_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert homedepot.main(["warehouse", "--data", str(tmp_path), "--root", str(root)]) == 2
    assert "train.csv.gz is no file: give --data" in capsys.readouterr().err
    write_csv(tmp_path / "train.csv.gz", ["id", "product_uid", "product_title", "relevance"], [], "latin-1")
    assert homedepot.main(["warehouse", "--data", str(tmp_path), "--root", str(root)]) == 2
    assert "lacks the columns ['search_term']" in capsys.readouterr().err


def test_what_is_made_up_is_written_beside_the_tables(root: Path, judgements: str) -> None:
    homedepot.main(["warehouse", "--data", judgements, "--root", str(root)])
    said = " ".join(json.loads((root / "benchmark.json").read_text())["made_up"])
    for word in ("users", "sessions", "positions", "times", "k-anonymity is 1"):
        assert word in said


def test_a_node_is_its_full_path_and_equal_types_stay_apart(root: Path, products: str) -> None:
    bigbasket.main(["warehouse", "--data", products, "--root", str(root)])
    tree = local_tables.taxonomy(Warehouse(root))
    teas = [node.id for node in tree.nodes.values() if node.name == "Tea"]
    assert [" > ".join(n.name for n in tree.path(tea)) for tea in sorted(teas)] == ["Food > Gifts > Tea"]
    assert bigbasket.node_id(("Food", "Gifts", "Tea")) != bigbasket.node_id(("Food", "Drinks", "Tea"))
    assert "X" not in {tree.nodes[id_].name for id_ in tree.roots}  # the first row of a title counts


def test_left_out_types_and_held_out_titles_have_no_click_and_come_on_the_second_day(root: Path, products: str) -> None:
    bigbasket.main(["warehouse", "--data", products, "--root", str(root)])
    read = bigbasket.read_products(products)
    held_out = {p.item_id for p, out in zip(read, bigbasket.held_out_part(read), strict=True) if out}
    unseen = {p.item_id for p in read if p.path[2] in bigbasket.left_out_types(read)}
    clicked = set(rows_of(root, CLICK_LOG, DS)["item_id"])
    assert held_out
    assert unseen
    assert not clicked & (held_out | unseen)
    assert not held_out & set(rows_of(root, CATALOGUE, DS)["item_id"])
    assert held_out <= set(rows_of(root, CATALOGUE, NEXT)["item_id"])
    truth = load_truth(Warehouse(root))
    assert truth is not None
    assert set(truth.categories) == held_out


def test_terms_of_train_titles_are_the_clicks_and_the_vocabulary_knows_all_parts(root: Path, tagged: str) -> None:
    taobao.main(["warehouse", "--data", tagged, "--root", str(root)])
    log = rows_of(root, CLICK_LOG, DS)
    assert sorted(zip(log["query"], log["item_id"], strict=True)) == [("套", "train-00000"), ("雨鞋", "train-00000")]
    assert set(rows_of(root, VOCABULARY)["term"]) == {"雨鞋", "套", "茶", "伞"}
    assert rows_of(root, CATALOGUE, DS)["title"].to_list() == ["红雨鞋 套", "无"]


def test_cut_titles_lack_every_occurrence_of_their_terms_and_empty_ones_are_left_out(root: Path, tagged: str) -> None:
    taobao.main(["warehouse", "--data", tagged, "--root", str(root)])
    titles = dict(rows_of(root, CATALOGUE, NEXT).select("item_id", "title").iter_rows())
    assert titles["test-00000"] == "新雨鞋雨鞋"
    assert titles["test-00000-cut"] == "新"
    assert "test-00001-cut" not in titles
    truth = load_truth(Warehouse(root))
    assert truth is not None
    assert truth.lacking == {"test-00000-cut"}


def test_line_that_is_no_character_and_tag_is_named(
    root: Path, tmp_path: Path, tagged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(tagged, "dev.txt.gz").write_bytes(gzip.compress("茶 B-HCCX\n茶\n".encode()))
    assert taobao.main(["warehouse", "--data", tagged, "--root", str(root)]) == 2
    assert "dev.txt.gz line 2 is '茶'" in capsys.readouterr().err


def test_evaluation_refuses_a_warehouse_without_a_bundle_and_one_that_is_not_its_own(
    root: Path, judgements: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert homedepot.main(["evaluate", "--data", judgements, "--root", str(root)]) == 2
    assert "is no homedepot warehouse" in capsys.readouterr().err
    homedepot.main(["warehouse", "--data", judgements, "--root", str(root)])
    assert homedepot.main(["evaluate", "--data", judgements, "--root", str(root)]) == 2
    assert "no promoted bundle" in capsys.readouterr().err


def test_evaluation_prints_the_bundle_beside_bm25_and_names_the_hardware(
    root: Path, judgements: str, capsys: pytest.CaptureFixture[str]
) -> None:
    homedepot.main(["warehouse", "--data", judgements, "--root", str(root)])
    bundle = promote_untrained_bundle(root)
    assert homedepot.main(["evaluate", "--data", judgements, "--root", str(root)]) == 0
    result = json.loads((root / "reports" / "homedepot" / "evaluation.json").read_text())
    assert result["task"] == "4 unseen queries with a product judged >= 2.33, against all 45 titles"
    assert result["bundle"] == bundle
    assert "cores" in result["hardware"]
    assert result["figures"]["BM25"]["R@100"] == result["figures"]["this bundle"]["R@100"] == 1.0
    assert "this bundle + BM25 (" in capsys.readouterr().out
    ours, bm25 = (result["figures"][name]["R@10"] for name in ("this bundle", "BM25, plural s cut"))
    for part, value in (("this bundle", ours), ("BM25, plural s cut", bm25)):
        mean, low, high = result["gains"][f"{FUSED} less {part}"]
        assert mean == pytest.approx(result["figures"][FUSED]["R@10"] - value, abs=2e-4)
        assert low <= mean <= high
    for name, figures in result["typos"].items():
        low, high = result["intervals"][name]["R@10"]
        assert low <= result["figures"][name]["R@10"] <= high
        assert figures["kept"] == pytest.approx(figures["R@10"] / result["figures"][name]["R@10"], abs=1e-4)
    assert result["typos"]["this bundle"]["MRR@10"] != result["figures"]["this bundle"]["MRR@10"]


def test_recall_counts_the_share_of_relevant_titles_and_ties_stand_by_index() -> None:
    scores = np.array([0.5, 0.9, 0.5] + [0.1] * 200, dtype=np.float32)
    wanted = np.zeros(203, dtype=bool)
    wanted[[0, 202]] = True
    assert measures(scores, wanted).tolist() == [0.5, 0.5, 0.5]
    assert measures(np.zeros(203, dtype=np.float32), wanted).tolist() == [0.5, 0.5, 1.0]


def test_fusion_scales_both_to_their_maximum_and_survives_a_query_without_any_match() -> None:
    cosine, bm25 = np.array([[0.5, 0.25], [0.4, 0.2]]), np.array([[2.0, 8.0], [0.0, 0.0]])
    assert fuse(cosine, bm25, 0.3).round(6).tolist() == [[0.775, 0.65], [0.7, 0.35]]
