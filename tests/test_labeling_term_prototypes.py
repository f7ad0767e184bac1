from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etl.contracts import CATALOGUE, PAIRS
from etl.errors import EXIT_OK, InputError
from etl.text import normalise
from labeling import calibrate
from labeling.clicked_titles import title_sums
from labeling.probability import FORMAT
from labeling.scoring import term_index
from labeling.term_prototypes import TermPrototypes
from labeling.terms import TermLabeller
from model.bundle import Bundle, add_calibration, load_bundle
from tests.labeling_data import pair, title_vectors, vocabulary, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down, small_warehouse

ZOOM, JET = "zoom 39 black", "jet 12 red"
"""Titles that no term stands in."""


def best(bundle: Bundle, title: str) -> str:
    labeller = TermLabeller(term_index(bundle, vocabulary(), TermPrototypes.of(bundle)))
    (ranked,) = labeller.search.candidates(title_vectors(bundle, [title]), [normalise(title)])
    return labeller.index.term_ids[ranked[0][0].term]


def with_prototypes(root: Path) -> Bundle:
    """A bundle whose calibration has ZOOM among what was clicked for sneakers, and JET for kettle."""
    bundle = write_small_bundle(root)
    zoom, jet = title_vectors(bundle, [ZOOM, JET])
    stored = TermPrototypes.build(bundle, {"sneakers": zoom, "kettle": jet}, prior=1.0).store(bundle)
    add_calibration(bundle.path, {"format": FORMAT, "files": dict([stored])})
    return load_bundle(bundle.path)


def test_a_title_like_one_that_was_clicked_for_a_term_gets_the_term_that_it_does_not_say(root):
    bundle = with_prototypes(root)
    assert (best(bundle, "zoom 39 white"), best(bundle, "jet 12 blue")) == ("t1", "t2")
    assert (best(bundle, "steel kettle"), best(bundle, "trainers")) == ("t2", "t1")


def test_only_clicked_forms_are_moved_and_what_terms_say_is_told_by_their_names(root):
    bundle = with_prototypes(root)
    index = term_index(bundle, vocabulary(), TermPrototypes.of(bundle))
    moved = np.abs(index.vectors - index.names).max(axis=1) > 0.01
    assert moved.tolist() == [form in (("sneakers",), ("kettle",)) for form in index.form_words]
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize("broken", ["missing", "changed", "elsewhere"])
def test_a_bundle_without_the_prototypes_that_its_calibration_was_fitted_with_is_refused(root, broken):
    bundle = with_prototypes(root)
    ((name, sha256),) = bundle.calibration["files"].items()
    file = bundle.path / name
    if broken == "missing":
        file.unlink()
    elif broken == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        file.rename(bundle.path.parent / name)
        add_calibration(bundle.path, {"format": FORMAT, "files": {f"../{name}": sha256}})
    with pytest.raises(InputError, match=rf"{name} is missing, or not the one .*calibrate --bundle {bundle.id}"):
        load_bundle(bundle.path)


@pytest.fixture
def shop(spark, root: Path) -> Path:
    """Sneakers were clicked for four texts of five items; dress for a held-out one; what nobody typed is no form."""
    small_warehouse(spark, root)
    rows = [
        pair("sneakers", "i1", ZOOM),
        pair("sneakers", "i2", ZOOM.upper()),
        pair("sneakers", "i3", "runner blue"),
        pair("sneakers", "i6", "court 7 white"),
        pair("sneakers", "i7", "trail 5 grey"),
        pair("dress", "i4", "flower long", split="item"),
        pair("gift", "i1", ZOOM),
        pair("kettle", "i5", ""),
    ]
    lay_down(spark, root, CATALOGUE, [item(i, t) for i, t in {r["item_id"]: r["title"] for r in rows}.items()])
    write_pairs(spark, root, rows)
    return root


def sums(spark, root: Path, bundle: Bundle, most: int = 32, partitions: int = 2) -> dict[str, np.ndarray]:
    pairs = spark.read.format("delta").load(str(root / PAIRS.name)).repartition(partitions)
    catalogue = spark.read.parquet(str(root / CATALOGUE.name)).selectExpr("item_id", "title", "title as text")
    return title_sums(pairs, catalogue, ["sneakers", "dress", "kettle"], bundle, most)


def test_titles_clicked_in_training_are_summed_by_form_each_text_once(spark, shop):
    bundle = write_small_bundle(shop)
    found = sums(spark, shop, bundle)
    assert set(found) == {"sneakers"}
    expected = title_vectors(bundle, [ZOOM, "runner blue", "court 7 white", "trail 5 grey"]).sum(axis=0)
    np.testing.assert_allclose(found["sneakers"], expected, rtol=1e-12)
    one = sums(spark, shop, bundle, most=1)["sneakers"]
    assert np.linalg.norm(one) == pytest.approx(1.0)


def test_sums_have_the_same_bits_at_any_partitioning(spark, shop):
    bundle = write_small_bundle(shop)
    one, many = (sums(spark, shop, bundle, partitions=n)["sneakers"] for n in (1, 7))
    assert one.tobytes() == many.tobytes()


@pytest.mark.slow
def test_calibrate_lays_them_into_the_bundle_and_takes_them_away_again(spark, shop):
    path = write_small_bundle(shop).path
    argv = ["--root", str(shop), "--ds", str(DS)]
    assert calibrate.main(argv) == EXIT_OK
    assert TermPrototypes.of(load_bundle(path)).forms == ("sneakers",)
    assert calibrate.main([*argv, "--clicked-titles", "0"]) == EXIT_OK
    assert TermPrototypes.of(load_bundle(path)) is None
    assert calibrate.main([*argv, "--clicked-titles", "0"]) == EXIT_OK  # the one before is kept once
    assert not list(path.glob("term_prototypes*"))
