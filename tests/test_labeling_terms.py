from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etl.errors import InputError
from etl.text import normalise
from labeling.probability import FORMAT, Calibration, Curve
from labeling.term_search import Candidate, TermIndex
from labeling.terms import (
    LOW_PROBABILITY,
    TIE,
    ItemTerms,
    TermLabel,
    TermLabeller,
    TermSettings,
    passing,
)
from tests.labeling_data import query_encoder, title_vectors, uncalibrated, vocabulary, write_small_bundle
from tests.rows import term

SETTINGS = TermSettings(min_probability=0.3, max_gap=0.3, max_terms=5, max_similarity=0.9)
ALL = TermSettings(min_probability=0, max_gap=2, max_terms=10, max_similarity=2)


def labeller(root: Path, rows: list[dict] | None = None) -> TermLabeller:
    return TermLabeller(TermIndex.build(vocabulary(rows), query_encoder(write_small_bundle(root)), normalise))


def found(root: Path, title: str, rows: list[dict] | None = None, settings: TermSettings = SETTINGS) -> ItemTerms:
    vectors = title_vectors(write_small_bundle(root), [title])
    return labeller(root, rows).label(vectors, [title], uncalibrated(), settings)[0]


def labels(root: Path, title: str, rows: list[dict] | None = None, settings: TermSettings = SETTINGS) -> list[TermLabel]:
    return found(root, title, rows, settings).terms


def test_the_term_that_stands_in_the_title_comes_first_and_is_marked(root):
    first = labels(root, "steel kettle")[0]
    assert (first.rank, first.term_id, first.term, first.lexical_hit) == (1, "t2", "kettle", True)
    assert first.probability == first.score > 0.5


def test_a_synonym_counts_for_its_term_once(root):
    given = labels(root, "trainers running shoes sneakers")
    assert [label.term_id for label in given] == ["t1"]
    assert given[0].term == "sneakers"


def test_a_synonym_in_the_title_is_a_lexical_hit_up_to_a_plural_s(root):
    assert labels(root, "running shoe red")[0].lexical_hit


def test_a_title_of_two_things_gets_both_terms(root):
    assert {label.term_id for label in labels(root, "kettle dress")} == {"t2", "t3"}


def test_cut_and_gap_decide_how_many_candidates_pass():
    scores, probabilities = [0.9, 0.8, 0.7, 0.4], [0.9, 0.6, 0.4, 0.1]

    def count(**changes: float) -> int:
        return len(passing(scores, probabilities, replace(ALL, **changes)))

    assert [count(), count(min_probability=0.5), count(max_gap=0.25), count(min_probability=0.95)] == [4, 2, 3, 0]


def test_one_that_is_not_probable_enough_keeps_none_behind_it_from_passing_and_the_most_probable_come_first():
    assert passing([0.9, 0.8, 0.7, 0.6], [0.9, 0.1, 0.5, 0.6], replace(ALL, min_probability=0.3)) == [0, 3, 2]


def test_a_named_term_that_takes_the_place_of_a_nearer_one_is_given_though_another_stands_between(root):
    engine = labeller(root, [term("t1", "shoe"), term("t2", "sandal"), term("t3", "running shoe")])
    ranked = [Candidate(0, 0.6, 0.6, False), Candidate(1, 0.58, 0.58, False), Candidate(2, 0.55, 0.55, True)]
    fitted = curves([[0.0, 0.8], [1.0, 0.8]], [[0.0, 0.2], [1.0, 0.2]]).joint
    fitted = fitted._replace(further_named=Curve.of([[0.0, 0.6], [1.0, 0.6]]))
    given = engine._labels(ranked, fitted, replace(ALL, min_probability=0.3), {})
    assert [(label.term_id, label.margin) for label in given.terms] == [("t3", -0.03)]
    assert (given.reason, given.runner_up.term_id) == (None, "t2")


def test_at_most_so_many_terms_are_given(root):
    assert [len(labels(root, "kettle dress lamp", settings=replace(ALL, max_terms=n))) for n in (1, 2, 10)] == [1, 2, 4]


