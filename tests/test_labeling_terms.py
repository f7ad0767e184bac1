from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etl.errors import InputError
from etl.text import normalise
from labeling.probability import FORMAT, Calibration
from labeling.terms import CANDIDATES, TermIndex, TermLabel, TermSearch, TermSettings, count_terms
from tests.labeling_data import query_encoder, title_vectors, uncalibrated, vocabulary, write_small_bundle
from tests.rows import term

SETTINGS = TermSettings(min_probability=0.3, max_gap=0.3, max_terms=5)


def search(root: Path, rows: list[dict] | None = None) -> TermSearch:
    return TermSearch(TermIndex.build(vocabulary(rows), query_encoder(write_small_bundle(root)), normalise))


def labels(root: Path, title: str, rows: list[dict] | None = None, settings: TermSettings = SETTINGS) -> list[TermLabel]:
    vectors = title_vectors(write_small_bundle(root), [title])
    return search(root, rows).label(vectors, [title], uncalibrated(), settings)[0]


def test_the_term_that_stands_in_the_title_comes_first_and_is_marked(root):
    first = labels(root, "steel kettle")[0]
    assert (first.rank, first.term_id, first.term, first.lexical_hit) == (1, "t2", "kettle", True)
    assert first.probability == first.score > 0.5


def test_a_synonym_counts_for_its_term_once(root):
    found = labels(root, "trainers running shoes sneakers")
    assert [label.term_id for label in found] == ["t1"]
    assert found[0].term == "sneakers"


def test_a_synonym_in_the_title_is_a_lexical_hit_up_to_a_plural_s(root):
    assert labels(root, "running shoe red")[0].lexical_hit


def test_a_title_of_two_things_gets_both_terms(root):
    assert {label.term_id for label in labels(root, "kettle dress")} == {"t2", "t3"}


def test_the_number_of_terms_follows_cut_gap_and_maximum():
    scores, probabilities = [0.9, 0.8, 0.7, 0.4], [0.9, 0.6, 0.4, 0.1]

    def count(**changes: float) -> int:
        settings = {"min_probability": 0.0, "max_gap": 2.0, "max_terms": 9} | changes
        return count_terms(scores, probabilities, TermSettings(**settings))

    assert [count(), count(min_probability=0.5), count(max_gap=0.25), count(max_terms=1)] == [4, 2, 3, 1]
    assert count(min_probability=0.95) == 0


def test_nothing_probable_enough_gives_no_term(root):
    assert labels(root, "quartz wristwatch", settings=TermSettings(min_probability=0.9, max_gap=0.1, max_terms=5)) == []


def test_margin_is_the_distance_to_the_best_term_that_was_not_chosen(root):
    engine = search(root)
    vector = title_vectors(write_small_bundle(root), ["steel kettle"])
    ranked = engine.candidates(vector)[0]
    found = engine.label(vector, ["steel kettle"], uncalibrated(), TermSettings(min_probability=0, max_gap=2, max_terms=1))[
        0
    ]
    assert found[0].margin == pytest.approx(ranked[0][1] - ranked[1][1])


def test_margin_is_missing_where_every_candidate_was_chosen(root):
    found = labels(root, "kettle", settings=TermSettings(min_probability=0, max_gap=2, max_terms=9))
    assert len(found) == 4
    assert found[0].margin is None


def test_equal_terms_stand_in_the_order_of_their_ids(root):
    rows = [term("b", "bat"), term("a", "bat"), term("c", "ball")]
    assert [label.term_id for label in labels(root, "bat", rows)][:2] == ["a", "b"]


def test_exact_search_finds_what_a_full_scan_over_all_forms_finds(root):
    names = [
        f"{a} {b}" for a in ("red", "blue", "steel", "wool") for b in ("kettle", "dress", "lamp", "mat", "drill", "sofa")
    ]
    rows = [term(f"t{n:02}", name, synonyms=[f"{name} set", f"{name} large"]) for n, name in enumerate(names)]
    bundle = write_small_bundle(root)
    engine = search(root, rows)
    vectors = title_vectors(bundle, ["red kettle x9", "wool mat 120 cm", "steel drill set"])
    scores = (vectors @ engine.index.vectors.astype(np.float64).T).round(6)
    for item, found in enumerate(engine.candidates(vectors)):
        best = [scores[item, engine.index.form_terms == t].max() for t in range(len(rows))]
        order = sorted(range(len(rows)), key=lambda t: (-best[t], t))[:CANDIDATES]
        assert [t for t, _ in found] == order


def test_scores_do_not_depend_on_how_many_items_are_scored_together(root):
    engine = search(root)
    vectors = title_vectors(write_small_bundle(root), [f"kettle {n} dress {n * 7} lamp" for n in range(300)])
    together = engine.candidates(vectors)
    assert together == [engine.candidates(vector[None])[0] for vector in vectors]


def curves(first: list[list[float]], further: list[list[float]]) -> Calibration:
    terms = {"calibrated": True, "first": {"knots": first}, "further": {"knots": further}}
    return Calibration.of({"format": FORMAT, "terms": terms}, "c1")


def test_the_best_candidate_and_the_others_have_their_own_curves():
    found = curves([[0.2, 0.1], [0.6, 0.9]], [[0.0, 0.0], [1.0, 0.2]])
    np.testing.assert_allclose(found.probabilities(np.array([0.4, 0.3, 0.0])), [0.5, 0.06, 0.0])
    np.testing.assert_allclose(found.probabilities(np.array([0.9])), [0.9])


def test_no_candidate_is_more_probable_than_the_best():
    found = curves([[0.0, 0.1], [1.0, 0.1]], [[0.0, 0.0], [1.0, 0.9]])
    np.testing.assert_allclose(found.probabilities(np.array([0.5, 0.5])), [0.1, 0.1])


def test_a_calibration_of_another_format_is_refused_with_the_cure():
    with pytest.raises(InputError, match="format 1, this version reads 2: run `labeller calibrate"):
        Calibration.of({"format": 1, "terms": {"knots": [[0, 0], [1, 1]]}}, "c1")


def test_a_form_without_a_vector_is_refused_by_name(root):
    bundle = write_small_bundle(root, poison="kettle")
    with pytest.raises(InputError, match="term_id 't2', form 'kettle'"):
        TermIndex.build(vocabulary(), query_encoder(bundle), normalise)
