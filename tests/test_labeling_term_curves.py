from __future__ import annotations

import numpy as np
import pytest

from labeling.calibrate import CalibrateConfig
from labeling.clicked import Clicked
from labeling.probability import FORMAT, Calibration
from labeling.term_curves import Case, choose_weight, fit_terms, isotonic
from labeling.term_search import Candidate
from tests.rows import DS

SETTINGS = CalibrateConfig(root=".", ds=DS, min_cases=20, min_queries=4)


def item(query_id: int, held_out: set[int], trained: set[int] = frozenset()) -> Clicked:
    return Clicked("", "", frozenset(trained), frozenset(held_out), query_id)


def candidate(term: int, score: float, *, named: bool = False) -> Candidate:
    return Candidate(term, score, score, named)


Drawn = tuple[list[Clicked], list[list[Candidate]], list[str]]


def drawn(cases: int, queries: int = 40) -> Drawn:
    """Items whose best candidate is right with a probability equal to its score, and whose second never is."""
    rng = np.random.default_rng(0)
    scores = rng.random(cases).round(6)
    right = rng.random(cases) < scores
    items = [item(n % queries, {0} if hit else {1}) for n, hit in enumerate(right)]
    return items, [[candidate(0, score), candidate(2, score / 2)] for score in scores.tolist()], ["latin"] * cases


def test_the_curves_find_the_frequencies_behind_the_scores():
    content = fit_terms(*drawn(4_000), SETTINGS)
    fitted = Calibration.of({"format": FORMAT, "terms": content})
    assert fitted.terms_calibrated
    np.testing.assert_allclose(fitted.joint.first.at(np.array([0.2, 0.5, 0.8])), [0.2, 0.5, 0.8], atol=0.06)
    assert fitted.joint.further.at(np.array([0.0, 0.5])).max() < 0.01
    assert content["first"]["ece"] < 0.05
    assert content["first"]["ece_cases"] == 2_000


def test_the_curve_never_falls_and_never_claims_certainty():
    cases = [
        Case(True, False, score, right, 1, "")
        for score, right in zip((0.1, 0.2, 0.3, 0.4, 0.5), (0, 1, 0, 1, 1), strict=True)
    ]
    knots = np.array(isotonic(cases))
    assert (np.diff(knots[:, 1]) >= 0).all()
    assert knots[0, 1] > 0
    assert knots[-1, 1] < 1


def test_a_term_clicked_in_training_is_no_case():
    items, ranked, languages = drawn(100)
    before = fit_terms(items, ranked, languages, SETTINGS)
    trained = [item(one.query_id, set(one.held_out), trained={2}) for one in items[:60]] + items[60:]
    content = fit_terms(trained, ranked, languages, SETTINGS)
    assert content["first"]["knots"] == before["first"]["knots"]
    assert (before["further"]["cases"], content["further"]["cases"]) == (100, 40)


def with_named_further(items: int, right_if_named: float) -> Drawn:
    """The second candidate stands in every other text, and is right so often there, elsewhere in half of the cases."""
    rng = np.random.default_rng(1)
    named = np.arange(items) % 2 == 0
    right = rng.random(items) < np.where(named, right_if_named, 0.5)
    of = [item(n % 40 + n % 2 * 40, {0, 1} if hit else {0}) for n, hit in enumerate(right)]
    ranked = [[candidate(0, 0.9), candidate(1, 0.5, named=bool(stands))] for stands in named]
    return of, ranked, ["latin"] * items


def test_terms_that_the_text_names_get_a_curve_of_their_own_where_they_differ():
    content = fit_terms(*with_named_further(1_000, right_if_named=0.9), SETTINGS)
    found = Calibration.of({"format": FORMAT, "terms": content}).joint
    assert (content["further"]["cases"], content["further_named"]["cases"]) == (500, 500)
    stated = found.probabilities(np.array([0.9, 0.5, 0.5]), np.array([False, False, True]))
    np.testing.assert_allclose(stated[1:], [0.5, 0.9], atol=0.06)


def test_named_terms_share_the_curve_where_they_do_not_differ_or_are_too_few():
    assert "further_named" not in fit_terms(*with_named_further(1_000, right_if_named=0.5), SETTINGS)
    assert "further_named" not in fit_terms(*with_named_further(38, right_if_named=0.9), SETTINGS)


@pytest.mark.parametrize(("cases", "queries"), [(10, 40), (400, 3)])
def test_too_few_items_or_queries_leave_the_default_and_say_so(cases, queries):
    content = fit_terms(*drawn(cases, queries), SETTINGS)
    assert content["calibrated"] is False
    found = Calibration.of({"format": FORMAT, "terms": content})
    np.testing.assert_allclose(found.joint.probabilities(np.array([0.4, 0.2])), [0.4, 0.2])


def two_languages(own: int) -> Drawn:
    """2,000 Latin items whose best candidate is right as often as its score says, ``own`` Chinese ones: 1 - score."""
    items, ranked, _ = drawn(2_000 + own)
    turned = [item(i.query_id + 100, {1} if 0 in i.held_out else {0}) for i in items[2_000:]]
    return items[:2_000] + turned, ranked, ["latin"] * 2_000 + ["chinese"] * own


def test_a_language_that_differs_gets_its_own_curve_and_each_its_calibration_error():
    content = fit_terms(*two_languages(1_000), SETTINGS)
    found = Calibration.of({"format": FORMAT, "terms": content})
    assert {name: kinds["first"]["curve"] for name, kinds in content["languages"].items()} == {
        "chinese": "own",
        "latin": "own",
    }
    assert found.curves("红色 鞋").first.at(np.array([0.9])) < 0.6 < found.curves("red shoe").first.at(np.array([0.9]))
    assert found.curves("туфли") == found.joint
    assert content["languages"]["latin"]["first"]["ece"] < 0.08
    assert content["languages"]["latin"]["first"]["ece_cases"] == 1_000


def test_a_language_with_too_few_items_has_the_joint_curve_and_says_so():
    content = fit_terms(*two_languages(150), SETTINGS)
    chinese = content["languages"]["chinese"]["first"]
    assert (chinese["curve"], chinese["cases"], "knots" in chinese) == ("joint", 150, False)
    assert chinese["ece"] > 0.1


def test_a_language_whose_own_curve_is_no_nearer_to_the_clicks_has_the_joint_one():
    items, ranked, _ = drawn(2_000)
    content = fit_terms(items, ranked, ["latin"] * 1_750 + ["mixed"] * 250, SETTINGS)
    assert content["languages"]["mixed"]["first"]["curve"] == "joint"


def test_a_language_of_hardly_a_right_case_has_the_joint_curve():
    items, ranked, languages = two_languages(1_000)
    further = fit_terms(items, ranked, languages, SETTINGS)["languages"]["chinese"]["further"]
    assert (further["curve"], further["right"], further["cases"]) == ("joint", 0, 1_000)


def ranked(*firsts: int) -> list[list[Candidate]]:
    return [[candidate(first, 0.5)] for first in firsts]


def test_a_lexical_weight_is_taken_if_it_is_surely_better_on_held_out_items():
    items = [item(n, {0}) for n in range(40)]
    without, better, hardly = ranked(*[0, 1] * 20), ranked(*[0] * 38, 1, 1), ranked(*[0, 1] * 19, 0, 0)
    assert choose_weight(items, [without, better]) == (1, [0.5, 0.95])
    assert choose_weight(items, [without, hardly])[0] == 0
    assert choose_weight([], [[], []]) == (0, [0.0, 0.0])