def test_nothing_probable_enough_gives_no_term_and_the_nearest_as_runner_up(root):
    given = found(root, "steel kettle", settings=replace(SETTINGS, min_probability=0.99))
    assert (given.terms, given.reason, given.runner_up) == ([], LOW_PROBABILITY, ("t2", "kettle"))


def test_margin_is_the_distance_to_the_runner_up(root):
    vector = title_vectors(write_small_bundle(root), ["steel kettle"])
    ranked = labeller(root).search.candidates(vector, [""])[0][0]
    given = found(root, "steel kettle", settings=replace(ALL, max_terms=1))
    assert given.terms[0].margin == pytest.approx(ranked[0].score - ranked[1].score)
    assert given.runner_up.term_id == f"t{ranked[1].term + 1}"


def test_there_is_no_runner_up_where_every_candidate_was_chosen(root):
    given = found(root, "kettle", settings=ALL)
    assert (len(given.terms), given.terms[0].margin, given.runner_up, given.reason) == (4, None, None, None)


SHOES = [term("t1", "shoes"), term("t2", "running shoes"), term("t3", "shoes running"), term("t4", "kettle")]


def test_a_wider_term_and_one_of_the_same_words_are_not_given_beside_a_narrower_one(root):
    given = found(root, "running shoes", SHOES, replace(ALL, max_similarity=0.9))
    assert [label.term_id for label in given.terms] == ["t2", "t4"]


def test_a_redundant_term_is_no_runner_up_and_takes_no_place_of_another(root):
    one = found(root, "running shoes kettle", SHOES, replace(ALL, max_terms=1, max_similarity=0.9))
    two = found(root, "running shoes kettle", SHOES, replace(ALL, max_terms=2, max_similarity=0.9))
    assert one.runner_up.term_id == "t4"
    assert [label.term_id for label in two.terms] == ["t2", "t4"]


def test_terms_whose_forms_are_nearer_than_the_setting_count_as_one(root):
    rows = [term("t1", "steel kettle"), term("t2", "kettle steel red"), term("t3", "dress")]
    kept = [[t.term_id for t in labels(root, "steel kettle", rows, replace(ALL, max_similarity=m))] for m in (0.5, 2)]
    assert kept == [["t1", "t3"], ["t1", "t2", "t3"]]


def test_of_two_terms_that_are_equally_near_none_is_given_unless_both_are(root):
    engine = labeller(root, [term("a", "kettle"), term("b", "dress")])
    middle = engine.index.vectors.astype(np.float64).sum(axis=0, keepdims=True)
    middle /= np.linalg.norm(middle)
    one, both = (engine.label(middle, [""], uncalibrated(), settings)[0] for settings in (replace(ALL, max_terms=1), ALL))
    assert (one.terms, one.reason, one.runner_up.term_id) == ([], TIE, "b")
    assert ([label.term_id for label in both.terms], both.reason) == (["a", "b"], None)


def test_equal_candidates_stand_in_the_order_of_their_ids(root):
    rows = [term("b", "bat"), term("a", "bat"), term("c", "ball")]
    vector = title_vectors(write_small_bundle(root), ["bat"])
    assert [found.term for found in labeller(root, rows).search.candidates(vector, [""])[0][0]] == [0, 1, 2]
    assert [label.term_id for label in labels(root, "bat", rows)] == ["a"]


def curves(first: list[list[float]], further: list[list[float]], languages: dict | None = None) -> Calibration:
    terms = {"calibrated": True, "first": {"knots": first}, "further": {"knots": further}, "languages": languages or {}}
    return Calibration.of({"format": FORMAT, "terms": terms}, "c1")


def test_the_best_candidate_and_the_others_have_their_own_curves():
    found = curves([[0.2, 0.1], [0.6, 0.9]], [[0.0, 0.0], [1.0, 0.2]]).joint
    np.testing.assert_allclose(found.probabilities(np.array([0.4, 0.3, 0.0])), [0.5, 0.06, 0.0])
    np.testing.assert_allclose(found.probabilities(np.array([0.9])), [0.9])


def test_no_candidate_is_more_probable_than_the_best():
    found = curves([[0.0, 0.1], [1.0, 0.1]], [[0.0, 0.0], [1.0, 0.9]]).joint
    np.testing.assert_allclose(found.probabilities(np.array([0.5, 0.5])), [0.1, 0.1])


