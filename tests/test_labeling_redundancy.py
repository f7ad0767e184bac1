"""Which terms say no more than another one, by words and by vectors."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.redundancy import Relation, is_wider, relation, without_redundant

APART = Relation(wider=False, narrower=False, similarity=0.0)
WIDER, NARROWER = APART._replace(wider=True), APART._replace(narrower=True)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("shoe", "running shoe", True),
        ("running shoe", "trail running blue shoe", True),
        ("running shoe", "shoe", False),
        ("shoe", "shoe", False),
        ("bed", "bed sheet", False),
        ("blue shoe", "red running shoe", False),
        ("鞋", "跑 步 鞋", True),
        ("水 杯", "水 果 杯", False),
    ],
)
def test_a_term_is_wider_if_its_words_and_its_head_are_those_of_the_other(wide, narrow, expected):
    assert is_wider(wide.split(), narrow.split()) is expected


def test_terms_are_compared_by_all_of_their_forms():
    found = relation([["trainers"], ["shoes"]], [["running", "shoe"]], np.eye(2), np.array([[3.0, 4.0]]))
    assert found == Relation(wider=True, narrower=False, similarity=0.8)
    same = relation([["trainers"], ["shoes", "running"]], [["running", "shoe"]], np.eye(2), np.array([[1.0, 0.0]]))
    assert same == Relation(wider=False, narrower=False, similarity=1.0)


def kept(relations: dict[tuple[int, int], Relation], probabilities: list[float]) -> list[int]:
    terms = range(len(probabilities))
    return without_redundant(terms, probabilities, lambda a, b: relations.get((a, b), APART), 0.9)


def test_of_two_terms_that_are_near_the_first_stays():
    near = {(1, 0): APART._replace(similarity=0.9), (2, 0): APART._replace(similarity=0.89)}
    assert kept(near, [0.9, 0.8, 0.7]) == [0, 2]


def test_a_wider_term_after_a_narrower_one_is_dropped():
    assert kept({(1, 0): WIDER}, [0.5, 0.5]) == [0]


def test_a_narrower_term_takes_the_place_of_a_wider_one_if_it_is_about_as_probable():
    assert kept({(1, 0): NARROWER}, [0.9, 0.45, 0.4]) == [1, 2]
    assert kept({(1, 0): NARROWER}, [0.9, 0.44, 0.4]) == [0, 2]


def test_a_narrower_term_that_equals_another_given_one_leaves_the_wider_one():
    assert kept({(2, 0): NARROWER, (2, 1): APART._replace(similarity=1.0)}, [0.9, 0.9, 0.9]) == [0, 1]
