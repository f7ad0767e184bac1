"""Measures of category paths, against values worked out by hand."""

from __future__ import annotations

import pytest

from labeling.hierarchical import HierarchicalScores, accuracy_by_level, hierarchical_scores, holds, path_accuracy

LAMP, TABLE_LAMP, KETTLE = ["h", "h2"], ["h", "h2", "h21"], ["h", "h1"]


def test_paths_are_compared_as_sets_of_nodes_over_all_items():
    found = hierarchical_scores([TABLE_LAMP, KETTLE], [LAMP, ["h", "h2"]])
    assert found == HierarchicalScores(precision=3 / 4, recall=3 / 5, f1=pytest.approx(2 / 3))


def test_an_item_without_a_category_costs_recall_and_no_precision():
    assert hierarchical_scores([LAMP, LAMP], [LAMP, []]) == HierarchicalScores(1.0, 0.5, pytest.approx(2 / 3))


def test_all_items_count_the_same_nodes_whatever_their_order():
    true, predicted = [TABLE_LAMP, KETTLE, LAMP], [KETTLE, KETTLE, TABLE_LAMP]
    assert hierarchical_scores(true, predicted) == hierarchical_scores(true[::-1], predicted[::-1])


def test_a_node_of_the_same_name_under_another_parent_is_another_node():
    found = hierarchical_scores([["women", "shoes", "boots"]], [["men", "shoes", "boots"]])
    assert found == HierarchicalScores(0.0, 0.0, 0.0)


def test_nothing_predicted_has_no_precision_and_no_truth_no_recall():
    assert hierarchical_scores([LAMP], [[]]) == HierarchicalScores(None, 0.0, 0.0)
    assert hierarchical_scores([[]], [LAMP]) == HierarchicalScores(0.0, None, 0.0)
    assert hierarchical_scores([], []) == HierarchicalScores(None, None, 0.0)


def test_each_level_counts_only_items_whose_true_path_reaches_it():
    found = accuracy_by_level([TABLE_LAMP, KETTLE, ["f"]], [["h", "h2", "h22"], ["h"], ["h"]])
    assert found == [(3, pytest.approx(2 / 3)), (2, 0.5), (1, 0.0)]
    assert accuracy_by_level([], []) == []


def test_the_right_node_below_a_wrong_one_is_wrong():
    assert accuracy_by_level([["w", "s"]], [["m", "s"]]) == [(1, 0.0), (1, 0.0)]


def test_only_the_whole_path_counts_as_the_path():
    assert path_accuracy([TABLE_LAMP] * 4, [TABLE_LAMP, LAMP, [*TABLE_LAMP, "h211"], []]) == 0.25
    assert path_accuracy([], []) is None


def test_a_path_that_stops_early_holds_and_one_that_goes_too_far_does_not():
    assert holds(TABLE_LAMP, LAMP)
    assert holds(TABLE_LAMP, TABLE_LAMP)
    assert not holds(LAMP, TABLE_LAMP)
    assert not holds(LAMP, [])


@pytest.mark.parametrize("measure", [hierarchical_scores, accuracy_by_level, path_accuracy])
def test_as_many_predicted_paths_as_true_ones_are_needed(measure):
    with pytest.raises(ValueError, match="shorter"):
        measure([LAMP, LAMP], [LAMP])