def test_a_candidate_that_the_text_names_has_a_curve_of_its_own_where_one_is_stored():
    plain = curves([[0.0, 0.4], [1.0, 0.4]], [[0.0, 0.1], [1.0, 0.1]]).joint
    apart = plain._replace(further_named=Curve.of([[0.0, 0.3], [1.0, 0.3]]))
    named, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7])
    np.testing.assert_allclose(plain.probabilities(scores, named), [0.4, 0.1, 0.1])
    np.testing.assert_allclose(apart.probabilities(scores, named), [0.4, 0.1, 0.3])
    np.testing.assert_allclose(apart.probabilities(scores), [0.4, 0.1, 0.1])


def test_a_clicked_best_candidate_has_the_most_that_either_of_its_curves_gives():
    found = curves([[0.0, 0.1], [1.0, 0.6]], [[0.0, 0.0], [1.0, 0.1]]).joint
    found = found._replace(first_named=Curve.of([[0.0, 0.2], [1.0, 0.9]]))
    assert found.probabilities(np.array([0.5]), np.array([False]), np.array([1])).tolist() == [0.9]


def test_candidates_that_say_the_same_as_a_better_one_are_not_told_apart(root):
    engine = labeller(root, SHOES)
    (ranked,) = engine.search.candidates(title_vectors(write_small_bundle(root), ["running shoes"]), [""])
    kept = engine.distinct(ranked[0], 2)
    assert [found.term for found in kept] == [ranked[0][0].term, 3]


def test_a_language_has_its_own_curve_where_one_is_stored_and_the_joint_one_otherwise(root):
    own = {"chinese": {"first": {"knots": [[0.0, 0.7], [1.0, 0.7]]}, "further": {"curve": "joint"}}}
    calibration = curves([[0.0, 0.2], [1.0, 0.2]], [[0.0, 0.1], [1.0, 0.1]], own)
    engine, texts = labeller(root), ["连衣裙", "dress"]
    found = engine.label(title_vectors(write_small_bundle(root), texts), texts, calibration, replace(ALL, max_terms=2))
    assert [[label.probability for label in item.terms] for item in found] == [[0.7, 0.1], [0.2, 0.1]]


def test_a_calibration_of_another_format_is_refused_with_the_cure():
    with pytest.raises(InputError, match="format 2, this version reads 4: run `labeller calibrate"):
        Calibration.of({"format": 2, "terms": {"first": {"knots": [[0, 0], [1, 1]]}}}, "c1")


def test_a_form_without_a_vector_is_refused_by_name(root):
    bundle = write_small_bundle(root, poison="kettle")
    with pytest.raises(InputError, match="term_id 't2', form 'kettle'"):
        TermIndex.build(vocabulary(), query_encoder(bundle), normalise)


CALIBRATED = Calibration.of(
    {
        "format": FORMAT,
        "terms": {
            "calibrated": True,
            "first": {"knots": [[0, 0.1], [1, 0.9]]},
            "further": {"knots": [[0, 0.0], [1, 0.2]]},
        },
    }
)


def test_clicks_of_one_user_vouch_for_the_best_candidate_and_of_two_for_a_further_one(root):
    vectors = title_vectors(write_small_bundle(root), ["steel kettle"])
    none, one, two = (
        labeller(root).label(vectors, ["steel kettle"], CALIBRATED, replace(ALL, max_terms=2), [dict.fromkeys(range(4), n)])
        for n in (0, 1, 2)
    )
    best, further = ([item.terms[place].probability for (item,) in (none, one, two)] for place in (0, 1))
    assert best[0] < best[1] == best[2] == 0.9
    assert further[0] == further[1] < further[2] == pytest.approx(0.1 + 0.8 * two[0].terms[1].score, abs=1e-6)


def test_without_a_calibration_clicks_vouch_for_nothing(root):
    vectors = title_vectors(write_small_bundle(root), ["steel kettle"])
    found = labeller(root).label(vectors, ["steel kettle"], uncalibrated(), ALL, [{1: 9}])[0].terms[0]
    assert found.probability == found.score
