from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etl.errors import InputError
from labeling.categories import CategoryLabel, CategoryTree
from labeling.prompts import node_prompts
from tests.labeling_data import NODES, query_encoder, taxonomy, title_vectors, write_small_bundle
from tests.rows import node

SHARP = 0.05


def tree(root: Path, rows: list[dict] | None = None) -> CategoryTree:
    return CategoryTree.build(taxonomy(rows), query_encoder(write_small_bundle(root)))


def label(root: Path, title: str, rows: list[dict] | None = None, least: float = 0.0) -> CategoryLabel:
    vectors = title_vectors(write_small_bundle(root), [title])
    return tree(root, rows).label(vectors, SHARP, least)[0]


def test_prompts_are_name_parent_and_path_and_equal_ones_stand_once():
    assert node_prompts(taxonomy(), "h21") == ("Table lamp", "Lamps Table lamp", "Home > Lamps > Table lamp")
    assert node_prompts(taxonomy(), "h") == ("Home",)


def test_the_path_leads_from_the_root_to_the_leaf_that_the_title_names(root):
    found = label(root, "brass table lamp 40 w")
    assert found.path_ids == ["h", "h2", "h21"]
    assert found.path == ["Home", "Lamps", "Table lamp"]
    assert (found.category_id, found.stopped) == ("h21", "leaf")


def test_probability_never_rises_on_the_way_down(root):
    found = label(root, "steel kettle")
    assert found.probabilities == sorted(found.probabilities, reverse=True)
    assert found.probability == found.probabilities[-1]


def test_an_uncertain_step_stops_the_path_at_the_inner_node(root):
    twins = [*NODES, node("h23", "h2", "Lamp table")]  # to a bag of words the same as h21
    found = label(root, "table lamp", twins, least=0.55)
    assert found.path_ids == ["h", "h2"]
    assert (found.category_id, found.stopped) == ("h2", "uncertain_below")


def test_an_uncertain_root_gives_no_category_with_the_reason(root):
    found = label(root, "quartz wristwatch", least=0.999)
    assert found == CategoryLabel(None, [], [], [], "low_probability")
    assert found.probability is None


def test_equal_names_under_different_parents_never_mix(root):
    rows = [
        node("m", None, "Men"),
        node("m1", "m", "Shoes"),
        node("m11", "m1", "Boots"),
        node("w", None, "Women"),
        node("w1", "w", "Shoes"),
        node("w11", "w1", "Boots"),
    ]
    assert label(root, "men shoes boots", rows).path_ids == ["m", "m1", "m11"]
    assert label(root, "women shoes boots", rows).path_ids == ["w", "w1", "w11"]
    undecided = tree(root, rows).label(title_vectors(write_small_bundle(root), ["boots"]), 1.0, 0.0)[0]
    assert undecided.path_ids in (["m", "m1", "m11"], ["w", "w1", "w11"])


def test_every_path_is_a_path_of_the_tree_whatever_the_title(root):
    rng = np.random.default_rng(0)
    rows = [node("0", None, "n0")]
    rows += [node(str(n), str(int(rng.integers(n))) if n % 17 else None, f"name {n % 20} {n}") for n in range(1, 200)]
    shop = taxonomy(rows)
    titles = [f"name {n % 20} {n}" for n in range(1, 200, 3)] + [f"name {n}" for n in range(40)]
    found = tree(root, rows).label(title_vectors(write_small_bundle(root), titles), 0.1, 0.3)
    for one in found:
        assert one.path_ids == ([n.id for n in shop.path(one.category_id)] if one.category_id else [])
        assert len(one.path) == len(one.path_ids) == len(one.probabilities)
    assert {one.stopped for one in found} >= {"leaf", "uncertain_below"}


def test_a_tree_deeper_than_the_level_columns_keeps_its_whole_path(root):
    rows = [node("n0", None, "depth zero")] + [node(f"n{d}", f"n{d - 1}", f"depth {d}") for d in range(1, 9)]
    assert len(label(root, "depth 8", rows).path_ids) == 9


def test_a_node_is_as_probable_as_the_leaves_below_it_together(root):
    found = tree(root)
    vectors = title_vectors(write_small_bundle(root), ["floor lamp", "dress"])
    paths = np.exp(found.log_paths(found.scores(vectors), 0.3))
    roots = [i for i, parent in enumerate(found.parents) if parent < 0]
    np.testing.assert_allclose(paths[roots].sum(axis=0), 1.0)
    for parent, start, end in found.families[1:]:
        np.testing.assert_allclose(paths[start:end].sum(axis=0), paths[parent])


def test_where_the_best_leaf_is_uncertain_the_likeliest_branch_is_followed_instead(root):
    """One leaf is nearest, but three that are nearly as near stand together elsewhere."""
    rows = [node("a", None, "Apart"), node("a1", "a", "Mug"), node("t", None, "Together")]
    rows += [node(f"t{n}", "t", f"Thing {n}") for n in range(3)]
    found = tree(root, rows)
    at = dict(zip((found.ids[leaf] for leaf in found.leaves), range(4), strict=True))
    found.vectors[:] = 0
    for id_, cosine in {"a1": 0.9, "t0": 0.88, "t1": 0.88, "t2": 0.88}.items():
        found.vectors[at[id_], :2] = cosine, np.sqrt(1 - cosine**2)
    item = np.eye(found.vectors.shape[1])[:1]
    sure, unsure = (found.label(item, 0.05, least)[0] for least in (0.3, 0.5))
    assert (sure.path_ids, sure.stopped) == (["a", "a1"], "leaf")
    assert (unsure.path_ids, unsure.stopped) == (["t"], "uncertain_below")
    assert sure.probability < 0.5 < unsure.probability


def test_equal_leaves_are_decided_by_their_ids(root):
    rows = [node("r", None, "Things"), node("z", "r", "Mugs"), node("a", "r", "Mugs"), node("k", "r", "Pots")]
    assert label(root, "mugs", rows).category_id == "a"


def test_paths_do_not_depend_on_how_many_items_are_scored_together(root):
    found = tree(root)
    vectors = title_vectors(write_small_bundle(root), [f"lamp {n} kettle {n * 3}" for n in range(40)])
    assert found.label(vectors, SHARP, 0.3) == [found.label(v[None], SHARP, 0.3)[0] for v in vectors]


def test_a_node_without_a_vector_is_refused_by_name(root):
    bundle = write_small_bundle(root, poison="kettle")
    with pytest.raises(InputError, match="category_id 'h1', name 'Kettle'"):
        CategoryTree.build(taxonomy(), query_encoder(bundle))
