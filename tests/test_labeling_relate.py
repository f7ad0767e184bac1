"""The tables beside the labels, of a small published night: real Spark, Delta, faiss and an untrained bundle."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from etl.contracts import CATALOGUE, ITEM_TERMS, LABELS_CURRENT, OVERRIDES, RELATED, RUNS, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict, publish, relate
from labeling.item_index import live_item_index
from model.bundle import champion, load_bundle
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down, term

NEXT = DS + dt.timedelta(days=1)
TITLES = {
    "i1": "Steel kettle 1.7 l",
    "i2": "steel KETTLE  1.7 l",
    "i3": "Red dress, cotton",
    "i4": "Running shoes 39",
    "i5": "Brass table lamp",
    "i6": "Camping kettle",
    "i7": None,
}
SELLERS = {"i1": "Kettle", "i3": "h1", "i5": "Home"}

pytestmark = pytest.mark.slow  # whole nights; that every table has its rows after one is tested in test_nightly_end_to_end

FLAGS = [
    "--min-mismatch-probability",
    "0.3",
    "--min-phrase-users",
    "1",
    "--recall",
    "3",
    "--similar",
    "2",
    "--query-share",
    "1",
]
FLAGS += ["--min-term-clicks", "2", "--min-term-users", "2", "--min-term-items", "2"]


def argv(root: Path, ds: dt.date = DS, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(ds), *more]


@pytest.fixture(scope="module")
def base(spark, tmp_path_factory) -> Path:
    """Two days, the first of them published and related; tests that write work on a copy."""
    root = tmp_path_factory.mktemp("related") / "warehouse"
    root.mkdir()
    days = [item(i, title, ds=ds, seller_category=SELLERS.get(i)) for ds in (DS, NEXT) for i, title in TITLES.items()]
    lay_down(spark, root, CATALOGUE, days)
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    clicks = [("boil water", "i1", 5.0), ("kettle", "i1", 2.0), ("boil water", "i6", 1.0), ("gown", "i3", 1.0)]
    for ds in (DS, NEXT):
        write_pairs(spark, root, [pair(query, i, str(TITLES[i]), weight=weight, ds=ds) for query, i, weight in clicks])
    write_small_bundle(root)
    assert [job.main(argv(root)) for job in (embed_catalogue, predict, audit, publish)] == [EXIT_OK] * 4
    assert relate.main(argv(root, DS, *FLAGS)) == EXIT_OK
    return root


@pytest.fixture
def shop(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "warehouse"))


def rows(root: Path, table: str) -> pl.DataFrame:
    frame = pl.read_delta(str(root / table))
    return frame.sort([name for name in frame.columns[:4] if frame.schema[name] != pl.List])


def test_every_table_has_its_rows_with_the_run_that_made_them(base):
    run = json.loads(rows(base, RUNS.name).filter(pl.col("stage") == "relate")["counts"][0])
    for table in RELATED:
        found = rows(base, table.name)
        assert found.columns == list(table.names)
        assert found.height == run[table.name] > 0
        assert found.select(table.keys).is_duplicated().sum() == 0
        assert set(found["run_id"]) == {rows(base, RUNS.name).filter(pl.col("stage") == "relate")["run_id"][0]}
        assert '"pairs": "rows:' in found["inputs"][0]


def test_what_the_rows_say(base):
    similar = rows(base, "similar_items").filter(pl.col("rank") == 1)
    near = dict(zip(similar["item_id"], similar["similar_item_id"], strict=True))
    assert (near["i1"], near["i2"]) == ("i6", "i6")
    assert "i7" not in near
    recall = rows(base, "query_items").filter(pl.col("query") == "kettle")
    assert set(recall["item_id"]) == {"i1", "i2", "i6"}
    assert dict(zip(recall["item_id"], recall["clicks"], strict=True))["i1"] == 1
    copy = {row["item_id"]: row for row in rows(base, "copy_keywords").to_dicts()}
    assert [phrase["query"] for phrase in copy["i1"]["phrases"]] == ["boil water"]
    assert "i4" not in copy  # its title has a synonym of its term
    mismatch = rows(base, "category_mismatch").to_dicts()
    assert [(row["item_id"], row["seller_path"], row["level"], row["calibrated"]) for row in mismatch] == [
        ("i3", "Home > Kettle", 1, False)
    ]
    candidate = rows(base, "term_candidates").to_dicts()[0]
    assert (candidate["query"], candidate["items"], candidate["example_items"]) == ("boil water", 2, ["i1", "i6"])


def test_a_service_asks_the_live_index_with_the_bundle_that_made_it(base):
    bundle = load_bundle(champion(Warehouse.at(str(base))))
    index = live_item_index(base, bundle.id)
    assert (index.manifest["ds"], index.manifest["texts"], index.manifest["items"]) == (str(DS), 5, 6)
    hits = index.nearest(bundle.encode(["kettle"], "query"), 3)[0]
    assert [(hit.item_id, hit.score) for hit in hits] == [
        (row["item_id"], row["score"]) for row in rows(base, "query_items").filter(pl.col("query") == "kettle").to_dicts()
    ]
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-6)


def test_a_rerun_writes_the_same_rows_and_leaves_labels_and_index_as_they_are(shop):
    before = {table.name: rows(shop, table.name) for table in (*RELATED, LABELS_CURRENT, ITEM_TERMS)}
    index = live_item_index(shop).path.name
    assert relate.main(argv(shop, DS, *FLAGS, "--partitions", "7")) == EXIT_OK
    assert all(rows(shop, name).equals(frame) for name, frame in before.items())
    assert [path.name for path in (shop / "item_index").iterdir() if path.is_dir()] == [index]


def test_a_day_that_was_not_published_is_refused(shop, capsys):
    assert relate.main(argv(shop, NEXT)) == EXIT_BAD_INPUT
    assert "holds no published labels of ds=2024-05-08" in capsys.readouterr().err


def test_labels_whose_publishing_did_not_end_are_refused(spark, shop, capsys):
    spark.sql(f"DELETE FROM delta.`{shop / RUNS.name}` WHERE stage = 'publish'")
    assert relate.main(argv(shop)) == EXIT_BAD_INPUT
    assert "(expected a run that `labeller publish` made live)" in capsys.readouterr().err


def test_inputs_that_changed_since_the_labelling_are_refused_and_the_tables_stay(spark, shop, capsys):
    before = {table.name: rows(shop, table.name) for table in RELATED}
    lay_down(spark, shop, VOCABULARY, [*TERMS, term("t9", "spoon")])
    assert relate.main(argv(shop)) == EXIT_BAD_INPUT
    assert "vocabulary is of version" in capsys.readouterr().err
    assert all(rows(shop, name).equals(frame) for name, frame in before.items())


def test_what_would_cost_too_much_is_left_empty_and_said(shop, caplog):
    assert relate.main(argv(shop, DS, "--max-similar-texts", "4")) == EXIT_OK
    assert rows(shop, "similar_items").is_empty()
    assert rows(shop, "query_items").height > 0
    assert "similar_items stays empty: 5 distinct texts" in caplog.text
    index = live_item_index(shop).path
    assert relate.main(argv(shop, DS, "--max-indexed-texts", "4")) == EXIT_OK
    assert rows(shop, "query_items").is_empty()
    assert "no item index is made, and similar_items, query_items, term_candidates stay empty" in caplog.text
    assert live_item_index(shop).path == index


def test_an_older_day_gets_its_tables_and_the_live_index_stays_with_the_newest(shop):
    assert [job.main(argv(shop, NEXT)) for job in (embed_catalogue, predict, audit, publish, relate)] == [EXIT_OK] * 5
    newest = live_item_index(shop)
    assert newest.manifest["ds"] == str(NEXT)
    assert relate.main(argv(shop, DS, "--similar", "1")) == EXIT_OK
    assert live_item_index(shop).path == newest.path
    ranks = rows(shop, "similar_items").group_by("ds").agg(pl.col("rank").max()).sort("ds")
    assert ranks["rank"].to_list() == [1, 5]


def test_a_person_decides_what_copy_lacks_and_is_not_contradicted(spark, shop):
    at = dt.datetime(2024, 5, 1)
    decided = [("i3", "category", "f1"), ("i4", "term", "t2")]
    given = [{"item_id": i, "what": what, "value": value, "author": "ann", "at": at} for i, what, value in decided]
    lay_down(spark, shop, OVERRIDES, given)
    assert relate.main(argv(shop, DS, *FLAGS)) == EXIT_OK
    assert rows(shop, "category_mismatch").is_empty()
    copy = rows(shop, "copy_keywords").filter(pl.col("item_id") == "i4")
    assert copy["missing_terms"].to_list() == [["kettle"]]
    assert '"overrides": "rows:' in copy["inputs"][0]


def test_a_catalogue_without_sellers_categories_and_halves_that_are_absent_leave_their_tables_empty(spark, shop, caplog):
    items = [{k: v for k, v in item(i, title).items() if k != "seller_category"} for i, title in TITLES.items()]
    shutil.rmtree(shop / CATALOGUE.name)
    pl.DataFrame(items).drop("ds").write_parquet(_day(shop) / "part.parquet")
    assert [job.main(argv(shop)) for job in (embed_catalogue, predict, audit, publish, relate)] == [EXIT_OK] * 5
    assert rows(shop, "category_mismatch").is_empty()
    assert "the catalogue has no column seller_category, or nothing in it" in caplog.text
    (shop / "warehouse.toml").write_text('[warehouse]\nabsent = ["vocabulary"]\n')
    assert [job.main(argv(shop)) for job in (predict, audit, publish, relate)] == [EXIT_OK] * 4
    assert rows(shop, "term_candidates").is_empty()
    assert rows(shop, "query_items").height > 0
    assert "term_candidates stays empty: this warehouse has no vocabulary" in caplog.text


def _day(root: Path) -> Path:
    path = root / CATALOGUE.name / f"ds={DS}"
    path.mkdir(parents=True)
    return path
