"""Prototypes: what examples do to the nodes' vectors, and that no text vouches for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labeling.categories import CategoryTree
from labeling.few_shot import Prototypes, Shots
from labeling.prompts import node_vectors
from labeling.vectors import unit
from tests.labeling_data import NODES, query_encoder, taxonomy, title_vectors, write_small_bundle
from tests.rows import node

SHARP = 0.05
WAYS = [["r", "a", "a1"], ["r", "a", "a2"], ["r", "b"]]
IDS = ("r", "a", "b", "a1", "a2")


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    """Random unit vectors, float64 [rows, 6]."""
    return unit(np.random.default_rng(seed).standard_normal((rows, 6)))


def small_tree(root: Path, shots: Shots | None, rows: list[dict] = NODES) -> CategoryTree:
    return CategoryTree.build(taxonomy(rows), query_encoder(write_small_bundle(root)), shots)


def shots_of(root: Path, prior: float, **titles: list[str]) -> Shots:
    """Category id -> titles that are examples of it."""
    bundle = write_small_bundle(root)
    return Shots(prior, {id_: title_vectors(bundle, found).sum(axis=0) for id_, found in titles.items()})


def test_a_leaf_is_the_mean_of_its_examples_and_its_prompts_that_count_as_often_as_said():
    own, examples = drawn(3), drawn(3, seed=1)
    found = Prototypes.build(WAYS, own, Shots(2.0, {"b": examples.sum(axis=0)}))
    np.testing.assert_allclose(found.vectors[2], unit(2 * own[2] + examples[0] + examples[1] + examples[2]))
    np.testing.assert_allclose(found.vectors[:2], unit(own[:2]))


def test_an_example_of_an_inner_node_counts_for_every_leaf_below_it():
    own, examples = drawn(3), drawn(2, seed=1)
    found = Prototypes.build(WAYS, own, Shots(1.0, {"a": examples[0], "a1": examples[1]}))
    np.testing.assert_allclose(found.vectors[0], unit(own[0] + examples[0] + examples[1]))
    np.testing.assert_allclose(found.vectors[1], unit(own[1] + examples[0]))
    np.testing.assert_allclose(found.vectors[2], own[2])


def test_without_examples_the_vectors_are_those_of_the_prompts_alone(root):
    zero, none = small_tree(root, None), small_tree(root, Shots(16.0, {}))
    np.testing.assert_allclose(none.vectors, zero.vectors, atol=1e-7)
    assert zero.prototypes is None


@pytest.mark.parametrize("place", range(5))
def test_leaving_an_example_out_gives_the_tree_that_never_had_it(place):
    own, examples = drawn(3), drawn(10, seed=2)
    every = {id_: examples[2 * n] + examples[2 * n + 1] for n, id_ in enumerate(IDS)}
    never = every | {IDS[place]: examples[2 * place + 1]}
    expected = Prototypes.build(WAYS, own, Shots(1.5, never)).vectors
    whole = Prototypes.build(WAYS, own, Shots(1.5, every))
    places, vectors = whole.without(IDS[place], examples[2 * place])
    assert places == [leaf for leaf, way in enumerate(WAYS) if IDS[place] in way]
    np.testing.assert_allclose(vectors, expected[places])
    rest = np.setdiff1d(np.arange(3), places)
    np.testing.assert_allclose(whole.vectors[rest], expected[rest])


def test_an_example_teaches_what_no_name_says(root):
    title, alike = "xenq 40 chrome", "xenq 55 chrome"
    vectors = title_vectors(write_small_bundle(root), [title])
    taught = small_tree(root, shots_of(root, 1.0, h22=[alike]))
    assert taught.label(vectors, SHARP, 0.0)[0].category_id == "h22"
    taught = small_tree(root, shots_of(root, 0.5, f2=[alike]))
    assert taught.label(vectors, SHARP, 0.0)[0].category_id == "f2"


def test_a_text_that_is_its_nodes_only_example_is_labelled_as_without_examples(root):
    title = "xenq 40 chrome"
    vectors = title_vectors(write_small_bundle(root), [title])
    zero = small_tree(root, None).label(vectors, SHARP, 0.0)[0]
    assert zero.category_id != "f2"
    taught = small_tree(root, shots_of(root, 1.0, f2=[title]))
    assert taught.label(vectors, SHARP, 0.0)[0].category_id == "f2"  # as anybody else's title
    assert taught.label(vectors, SHARP, 0.0, ["f2"])[0] == zero


def test_a_wrong_example_moves_nothing_but_what_is_near_it(root):
    rows = [*NODES, node("s", None, "Sofas")]
    shots = shots_of(root, 1.0, s=["corner sofa grey", "steel kettle"])
    vectors = title_vectors(write_small_bundle(root), ["brass table lamp", "corner sofa"])
    found = small_tree(root, shots, rows).label(vectors, SHARP, 0.0)
    assert [one.category_id for one in found] == ["h21", "s"]


def test_paths_do_not_depend_on_how_many_items_are_scored_together(root):
    titles = [f"lamp {n} kettle {n * 3}" for n in range(40)]
    vectors = title_vectors(write_small_bundle(root), titles)
    tree = small_tree(root, shots_of(root, 2.0, h1=titles[:9], h=titles[9:12], f1=titles[12:15]))
    example_of = ["h1"] * 9 + ["h"] * 3 + ["f1"] * 3 + [None] * 25
    together = tree.label(vectors, SHARP, 0.3, example_of)
    assert together == [tree.label(v[None], SHARP, 0.3, [of])[0] for v, of in zip(vectors, example_of, strict=True)]


def test_a_node_s_vector_is_the_mean_of_its_prompts(root):
    encode = query_encoder(write_small_bundle(root))
    prompts = encode(["Table lamp", "Lamps Table lamp", "Home > Lamps > Table lamp"]).astype(np.float64)
    np.testing.assert_allclose(node_vectors(taxonomy(), ["h21"], encode)[0], unit(prompts.mean(axis=0)))
