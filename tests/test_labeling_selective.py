"""The curve of risk by coverage, against a slow reference and values worked out by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from matplotlib.image import imread

from labeling.selective import POINTS, draw, risk_curve


def test_the_most_probable_items_are_answered_first():
    found = risk_curve([0.2, 0.9, 0.6, 0.8], [False, True, False, True])
    assert found.coverage == [0.25, 0.5, 0.75, 1.0]
    assert found.risk == pytest.approx([0, 0, 1 / 3, 1 / 2], abs=1e-6)
    assert found.area == pytest.approx((1 / 3 + 1 / 2) / 4, abs=1e-6)


def test_equal_probabilities_have_the_mean_risk_over_their_orders():
    right = [True, False, False, True, True]
    orders = [[bool(right[i]) for i in order] for order in permutations(range(5))]
    risks = np.mean([np.cumsum(~np.array(order)) / np.arange(1, 6) for order in orders], axis=0)
    found = risk_curve([0.5] * 5, right)
    assert found.risk == pytest.approx(risks, abs=1e-6)
    assert found.area == pytest.approx(risks.mean(), abs=1e-6)


def test_the_curve_does_not_depend_on_the_order_of_the_items():
    rng = np.random.default_rng(0)
    stated, right = rng.integers(8, size=300) / 8, rng.random(300) < 0.6
    shuffled = rng.permutation(300)
    assert risk_curve(stated, right) == risk_curve(stated[shuffled], right[shuffled])


def test_probabilities_that_say_nothing_leave_the_risk_of_all_items_at_every_coverage():
    found = risk_curve([0.4] * 1_000, [True, False] * 500)
    assert found.risk == pytest.approx([0.5] * POINTS)
    assert found.area == pytest.approx(0.5)


def test_errors_that_are_known_to_be_improbable_make_the_area_smaller():
    right = np.arange(1_000) < 800
    known, unknown = risk_curve(np.linspace(1, 0, 1_000), right), risk_curve(np.linspace(0, 1, 1_000), right)
    assert known.area < 0.05 < 0.2 < unknown.area
    assert known.at(0.8) == 0.0
    assert known.at(1.0) == unknown.at(1.0) == pytest.approx(0.2)


def test_a_long_curve_keeps_a_point_for_each_percent_and_the_area_of_all_items():
    stated = np.linspace(1, 0, 20_000)
    found = risk_curve(stated, stated > 0.5)
    assert len(found.coverage) == POINTS
    assert found.coverage[-1] == 1.0
    assert found.area == pytest.approx(
        (np.clip(np.arange(1, 20_001) - 10_000, 0, None) / np.arange(1, 20_001)).mean(), abs=1e-4
    )


@pytest.mark.parametrize(
    ("stated", "right"), [([], []), ([0.5], [True, False]), ([float("nan")], [True]), ([[0.5]], [[True]])]
)
def test_items_without_a_probability_or_an_outcome_are_refused(stated, right):
    with pytest.raises(ValueError, match="give 0 where there is no answer"):
        risk_curve(stated, right)


def test_the_picture_shows_a_line_for_each_curve(tmp_path):
    curve = risk_curve(np.linspace(1, 0, 50), np.arange(50) < 30)
    draw({"one": curve}, tmp_path / "one.png", "Categories")
    draw({"one": curve, "two": risk_curve([0.5] * 4, [True, False] * 2)}, tmp_path / "two.png", "Categories")
    one, two = imread(tmp_path / "one.png"), imread(tmp_path / "two.png")
    assert one.shape == two.shape == (480, 720, 4)
    assert not np.array_equal(one, two)
