"""Which texts say too little, or are in a script that training has not seen."""

from __future__ import annotations

import pytest

from etl.text import normalise, script_of
from labeling.abstention import LANGUAGE_NOT_COVERED, TOO_SHORT, Readable
from labeling.scoring import Scorer, ScoringSettings
from tests.labeling_data import METRICS, taxonomy, title_vectors, vocabulary, write_small_bundle

SETTINGS = ScoringSettings(
    min_probability=0, max_gap=2, max_terms=5, max_similarity=0.9, min_step_probability=0, min_letters=2
)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Air Zoom 39", "latin"),
        ("Nike 跑步鞋运动", "cjk"),
        ("Nike кроссовки", "cyrillic"),
        ("12 / 39", ""),
        ("ＡＢ 39", "latin"),
        ("ab вг", "cyrillic"),
    ],
)
def test_the_script_of_a_text_is_that_of_most_of_its_letters(text, script):
    assert script_of(normalise(text)) == script


@pytest.mark.parametrize(
    ("text", "reason"), [("12345 6", TOO_SHORT), ("x 120", TOO_SHORT), ("tv", None), ("鞋", None), ("é1", TOO_SHORT)]
)
def test_a_text_of_too_few_letters_is_too_short_and_a_chinese_character_counts_as_two(text, reason):
    assert Readable(2, None).reason(text) == reason


def test_no_text_is_too_short_where_the_setting_is_zero():
    assert Readable(0, None).reason("12345") is None


def readable(root, scripts: dict[str, int]) -> Readable:
    return Readable.of(write_small_bundle(root, metrics=METRICS | {"scripts": scripts}), 2)


def test_a_script_in_which_training_saw_no_title_is_not_covered(root):
    found = readable(root, {"latin": 5_000, "cjk": 300, "cyrillic": 5})
    texts = ["steel kettle", "水壶", "чайник", "dell чай", "dell чайник"]
    assert [found.reason(text) for text in texts] == [None, None, LANGUAGE_NOT_COVERED, None, LANGUAGE_NOT_COVERED]


def test_a_bundle_that_does_not_know_what_it_saw_covers_every_script(root):
    assert Readable.of(write_small_bundle(root), 2).reason("чайник") is None


def test_an_item_that_cannot_be_read_gets_neither_term_nor_category_and_the_reason(root):
    bundle = write_small_bundle(root, metrics=METRICS | {"scripts": {"latin": 10}})
    scorer = Scorer.build(bundle, vocabulary(), taxonomy(), SETTINGS)
    texts = ["steel kettle", "чайник", "39"]
    found = scorer.label(scorer.labeller(), title_vectors(bundle, texts), texts)
    assert [labels.terms.reason for labels in found] == [None, LANGUAGE_NOT_COVERED, TOO_SHORT]
    assert [labels.category.stopped for labels in found] == ["leaf", LANGUAGE_NOT_COVERED, TOO_SHORT]
    assert found[1].terms.terms == found[1].category.path == []
