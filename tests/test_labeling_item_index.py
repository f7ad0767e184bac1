"""The item index on disk: what it finds, what it refuses to load, and which one is live."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from etl.errors import EXIT_BAD_INPUT, InputError
from etl.lease import hold_day
from etl.warehouse import Warehouse
from labeling import relate
from labeling.item_index import (
    LIVE_FILE,
    MANIFEST_FILE,
    VECTORS_FILE,
    Hit,
    drop_leftovers,
    drop_unless_live,
    live_item_index,
    load_item_index,
    set_live,
)
from tests.labeling_data import write_index
from tests.rows import DS

D = 32


def random_texts(count: int, seed: int = 0) -> dict[tuple[str, ...], np.ndarray]:
    """Vectors of few values, so that many scores are equal; every fifth text is that of two items."""
    vectors = np.random.default_rng(seed).integers(-1, 2, (count, D)) + 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {(f"i{n:03}", f"i{n:03}b") if n % 5 == 0 else (f"i{n:03}",): vector for n, vector in enumerate(vectors)}


@pytest.fixture(scope="module")
def index(spark, tmp_path_factory):
    return write_index(spark, tmp_path_factory.mktemp("indexed"), random_texts(90))


def test_search_finds_what_a_scan_of_all_items_finds_with_ties_by_item_id(index):
    queries = index.vectors[:20].astype(np.float64)
    for query, hits in zip(queries, index.nearest(queries, 7), strict=True):
        scores = (index.vectors.astype(np.float64) @ query).round(6)
        every = [Hit(item, score) for place, score in enumerate(scores.tolist()) for item in index.items_at(place)]
        assert hits == sorted(every, key=lambda hit: (-hit.score, hit.item_id))[:7]


def test_ties_beyond_what_was_fetched_first_are_still_broken_by_item_id(spark, root):
    same = np.eye(D)[0]
    index = write_index(spark, root, {(f"i{n:03}",): same for n in reversed(range(200))})
    assert [hit.item_id for hit in index.nearest(same[None], 4)[0]] == ["i000", "i001", "i002", "i003"]


def test_scores_do_not_depend_on_how_many_queries_are_asked_together(index):
    queries = np.random.default_rng(1).normal(size=(700, D))
    together = index.nearest(queries, 5)
    assert together[::70] == [index.nearest(query[None], 5)[0] for query in queries[::70]]


def test_more_neighbours_than_items_gives_all_of_them(index):
    assert len(index.nearest(index.vectors[:1], 1_000)[0]) == 108


def test_an_item_has_the_place_of_its_text_and_an_unknown_one_has_none(index):
    places = index.places_of(pa.array(["i005b", "nobody", "i005", "i001"]))
    assert places[0] == places[2] >= 0
    assert places[1] == -1
    assert index.items_at(int(places[3])) == ["i001"]


def test_vectors_are_those_that_were_stored_at_unit_length(index):
    expected = random_texts(90)[("i001",)].astype(np.float16).astype(np.float32)
    place = int(index.places_of(pa.array(["i001"]))[0])
    np.testing.assert_allclose(index.vectors[place], expected / np.linalg.norm(expected), atol=1e-7)
    assert index.index.ntotal == 90


def test_the_same_rows_make_the_same_index(spark, root, index):
    again = write_index(spark, root, dict(reversed(random_texts(90).items())))
    assert (again.path.name, again.manifest) == (index.path.name, index.manifest)


def test_a_whole_index_of_the_same_rows_is_left_alone_and_a_damaged_one_made_again(spark, root):
    path = write_index(spark, root, random_texts(5)).path
    made = (path / VECTORS_FILE).stat().st_ino
    write_index(spark, root, random_texts(5))
    assert (path / VECTORS_FILE).stat().st_ino == made
    (path / VECTORS_FILE).write_bytes(b"damaged")
    assert write_index(spark, root, random_texts(5)).path == path
    assert [directory.name for directory in path.parent.iterdir()] == [path.name]


@pytest.mark.fault("model-damaged")
def test_an_index_of_another_bundle_is_refused_with_both_names(index):
    assert load_item_index(index.path, "b1").bundle == "b1"
    with pytest.raises(InputError, match="holds vectors of bundle b1, queries would be of bundle b2"):
        load_item_index(index.path, "b2")


@pytest.mark.fault("model-damaged")
def test_a_damaged_or_incomplete_index_is_refused_with_every_file_that_is_wrong(spark, root):
    path = write_index(spark, root, random_texts(5)).path
    with (path / VECTORS_FILE).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    (path / "items.arrow").unlink()
    with pytest.raises(InputError, match="is damaged") as refused:
        load_item_index(path)
    assert "vectors.faiss has SHA-256" in str(refused.value)
    assert "items.arrow is missing" in str(refused.value)


def test_an_index_of_another_format_and_what_is_none_are_refused(spark, root):
    path = write_index(spark, root, random_texts(5)).path
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    (path / MANIFEST_FILE).write_text(json.dumps(manifest | {"format": 0}))
    with pytest.raises(InputError, match="format 0, this version reads 1: run `labeller relate` again"):
        load_item_index(path)
    with pytest.raises(InputError, match="is no item index"):
        load_item_index(root)


def test_a_warehouse_without_a_live_index_says_which_command_makes_one(root):
    with pytest.raises(InputError, match="has no live item index: run `labeller relate` first"):
        live_item_index(root)


def test_the_live_index_and_the_one_before_it_are_kept_and_no_other(spark, root):
    warehouse = Warehouse.at(str(root))
    paths = [write_index(spark, root, random_texts(5, seed)).path for seed in range(3)]
    for path in [*paths, paths[-1]]:  # a rerun of the newest changes nothing
        set_live(warehouse, path)
    assert [path.is_dir() for path in paths] == [False, True, True]
    assert live_item_index(root).path == paths[2]


def test_an_index_that_is_not_live_is_dropped_and_one_that_is_stays(spark, root):
    warehouse = Warehouse.at(str(root))
    old, live = (write_index(spark, root, random_texts(5, seed)).path for seed in range(2))
    set_live(warehouse, live)
    for path in (old, live):
        drop_unless_live(warehouse, path)
    assert [old.exists(), live.exists()] == [False, True]


A, B, C, D_ = (f"{DS}-{letter * 12}" for letter in "abcd")
YESTERDAY = DS - dt.timedelta(days=1)


def indexes(root: Path, *names: str, **live: object) -> Path:
    """``item_index/`` with directories of these names, and a ``live.json`` if one is given."""
    directory = root / "item_index"
    for name in names:
        (directory / name).mkdir(parents=True)
        (directory / name / VECTORS_FILE).touch()
    directory.mkdir(exist_ok=True)
    if live:
        (directory / LIVE_FILE).write_text(json.dumps(live))
    return directory


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {LIVE_FILE}


@pytest.mark.fault("malicious")
@pytest.mark.parametrize("name", ["..", ".", "../bundles", "/etc", "a", f"{A}/..", "2024-05-07-", f"{A}\n", "", 5, ["x"]])
@pytest.mark.parametrize("key", ["index", "before"])
def test_a_live_file_that_names_no_index_is_refused_and_nothing_is_removed(root, key, name):
    (root / "bundles").mkdir()
    directory = indexes(root, A, B, C, **({"index": A, "before": B} | {key: name}))
    for refuse in (
        lambda at: set_live(at, directory / C),
        lambda at: drop_unless_live(at, directory / C),
        lambda at: drop_leftovers(at, root / "locks", DS),
        lambda at: live_item_index(at.root),
    ):
        with pytest.raises(InputError, match=r"live.json: item index .* is not under .*DAY-HASH\), or delete live.json"):
            refuse(Warehouse.at(str(root)))
    assert names(directory) == {A, B, C}
    assert (root / "bundles").is_dir()


@pytest.mark.fault("malicious")
def test_a_live_file_that_is_no_object_is_refused(root):
    directory = indexes(root, A)
    (directory / LIVE_FILE).write_text('["..", ".."]')
    with pytest.raises(InputError, match=r"live.json: item index .* is not under"):
        set_live(Warehouse.at(str(root)), directory / A)


@pytest.mark.fault("malicious")
def test_an_index_that_is_a_link_is_neither_loaded_nor_removed(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    directory = indexes(root, C, index=A, before=A)
    (directory / A).symlink_to(outside)
    warehouse = Warehouse.at(str(root))
    for refuse in (lambda: live_item_index(root), lambda: set_live(warehouse, directory / C)):
        with pytest.raises(InputError, match=rf"{A} is a link to {outside} \(expected a directory\): remove it"):
            refuse()
    (directory / LIVE_FILE).unlink()
    drop_leftovers(warehouse, root / "locks", DS)
    assert (directory / A).is_symlink()
    assert outside.is_dir()


@pytest.mark.fault("malicious")
def test_relate_refuses_such_a_live_file_before_it_does_anything(root, capsys):
    indexes(root, A, B, index=A, before="..")
    assert relate.main(["--root", str(root), "--ds", str(DS)]) == EXIT_BAD_INPUT
    assert "live.json: item index '..' is not under" in capsys.readouterr().err
    assert names(root / "item_index") == {A, B}


@pytest.mark.fault("killed-at-boundary")
def test_what_killed_runs_left_goes_and_what_is_live_or_nobody_s_stays(root):
    other = f"{YESTERDAY}-{'e' * 12}"
    ours = (C, f".writing-{DS}-x1y2_z3", other, f".writing-{YESTERDAY}-q")
    theirs = ("own", ".writing-x", f"{DS}-{'g' * 12}", f"2024-99-99-{'a' * 12}", f"{A}.bak")
    directory = indexes(root, A, B, *ours, *theirs, index=A, before=B)
    (directory / D_).write_text("a file")
    drop_leftovers(Warehouse.at(str(root)), root / "locks", DS)
    assert names(directory) == {A, B, D_, *theirs}


@pytest.mark.fault("killed-at-boundary")
def test_what_was_left_of_a_day_that_is_being_written_stays_until_its_lease_is_free(root):
    ours = (f"{YESTERDAY}-{'e' * 12}", f".writing-{YESTERDAY}-q")
    directory, warehouse = indexes(root, A, *ours, index=A, before=None), Warehouse.at(str(root))
    with hold_day(root / "locks", YESTERDAY, "labeller relate"):
        drop_leftovers(warehouse, root / "locks", DS)
        assert names(directory) == {A, *ours}
    drop_leftovers(warehouse, root / "locks", DS)
    assert names(directory) == {A}


def test_a_service_loads_an_index_without_spark():
    code = "import sys, labeling.item_index; print('pyspark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
