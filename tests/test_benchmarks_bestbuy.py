"""The tree of Best Buy completed from its paths, and paths of random vectors in it: the load and consistency test.

Where the dump is not there, a made-up one with the same faults stands alone.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sets import bestbuy
from etl.contracts import TAXONOMY
from etl.errors import InputError
from etl.taxonomy import Taxonomy
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.categories import CategoryLabel, CategoryTree
from tests.needs import require_data

REAL = Path(__file__).resolve().parent.parent / bestbuy.BestBuyConfig.model_fields["data"].default
STEPS = {
    "r": "Audio", "q": "Brands", "a": "Speakers", "b": "Headphones", "c": "Insignia", "c2": "Insignia", "d": "Speakers",
    "gone": "Portable", "gone2": "Outdoor", "e": "Bluetooth", "n": None,
}  # fmt: skip
PATHS = ["r", "q", "ra", "rb", "qd", "qc", ("q", "c2"), ("r", "gone", "gone2", "e"), ("r", "n")]
"""Ids from the root down of each category: two of one path of names (c, c2), one name under two parents (a, d), one whose
parent and grandparent are no categories (e), one without a name (n)."""


def dump(paths: Sequence[Sequence[str]], names: dict[str, str | None] = STEPS) -> list[dict]:
    return [
        {"id": path[-1], "name": names[path[-1]], "path": [{"id": id_, "name": names[id_]} for id_ in path]}
        for path in paths
    ]


def write_dump(directory: Path, content: object) -> str:
    (directory / bestbuy.FILE).write_bytes(gzip.compress(json.dumps(content).encode()))
    return str(directory)


def encode(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors that are random, and the same for the same text: float32 [len(texts), 24]."""
    found = np.stack([np.random.default_rng(zlib.crc32(text.encode())).standard_normal(24) for text in texts])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=["made up", "real"])
def shop(request: pytest.FixtureRequest) -> Taxonomy:
    if request.param == "made up":
        return Taxonomy.of(bestbuy.completed(dump(PATHS)))
    require_data(REAL)
    return Taxonomy.of(bestbuy.completed(bestbuy.read_categories(str(REAL))))


@pytest.fixture(scope="module")
def tree(shop: Taxonomy) -> CategoryTree:
    return CategoryTree.build(shop, encode)


def vectors(tree: CategoryTree, count: int) -> np.ndarray:
    """Random ones, and near each node whose name stands under several parents."""
    rng = np.random.default_rng(7)
    names = [tree.names[leaf] for leaf in tree.leaves]
    twins = [place for place, name in enumerate(names) if names.count(name) > 1][: count // 2]
    near = tree.vectors[twins] + 0.1 * rng.standard_normal((len(twins), tree.vectors.shape[1]))
    found = np.concatenate([near, rng.standard_normal((count - len(twins), tree.vectors.shape[1]))])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def labels(tree: CategoryTree, found: np.ndarray) -> list[CategoryLabel]:
    return tree.label(found, 0.05, 0.45)


def test_the_real_tree_is_completed_to_all_nodes_that_its_paths_name(root: Path) -> None:
    require_data(REAL)
    assert bestbuy.main(["warehouse", "--data", str(REAL), "--root", str(root)]) == 0
    found = local_tables.taxonomy(Warehouse(root))
    assert len(found.nodes) == 4_723
    assert len(found.roots) == 43
    assert sum(not node.children for node in found.nodes.values()) == 3_886
    assert max(len(found.path(id_)) for id_ in found.nodes) == 6


def test_ancestors_that_are_no_categories_come_from_the_path_and_a_nameless_node_has_its_id(root: Path) -> None:
    data = write_dump(root.parent, dump(PATHS))
    assert bestbuy.main(["warehouse", "--data", data, "--root", str(root)]) == 0
    found = local_tables.taxonomy(Warehouse(root))
    assert [node.name for node in found.path("e")] == ["Audio", "Portable", "Outdoor", "Bluetooth"]
    assert found.nodes["n"].name == "n"
    assert len(found.nodes) == len(STEPS)
    assert local_tables.read(Warehouse(root), TAXONOMY)["category_id"].is_sorted()


def test_every_random_vector_gets_a_path_of_the_tree(shop: Taxonomy, tree: CategoryTree) -> None:
    found = labels(tree, vectors(tree, 2_000))
    for one in found:
        way = shop.path(one.category_id) if one.category_id else []
        assert one.path_ids == [node.id for node in way]
        assert one.path == [node.name for node in way]
    assert {one.stopped for one in found} >= {"leaf", "uncertain_below"}


def test_probability_never_rises_on_the_way_down(tree: CategoryTree) -> None:
    found = labels(tree, vectors(tree, 2_000))
    for one in found:
        assert len(one.probabilities) == len(one.path_ids)
        assert one.probabilities == sorted(one.probabilities, reverse=True)
    assert max(len(one.path_ids) for one in found) >= 3


def test_nodes_of_one_name_are_told_apart_by_their_parents(shop: Taxonomy, tree: CategoryTree) -> None:
    parents: dict[str, set[str | None]] = {}
    for one in labels(tree, vectors(tree, 2_000)):
        for id_, name in zip(one.path_ids, one.path, strict=True):
            parents.setdefault(name, set()).add(shop.nodes[id_].parent_id)
    assert max(map(len, parents.values())) > 1


def test_paths_are_the_same_at_any_batch_size(tree: CategoryTree) -> None:
    found = vectors(tree, 600)
    together = labels(tree, found)
    for size, count in ((1, 12), (7, 70), (599, 600)):
        apart = [one for start in range(0, count, size) for one in labels(tree, found[start : min(start + size, count)])]
        assert apart == together[:count]


def test_paths_that_disagree_on_a_node_and_one_that_ends_elsewhere_are_all_named() -> None:
    torn = [*dump(["r", "ra"]), *dump(["qa"], STEPS | {"a": "Other"}), {**dump(["rb"])[0], "id": "x"}]
    with pytest.raises(InputError, match="the paths of the categories make no tree") as caught:
        bestbuy.completed(torn)
    assert caught.value.problems == (
        "category 'a' is 'Other' under 'q' and 'Speakers' under 'r'",
        "the path of category 'x' does not end with it",
    )


def test_a_missing_dump_and_a_file_that_is_none_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(root.parent)
    assert bestbuy.main(["warehouse", "--data", data, "--root", str(root)]) == 2
    assert "categories.json.gz is no file: give --data" in capsys.readouterr().err
    write_dump(root.parent, [{"id": "a", "name": "Audio"}])
    assert bestbuy.main(["warehouse", "--data", data, "--root", str(root)]) == 2
    assert "is no list of categories with id, name, path" in capsys.readouterr().err
