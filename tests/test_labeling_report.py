"""The report on a small published day with truth, the baselines it prints, and who may open the truth."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from etl import contracts
from etl.contracts import CATALOGUE, ITEM_CATEGORIES, ITEM_TERMS, LABELS_CURRENT, PAIRS, TAXONOMY, VOCABULARY, Table
from etl.tables import ensure, write_slice
from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse
from labeling import tables
from labeling.baselines import Bm25Terms, LongestMatch, clicked_terms
from labeling.day_labels import Labels
from labeling.figures import ALL, LACKING, UNCLICKED, CategoryFigures, category_figures, term_figures
from labeling.report import __main__ as report
from labeling.report.__main__ import next_query
from labeling.report.summary import DEEP, Report, categories
from labeling.truth import Truth, load_truth
from tests.rows import DS, item, lay_down, node, term

CHECKOUT = Path(__file__).resolve().parent.parent
LINEAGE = dict.fromkeys((column.name for column in contracts.LINEAGE), "") | {"run_id": "r1", "bundle": "b1"}
TERMS = [term("t1", "sneakers", synonyms=["trainers"]), term("t2", "kettle"), term("t3", "雨鞋"), term("t4", "steel kettle")]
NODES = [node("c1", None, "Shoes"), node("c2", "c1", "Sneakers"), node("c3", None, "Kitchen"), node("c4", "c3", "Kettles")]
ITEMS = {"i1": "Air Zoom 39 black", "i2": "Steel kettle 1.7 l", "i3": "红色 雨鞋 38", "i4": "Old Skool [white]"}
VOCAB = Vocabulary.of(TERMS)


def labelled(item_id: str, term_id: str | None, name: str | None = None) -> dict[str, Any]:
    """An item_terms row: the one best term of an item, or an abstention."""
    scores = (
        {"score": 0.7, "probability": 0.9, "margin": 0.1, "lexical_hit": False} if term_id else {"reason": "low_probability"}
    )
    row = {"ds": DS, "item_id": item_id, "rank": int(term_id is not None), "term_id": term_id, "term": name, "evidence": []}
    return dict.fromkeys(ITEM_TERMS.names) | row | scores | LINEAGE


def placed(item_id: str, ids: list[str], names: list[str]) -> dict[str, Any]:
    """An item_categories row with a path of even probability."""
    row = {"ds": DS, "item_id": item_id, "category_id": ids[-1] if ids else None, "path_ids": ids, "path": names}
    levels = {f"level_{n}": name for n, name in enumerate(names, start=1)}
    certainty = {"probabilities": [0.8] * len(ids), "probability": 0.8 if ids else None, "stopped": "leaf"}
    return dict.fromkeys(ITEM_CATEGORIES.names) | row | levels | certainty | LINEAGE


def publish(spark: SparkSession, root: Path, table: Table, rows: list[dict[str, Any]]) -> None:
    frame = spark.createDataFrame([tuple(row[name] for name in table.names) for row in rows], table.ddl)
    write_slice(frame, str(root / table.name), table, {"ds": DS})


def pair(query: str, item_id: str, weight: float) -> dict[str, Any]:
    row = {
        "ds": DS,
        "query_id": hash(query),
        "query": query,
        "item_id": item_id,
        "title": "x",
        "split": "train",
        "first_day": DS,
        "sampled": True,
    } | dict.fromkeys(("query_group", "title_id", "item_group"), 1)
    return row | {"clicks": 1, "users": 1, "weight": weight, "query_logp": -1.0, "item_logp": -1.0}


@pytest.fixture(scope="module")
def published(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four items with truth: two right terms, one wrong, one abstention; titles i1 and i4 lack their term."""
    root = tmp_path_factory.mktemp("published")
    lay_down(spark, root, CATALOGUE, [item(item_id, title) for item_id, title in ITEMS.items()])
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES, file_format="delta")
    publish(spark, root, ITEM_TERMS, [
        labelled("i1", "t1", "sneakers"), labelled("i2", "t4", "steel kettle"),
        labelled("i3", "t1", "sneakers"), labelled("i4", None),
    ])  # fmt: skip
    publish(spark, root, ITEM_CATEGORIES, [
        placed("i1", ["c1", "c2"], ["Shoes", "Sneakers"]), placed("i2", ["c3"], ["Kitchen"]),
        placed("i3", ["c1", "c2"], ["Shoes", "Sneakers"]), placed("i4", [], []),
    ])  # fmt: skip
    publish(spark, root, PAIRS, [pair("sneakers", "i1", 3.0), pair("nike", "i1", 9.0), pair("kettle", "i2", 1.0)])
    ensure(spark, str(root / LABELS_CURRENT.name), LABELS_CURRENT)
    write_truth(root)
    return root


@pytest.fixture
def shop(published: Path, root: Path) -> Path:
    """A copy of the published warehouse for one test."""
    return shutil.copytree(published, root, dirs_exist_ok=True)


