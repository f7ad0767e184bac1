"""The estimate that judged samples give: without bias, and with an interval that keeps its promise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from labeling.annotation_sample import allocation
from labeling.stratified import Share, stratified_share

SIZES = {"sure": 4_000, "doubtful": 800, "rare": 60, "single": 1}
RIGHT = {"sure": 0.97, "doubtful": 0.55, "rare": 0.3, "single": 1.0}
TRUTH = sum(RIGHT[name] * n for name, n in SIZES.items()) / sum(SIZES.values())


def samples(repeats: int, share_judged: float = 1.0) -> Iterator[Share]:
    """Estimates of one population, each by a fresh sample as it would be drawn; a judge may stop half-way."""
    rng = np.random.default_rng(7)
    draws = allocation(SIZES, 200, 2)
    population = {name: np.arange(n) < round(RIGHT[name] * n) for name, n in SIZES.items()}
    for _ in range(repeats):
        drawn = {name: rng.choice(population[name], draws[name], replace=False) for name in SIZES}
        judged: dict[str, Sequence[bool]] = {
            name: list(d[: max(1, int(len(d) * share_judged))]) for name, d in drawn.items()
        }
        found = stratified_share(judged, SIZES)
        assert found is not None
        yield found


@pytest.mark.parametrize("share_judged", [1.0, 0.5])
def test_the_mean_of_many_estimates_is_the_truth(share_judged: float):
    values = [found.value for found in samples(2_000, share_judged)]
    assert abs(np.mean(values) - TRUTH) < 4 * np.std(values) / np.sqrt(len(values))


def test_an_unweighted_mean_of_the_same_sample_would_be_off():
    draws = allocation(SIZES, 200, 2)
    plain = sum(draws[name] * RIGHT[name] for name in SIZES) / sum(draws.values())
    assert abs(plain - TRUTH) > 0.001


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = [found.low <= TRUTH <= found.high for found in samples(2_000)]
    assert 0.94 <= np.mean(held) <= 0.99


def test_the_interval_is_of_use_with_two_hundred_judged():
    assert np.mean([found.high - found.low for found in samples(200)]) < 0.12


def test_a_share_of_all_or_nothing_has_an_interval_too():
    ends = [stratified_share({"a": [outcome] * 50}, {"a": 10_000}) for outcome in (True, False)]
    assert [found and (found.value, found.low > 0.92, found.high < 0.08) for found in ends] == [
        (1.0, True, False),
        (0.0, False, True),
    ]


def test_all_items_judged_leave_no_doubt():
    found = stratified_share({"a": [True, True, False]}, {"a": 3})
    assert found == Share(2 / 3, 2 / 3, 2 / 3, 3, 1.0)


def test_strata_that_nobody_judged_are_left_out_and_said():
    found = stratified_share({"a": [True, False], "b": []}, {"a": 300, "b": 100})
    assert found is not None
    assert (found.value, found.judged, found.covered) == (0.5, 2, 0.75)
    assert stratified_share({"a": []}, {"a": 3}) is None


def test_every_stratum_gets_its_share_at_least_two_and_at_most_all():
    assert allocation(SIZES, 200, 2) == {"sure": 165, "doubtful": 33, "rare": 2, "single": 1}
    assert set(allocation(SIZES, 0, 2).values()) == {0}
