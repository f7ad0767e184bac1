"""The item index in an embedded Qdrant: what it finds, and what a second, an interrupted and a later load do."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from qdrant_client import QdrantClient

from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.warehouse import Warehouse
from labeling import load_qdrant
from labeling.item_index import ItemIndex, set_live
from labeling.load_qdrant import ALIAS, load, open_embedded, point_id
from tests.labeling_data import index_titles, write_small_bundle

D = 32
TITLES = {"i1": "steel kettle", "i2": "red dress"}


def index_of(name: str, count: int = 400, seed: int = 0) -> ItemIndex:
    """Random vectors, every fifth that of two items."""
    vectors = np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [[f"i{n:03}", f"i{n:03}b"] if n % 5 == 0 else [f"i{n:03}"] for n in range(count)]
    return ItemIndex(Path(name), {"bundle": "b1"}, vectors, pa.array(items), None)


def payloads(index: ItemIndex, term: str = "kettle") -> dict[str, dict]:
    return {item: {"item_id": item, "term": term, "terms": [term]} for item in index.items.flatten().to_pylist()}


@pytest.fixture
def client(tmp_path):
    opened = open_embedded(tmp_path / "db")
    yield opened
    opened.close()


def ids(client: QdrantClient, name: str = ALIAS) -> set[str]:
    return {point.payload["item_id"] for point in client.scroll(name, limit=10_000)[0]}


def test_the_nearest_items_and_scores_are_those_of_faiss_with_their_payload(client):
    index = index_of("2024-05-07-a")
    load(client, index, payloads(index))
    flat = faiss.IndexFlatIP(D)
    flat.add(index.vectors)
    queries = np.random.default_rng(9).normal(size=(20, D)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query, scores, places in zip(queries, *flat.search(queries, 5), strict=True):
        items = [item for place in places for item in index.items_at(int(place))]
        hits = client.query_points(ALIAS, query=query.tolist(), limit=len(items)).points
        assert {hit.payload["item_id"] for hit in hits} == set(items)
        expected = [score for score, place in zip(scores, places, strict=True) for _ in index.items_at(int(place))]
        np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-5)
        assert hits[0].payload["terms"] == ["kettle"]


def test_a_second_load_writes_nothing_and_an_interrupted_one_goes_on(client):
    index = index_of("2024-05-07-a")
    assert load(client, index, payloads(index)) == {"items": 480, "written": 480}
    assert load(client, index, payloads(index)) == {"items": 480, "written": 0}
    client.delete(index.path.name, points_selector=[point_id("i007"), point_id("i010b")])
    assert load(client, index, payloads(index)) == {"items": 480, "written": 2}


def test_labels_that_changed_since_are_written_again(client):
    index = index_of("2024-05-07-a")
    load(client, index, payloads(index))
    changed = payloads(index) | {"i003": {"item_id": "i003", "term": "lamp", "terms": ["lamp"]}}
    assert load(client, index, changed) == {"items": 480, "written": 1}
    assert client.retrieve(ALIAS, [point_id("i003")])[0].payload["term"] == "lamp"


def test_a_later_index_takes_the_alias_and_the_one_before_is_dropped(client):
    first, second = index_of("2024-05-07-a"), index_of("2024-05-08-b", count=10, seed=1)
    load(client, first, payloads(first))
    load(client, second, payloads(second))
    assert ids(client) == set(second.items.flatten().to_pylist())
    assert [found.name for found in client.get_collections().collections] == ["2024-05-08-b"]


def test_an_item_without_labels_is_refused_and_the_alias_stays(client):
    first, second = index_of("2024-05-07-a", count=10), index_of("2024-05-08-b", count=20)
    load(client, first, payloads(first))
    with pytest.raises(InputError, match=r"12 items of index 2024-05-08-b have no row in labels_current \(first: 'i010'\)"):
        load(client, second, payloads(first))
    assert ids(client) == set(first.items.flatten().to_pylist())


def test_points_have_ids_that_no_machine_and_no_version_may_change():
    assert point_id("i1") == "3046f8e6-2bf1-5247-900e-42249b0261ba"


def test_a_database_that_another_has_open_and_a_missing_package_are_refused_with_the_cure(client, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"cannot be opened: .*already accessed by another .*Stop what has it open"):
        open_embedded(tmp_path / "db")
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(InputError, match="qdrant-client is not installed: `pip install qdrant-client`"):
        open_embedded(tmp_path / "other")


def test_the_command_loads_what_is_live_with_its_labels(spark, root, capsys):
    line = ["--root", str(root), "--path", str(root / "db")]
    assert load_qdrant.main(line) == EXIT_BAD_INPUT
    assert "run `labeller relate` first" in capsys.readouterr().err
    bundle = write_small_bundle(root)
    set_live(Warehouse.at(str(root)), index_titles(spark, root, bundle, TITLES).path)
    terms = [{"term_id": "t2", "term": "kettle", "score": 0.9, "probability": 0.8}]
    rows = [{"item_id": item, "ds": dt.date(2024, 5, 7), "title": title, "term": "kettle", "terms": terms,
             "category_path": "Home > Kettle"} for item, title in TITLES.items()]  # fmt: skip
    (root / "labels_current").mkdir()
    pl.DataFrame(rows).write_parquet(root / "labels_current" / "rows.parquet")
    assert load_qdrant.main(line) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["items"] == 2
    opened = open_embedded(root / "db")
    best = opened.query_points(ALIAS, query=bundle.encode(["kettle"], "query")[0].tolist(), limit=1).points[0]
    opened.close()
    expected = {"item_id": "i1", "title": "steel kettle", "term": "kettle", "terms": ["kettle"],
                "category": "Home > Kettle", "ds": "2024-05-07"}  # fmt: skip
    assert best.payload == expected
