"""`labeller evaluate`: a bundle on held-out queries and on evaluation sets with all that can be wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread

from etl.dataset import verify
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.text import language_of, normalise
from etl.tokenizer import WordHashTokenizer, load_tokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse
from labeling import evaluate
from labeling.evaluation_sections import cell, signed
from labeling.term_pairs import across_languages
from model.bundle import CANDIDATE, CHAMPION, load_bundle, set_alias, write_bundle
from model.evaluate import evaluate as ask
from model.fit import draw
from model.metrics import Interval
from model.train_config import TrainConfig
from tests.model_data import DS, small_shop, write_dataset
from tests.rows import item, term

TERMS = [
    term("t1", "sneakers", synonyms=["运动鞋", "trainers"]),
    term("t2", "连衣裙", synonyms=["dress", "gown"], language="zh"),
    term("t3", "red kettle", synonyms=["红色水壶"]),
    term("t4", "lamp"),
]


@pytest.fixture(scope="module")
def shop_root(tmp_path_factory) -> Path:
    """A dataset, the catalogue that it is of, a vocabulary in two languages, and a champion that has learnt nothing."""
    root = tmp_path_factory.mktemp("shop")
    shop = small_shop()
    manifest = write_dataset(root / "datasets" / f"ds={DS}", shop)
    rows = [item(f"i{number}", title) for number, title in shop.titles.items()]
    rows += [item("twin", shop.titles[1001].upper()), item("null", None), item("dots", "...")]
    (root / "catalogue" / f"ds={DS}").mkdir(parents=True)
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k in ("item_id", "title")} for row in rows])
    pq.write_table(
        table.append_column("updated_at", pa.array([None] * len(rows), pa.timestamp("us"))),
        root / "catalogue" / f"ds={DS}" / "part.parquet",
    )
    (root / "vocabulary").mkdir()
    pq.write_table(pa.Table.from_pylist(TERMS), root / "vocabulary" / "part.parquet")
    encoder = draw(TrainConfig(root=str(root), ds=DS, preset="tiny").chosen_preset(manifest).encoder, 1)
    metrics = {"heldout": {}, "languages": manifest.languages}
    tokenizer = load_tokenizer(root / "datasets" / f"ds={DS}")
    path = write_bundle(root / "bundles", encoder, tokenizer, ds=DS, metrics=metrics, lineage={})
    set_alias(Warehouse(root), CHAMPION, path)
    return root


def run(root: Path, *more: str) -> int:
    return evaluate.main(["--root", str(root), "--ds", str(DS), *more])


def written(root: Path, suffix: str = "", bundle: str = CHAMPION) -> dict[str, Any]:
    directory = root / "reports" / f"ds={DS}"
    stem = f"evaluation-{evaluate.chosen_bundle(Warehouse(root), bundle).name}{suffix}"
    assert imread(directory / f"{stem}.png").shape[:2] == (540, 1320)
    assert f"![recall by rank and by slice]({stem}.png)" in (directory / f"{stem}.md").read_text()
    return json.loads((directory / f"{stem}.json").read_text())


def csv(tmp_path: Path, *rows: str, heading: str = "query,item_id") -> str:
    file = tmp_path / "own.csv"
    file.write_text("\n".join([heading, *rows]) + "\n", encoding="utf-8")
    return str(file)


def test_held_out_queries_are_shown_by_split_and_slice_with_intervals(shop_root, capsys):
    assert run(shop_root) == EXIT_OK
    result, out = written(shop_root), capsys.readouterr().out
    dataset = Warehouse(shop_root).dataset(DS)
    bundle = load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), ""))
    expected = ask(bundle.encoder, dataset, verify(dataset))
    assert (result["figures"], result["slices"]) == (expected.figures(), expected.slices())
    assert {"all", "language latin", "frequency tail"} <= set(result["slices"]["test"])
    mean, low, high = result["slices"]["test"]["all"]["recall@10"]
    assert low <= mean <= high
    assert cell((mean, low, high)) in out
    assert cell((0.8, 0.75, 1.0)) == ".800 .750-1.000"
    assert "test: unseen queries; nothing may be chosen on them" in out


def test_two_bundles_are_compared_on_the_same_queries(shop_root, tmp_path, capsys):
    warehouse, champion = Warehouse(shop_root), load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), CHAMPION))
    other = write_bundle(
        warehouse.bundles, draw(champion.encoder.config, 2), champion.tokenizer, ds=DS, metrics={}, lineage={}
    )
    asked = ask(load_bundle(other).encoder, warehouse.dataset(DS), verify(warehouse.dataset(DS)))
    assert run(shop_root, "--against", other.name) == EXIT_OK
    result = written(shop_root)
    expected = result["figures"]["valid"]["mrr@10"] - asked.figures()["valid"]["mrr@10"]
    assert result["differences"]["valid"]["mrr@10"][0] == pytest.approx(expected, abs=2e-6)
    out = capsys.readouterr().out
    assert f"Difference: bundle {champion.id} minus bundle {other.name}" in out
    assert signed(Interval(*result["differences"]["valid"]["mrr@10"])) in out
    own = csv(tmp_path, f"{small_shop().titles[1004]},i1004")
    assert run(shop_root, "--queries", own, "--against", other.name) == EXIT_OK
    assert written(shop_root, "-own")["differences"]["own set"]["recall@10"] == [0.0, None, None]


def test_each_bundle_s_figures_stay_beside_those_of_others(shop_root):
    warehouse, champion = Warehouse(shop_root), load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), CHAMPION))
    other = write_bundle(
        warehouse.bundles, draw(champion.encoder.config, 3), champion.tokenizer, ds=DS, metrics={}, lineage={}
    )
    for name in ("", other.name):
        assert run(shop_root, "--bundle", name) == EXIT_OK
    assert [written(shop_root, bundle=name)["bundle"] for name in (CHAMPION, other.name)] == [champion.id, other.name]


def test_bundles_that_read_texts_otherwise_are_not_compared(shop_root, tmp_path, capsys):
    warehouse, champion = Warehouse(shop_root), load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), ""))
    spec = replace(champion.tokenizer.spec, product_text="new {title}")
    other = write_bundle(warehouse.bundles, champion.encoder, WordHashTokenizer(spec), ds=DS, metrics={}, lineage={})
    own = csv(tmp_path, f"{small_shop().titles[1004]},i1004")
    assert run(shop_root, "--queries", own, "--against", other.name) == EXIT_BAD_INPUT
    assert f"bundle {other.name} has other [text] settings" in capsys.readouterr().err


def test_slices_add_up_to_their_split(shop_root):
    dataset = Warehouse(shop_root).dataset(DS)
    bundle = load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), ""))
    for found in ask(bundle.encoder, dataset, verify(dataset)).slices().values():
        for kind in ("language", "frequency"):
            parts = [of for name, of in found.items() if name.startswith(kind)]
            assert sum(of["queries"] for of in parts) == found["all"]["queries"]
            total = sum(of["queries"] * of["recall@100"][0] for of in parts) / found["all"]["queries"]
            assert total == pytest.approx(found["all"]["recall@100"][0], abs=1e-5)


def test_an_own_set_is_asked_against_the_catalogue_and_all_that_is_wrong_with_it_is_counted(shop_root, tmp_path, capsys):
    titles = small_shop().titles
    rows = [
        f"{titles[1004]},i1004",  # its own title
        f"{titles[1004].upper()},i1004",  # another spelling, and so the same row again
        f"{titles[1001]},i1001",
        f"{titles[1001]},twin",  # another item with the same text
        "sneakers,nowhere",
        "sneakers,null",
        "sofa,dots",
        "...,i1004",
        "ワンピース,i1006",
    ]
    assert run(shop_root, "--queries", csv(tmp_path, *rows)) == EXIT_OK
    result, out = written(shop_root, "-own"), capsys.readouterr().out
    found = {remark["what"].split(":")[0]: (remark["count"], remark["first"]) for remark in result["remarks"]}
    assert found == {
        f"rows whose item is not in the catalogue of {DS}": (1, ["nowhere"]),
        "rows whose item has no text to be found by": (2, ["null", "dots"]),
        "rows whose query has no word": (1, ["..."]),
        "rows that repeat a query and an item, or another with the same text": (2, [titles[1004], titles[1001]]),
        "spellings of a query that another row has otherwise": (1, [titles[1004].upper()]),
        "queries without a right item that is left": (2, ["sneakers", "sofa"]),
        "queries in a language that the bundle saw no query of in training (it saw chinese, latin, mixed)":
            (1, [normalise("ワンピース")]),
    }  # fmt: skip
    assert "nowhere" in out
    assert result["figures"]["own set"]["queries"] == 3
    assert result["slices"]["own set"]["language latin"]["mrr@10"] == [1.0, 1.0, 1.0]
    assert result["slices"]["own set"]["language other"]["queries"] == 1


@pytest.mark.parametrize(
    ("heading", "rows", "message"),
    [
        ("query,item_id", ["shoe,x1", "shoe,x2", ",i1004"], r"of 3 rows no query with a known item is left:"),
        ("query,item_id", ["shoe,x1"], "1 rows whose item is not in the catalogue of 2024-05-07: left out ('x1')"),
        ("query,sku", ["shoe,x1"], "lacks the columns ['item_id'] (found ['query', 'sku'])"),
        ("query,item_id", ["shoe,i1004,extra,cells"], "cannot be read as CSV (expected columns query, item_id)"),
    ],
)
def test_a_set_that_nothing_can_be_measured_with_is_refused(shop_root, tmp_path, capsys, heading, rows, message):
    assert run(shop_root, "--queries", csv(tmp_path, *rows, heading=heading)) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_file_or_a_day_of_the_catalogue_that_is_not_there_is_named(shop_root, tmp_path, capsys):
    assert run(shop_root, "--queries", str(tmp_path / "none.csv")) == EXIT_BAD_INPUT
    assert f"evaluation set {tmp_path / 'none.csv'} cannot be read" in capsys.readouterr().err
    own = csv(tmp_path, "shoe,i1004")
    assert evaluate.main(["--root", str(shop_root), "--ds", "2024-01-01", "--queries", own]) == EXIT_BAD_INPUT
    assert "catalogue/ds=2024-01-01 has 0 rows" in capsys.readouterr().err


def test_a_bundle_of_another_tokenizer_is_sent_to_texts(shop_root, capsys):
    warehouse = Warehouse(shop_root)
    encoder = load_bundle(evaluate.chosen_bundle(warehouse, "")).encoder
    other = WordHashTokenizer(TokenizerSpec(rows=2**12, ngrams=(2,), normaliser=normalise.hash))
    path = write_bundle(warehouse.bundles, encoder, other, ds=DS, metrics={}, lineage={})
    assert run(shop_root, "--bundle", CANDIDATE) == EXIT_BAD_INPUT
    assert "has no candidate: run `labeller train` first" in capsys.readouterr().err
    assert run(shop_root, "--bundle", path.name) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert f"bundle {path.name} has another tokenizer than {warehouse.dataset(DS)}" in said
    assert "--queries" in said


def test_a_dataset_without_held_out_queries_has_no_figures_and_says_what_makes_some(shop_root, tmp_path, capsys):
    shop, champion = small_shop(), load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), ""))
    shop.heldout = []
    manifest = write_dataset(tmp_path / "datasets" / f"ds={DS}", shop)
    found = ask(champion.encoder, tmp_path / "datasets" / f"ds={DS}", manifest)
    assert (found.figures(), found.slices()) == ({}, {})
    path = write_bundle(tmp_path / "bundles", champion.encoder, champion.tokenizer, ds=DS, metrics={}, lineage={})
    set_alias(Warehouse(tmp_path), CANDIDATE, path)
    assert run(tmp_path, "--bundle", CANDIDATE) == EXIT_BAD_INPUT
    assert "has no held-out queries: raise --test-share of `labeller pairs`" in capsys.readouterr().err


def test_terms_across_languages_are_found_as_by_plain_sorting(shop_root):
    bundle = load_bundle(evaluate.chosen_bundle(Warehouse(shop_root), ""))
    found = across_languages(Vocabulary.of(TERMS), bundle)
    forms = {t["term_id"]: [t["term"], *t["synonyms"]] for t in TERMS if t["term_id"] != "t4"}
    latin = [(key, form) for key, of in forms.items() for form in of if language_of(form) == "latin"]
    hits = []
    for key, of in forms.items():
        asked = next(form for form in of if language_of(form) == "chinese")
        scores = bundle.encode([form for _, form in latin], "query") @ bundle.encode([asked], "query")[0]
        hits.append(latin[int(np.argmax(scores.round(6)))][0] == key)
    assert set(found) == {"chinese -> latin", "latin -> chinese"}
    assert found["chinese -> latin"]["terms"] == 3
    assert found["chinese -> latin"]["hit@1"][0] == pytest.approx(np.mean(hits), abs=1e-6)


def test_term_pairs_are_shown_of_a_generated_warehouse_only(shop_root, capsys):
    assert run(shop_root) == EXIT_OK
    assert "other language" not in capsys.readouterr().out
    (shop_root / "truth").mkdir()
    (shop_root / "truth" / "oracle.json").write_text('{"term_hit1": 0.9}')
    assert run(shop_root) == EXIT_OK
    assert "Of the generator's vocabulary only" in capsys.readouterr().out
    assert written(shop_root)["term_pairs"]["latin -> chinese"]["terms"] == 3