def write_truth(root: Path) -> None:
    true = [("i1", "t1", True), ("i2", "t2", False), ("i2", "t4", False), ("i3", "t3", False), ("i4", "t1", True)]
    rows = [dict(zip(("item_id", "term_id", "lacks_term"), row, strict=True)) for row in true]
    leaves = [{"item_id": i, "category_id": c} for i, c in (("i1", "c2"), ("i2", "c4"), ("i3", "c2"), ("i4", "c2"))]
    for name, content in (("item_terms", rows), ("item_categories", leaves)):
        (root / "truth" / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(content), root / "truth" / name / "part.parquet")
    oracle = {"term_hit1": 0.97, "term_hit1_lacking": 0.94, "category_accuracy_by_level": [0.99, 0.98]}
    (root / "truth" / "oracle.json").write_text(json.dumps(oracle))


def test_report_prints_the_places_the_items_the_figures_and_the_next_query(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--root", str(shop), "--ds", str(DS)]) == 0
    out = capsys.readouterr().out
    for text in (
        f"Tables under {shop}", "4 labelled items", "lacks its term: Air Zoom 39 black", "Old Skool [white]",
        "longest-match dictionary", "BM25 over the terms", "look-up of clicked queries", "oracle",
        "0.970", "level 2", "0.990", "pl.read_delta",
    ):  # fmt: skip
        assert text in out
    assert max(map(len, out.splitlines()[:-1])) > 80  # no terminal: 120 columns, not 80


def test_report_file_holds_the_figures_and_the_markdown_says_the_same(shop: Path) -> None:
    report.main(["--root", str(shop), "--ds", str(DS)])
    directory = shop / "reports" / f"ds={DS}"
    written = json.loads((directory / "report.json").read_text())
    assert written["terms"]["hits"]["labels"] == {ALL: 0.5, LACKING: 0.5, UNCLICKED: 0.0}
    assert written["categories"]["accuracy"][ALL] == [0.75, 0.5]
    assert written["categories"]["paths"][ALL]["hierarchical"] == [1.0, 0.625, pytest.approx(10 / 13)]
    assert (shop / "reports" / f"ds={DS}" / "categories_risk.png").stat().st_size > 10_000
    assert written["coverage"] == {"items": 4, "with a term": 3, "with a category": 3}
    assert "| low_probability | 1 | 25.00% |" in (directory / "report.md").read_text()
    assert "| labels | 0.500 | 0.500 | 0.000 |" in (directory / "report.md").read_text()


def test_figures_of_the_bundle_say_on_which_day_it_was_trained(shop: Path) -> None:
    (shop / "bundles" / "b1").mkdir(parents=True)
    (shop / "bundles" / "b1" / "metrics.json").write_text('{"heldout": {"test": {"queries": 283, "recall@10": 0.512}}}')
    (shop / "bundles" / "b1" / "manifest.json").write_text('{"ds": "2024-05-01"}')
    report.main(["--root", str(shop), "--ds", str(DS)])
    written = (shop / "reports" / f"ds={DS}" / "report.md").read_text()
    assert "queries against all titles, bundle b1, measured when it was trained on 2024-05-01" in written
    assert "| test | 283 | 0.512 |" in written


def test_next_query_runs_as_it_is_printed(shop: Path) -> None:
    report.main(["--root", str(shop), "--ds", str(DS)])
    query = json.loads((shop / "reports" / f"ds={DS}" / "report.json").read_text())["next_query"]
    assert "sneakers" in query
    subprocess.run(["bash", "-c", query], check=True, capture_output=True)


def test_next_query_survives_a_term_with_quotes_of_either_kind(root: Path) -> None:
    terms = {"i1": [{"term": "men's 5\" boots"}]}
    query = next_query(Warehouse(root), Labels(titles={}, terms=terms, categories={}, reasons={}, lineage={}))
    code = shlex.split(query)[2]
    assert "men's 5\" boots" in {found.value for found in ast.walk(ast.parse(code)) if isinstance(found, ast.Constant)}


def test_warehouse_without_truth_is_reported_without_figures(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "truth").rename(shop / "elsewhere")
    assert report.main(["--root", str(shop), "--ds", str(DS)]) == 0
    out = capsys.readouterr().out
    assert out.count("not measured: no truth is known") == 2
    assert "Air Zoom 39 black" in out


def test_declared_absent_taxonomy_leaves_the_category_half_out(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "taxonomy").rename(shop / "elsewhere")
    (shop / "item_categories").rename(shop / "elsewhere2")
    (shop / "warehouse.toml").write_text('[warehouse]\nabsent = ["taxonomy"]\n')
    assert report.main(["--root", str(shop), "--ds", str(DS)]) == 0
    assert "longest-match dictionary" in capsys.readouterr().out


def test_day_without_labels_is_refused_with_the_stage_to_run(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--root", str(shop), "--ds", "2024-05-09"]) == 2
    assert "labeller predict" in capsys.readouterr().err


def test_tables_lists_rows_days_and_versions_and_what_was_never_written(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main(["--root", str(shop), "--json"]) == 0
    found = {entry["table"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert (found["item_terms"]["rows"], found["item_terms"]["first"], found["item_terms"]["reader_version"]) == (
        4,
        str(DS),
        1,
    )
    assert found["quality"]["version"] is None
    assert tables.main(["--root", str(shop)]) == 0
    assert "not yet" in capsys.readouterr().out


def test_dictionary_takes_the_longest_form_whatever_the_case_and_the_plural() -> None:
    dictionary = LongestMatch(VOCAB)
    assert dictionary.term("STEEL Kettles 1.7 l") == "t4"
    assert dictionary.term("white trainer") == "t1"
    assert dictionary.term("红色雨鞋38码") == "t3"
    assert dictionary.term("Air Zoom 39 black") is None


def test_bm25_abstains_without_a_common_word_and_finds_chinese_terms() -> None:
    bm25 = Bm25Terms(VOCAB)
    assert bm25.term("kettle of steel") == "t4"
    assert bm25.term("儿童雨鞋") == "t3"
    assert bm25.term("Air Zoom 39 black") is None


def test_lookup_takes_the_strongest_query_that_is_a_form_of_a_term() -> None:
    pairs = pl.DataFrame(
        {"item_id": ["i1"] * 3 + ["i2"], "query": ["nike", "trainers", "kettle", "pot"], "weight": [9.0, 3, 2, 1]}
    )
    assert clicked_terms(pairs, VOCAB) == {"i1": "t1"}


def test_slices_without_items_are_left_out_of_the_figures() -> None:
    truth = Truth(terms={"i2": frozenset({"t4"})}, lacking=frozenset(), categories={}, oracle={})
    figures = term_figures(truth, {"i2": "steel kettle"}, {"i2": "t4"}, VOCAB, None)
    assert figures.sizes == {ALL: 1}
    assert figures.hits["labels"] == {ALL: 1.0}


def test_category_that_stops_above_its_level_is_right_above_and_wrong_below() -> None:
    truth = Truth(terms={}, lacking=frozenset(), categories={"i1": "c2", "i2": "c1"}, oracle={})
    figures = category_figures(truth, {"i1": "x", "i2": "y"}, STATED, Taxonomy.of(NODES))
    assert figures.accuracy[ALL] == [1.0, 0.0]
    assert figures.sizes[ALL] == [2, 1]


def test_category_that_stops_early_holds_what_its_probability_states_and_is_not_the_whole_path() -> None:
    truth = Truth(terms={}, lacking=frozenset(), categories={"i1": "c2", "i2": "c1", "i3": "c4"}, oracle={})
    figures = category_figures(truth, dict.fromkeys(truth.categories, "x"), STATED, Taxonomy.of(NODES)).paths[ALL]
    assert figures.hierarchical == (2 / 3, 2 / 5, 0.5)  # 2 right nodes of 3 predicted and 5 true ones
    assert figures.whole == 0.0
    assert figures.risk.risk == pytest.approx([0.0, 1 / 2, 2 / 3], abs=1e-6)  # i3 has no path: it is answered last


STATED = {"i1": (["c1"], 0.9), "i2": (["c1", "c2"], 0.4)}
"""Paths and their probabilities: one stops above the truth, one goes below it."""


def test_each_level_says_how_many_items_its_accuracy_is_of() -> None:
    accuracy = {ALL: [0.75, 0.5], LACKING: [0.6]}
    figures = CategoryFigures(sizes={ALL: [4_000, 900], LACKING: [700]}, accuracy=accuracy, paths={})
    section, _ = categories(Report("", "", "", LINEAGE, (), {}, "", {}, {}, None, figures, {}, (), ""))
    assert section.rows == [
        (ALL, DEEP, "4,000", "900"), (ALL, "labels", "0.750", "0.500"),
        (LACKING, DEEP, "700", "-"), (LACKING, "labels", "0.600", "-"),
    ]  # fmt: skip


def test_truth_is_none_where_there_is_none(root: Path) -> None:
    assert load_truth(Warehouse(root)) is None


def test_only_evaluation_opens_the_truth() -> None:
    allowed = {"labeling/truth.py", "etl/warehouse.py"}  # the reader, and the property that names the place
    offenders = []
    for file in sorted(path for folder in ("etl", "model", "labeling") for path in (CHECKOUT / folder).rglob("*.py")):
        name = str(file.relative_to(CHECKOUT))
        if name in allowed or name.startswith("etl/sample/"):  # the generator writes it
            continue
        for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(found, ast.Attribute)
                and found.attr == "truth"
                and ast.unparse(found.value) in ("warehouse", "self")
            ):
                offenders.append(name)
            if isinstance(found, ast.Constant) and isinstance(found.value, str) and found.value.strip("/") == "truth":
                offenders.append(name)
    assert offenders == []


def test_no_stage_of_the_nightly_run_imports_the_reader_of_the_truth() -> None:
    importers = set()
    for file in sorted(path for folder in ("etl", "model", "labeling") for path in (CHECKOUT / folder).rglob("*.py")):
        for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(found, ast.ImportFrom) and found.module == "labeling.truth":
                importers.add(str(file.relative_to(CHECKOUT)))
    assert importers == {f"labeling/{name}.py" for name in ("day_labels", "evaluate", "figures", "report/__main__")}
