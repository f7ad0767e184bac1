"""The measures of stated probabilities against outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.reliability import Reliability, expected_calibration_error, reliability


def test_calibration_error_is_zero_for_frequencies_and_the_distance_otherwise():
    right = np.array([0.0, 1.0] * 150)
    assert expected_calibration_error(np.full(300, 0.5), right) == pytest.approx(0.0, abs=0.03)
    assert expected_calibration_error(np.full(300, 0.9), right) == pytest.approx(0.4, abs=0.03)


def test_a_constant_has_no_skill_and_a_sharp_probability_has():
    right = np.array([0.0, 1.0, 1.0, 1.0] * 100)
    assert reliability(np.full(400, 0.75), right)[1:] == (pytest.approx(0.0), 0.5)
    sharp = reliability(np.where(right == 1, 0.9, 0.3), right)
    assert sharp == Reliability(error=pytest.approx(0.15, abs=0.005), brier_skill=pytest.approx(0.84), auc=1.0)


def test_skill_and_auc_are_not_known_where_all_cases_are_alike():
    assert reliability(np.full(50, 0.9), np.ones(50)) == Reliability(pytest.approx(0.1), None, None)
