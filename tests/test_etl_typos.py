"""Queries with typos: what changes, what stays, and that it is the same every time."""

import random

import pytest

from etl.text import is_cjk, normalise, words
from etl.typos import TYPOS, misspelt


def distance(a: str, b: str) -> int:
    """Edits (insert, drop, replace, swap of neighbours) that turn ``a`` into ``b``, by the plain recursion."""
    rows = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            steps = [rows[i - 1, j] + 1, rows[i, j - 1] + 1, rows[i - 1, j - 1] + (a[i - 1] != b[j - 1])]
            if i > 1 and j > 1 and (a[i - 1], a[i - 2]) == (b[j - 2], b[j - 1]):
                steps.append(rows[i - 2, j - 2] + 1)
            rows[i, j] = min(steps)
    return rows[len(a), len(b)]


def drawn(alphabet: str, count: int, length: int) -> list[str]:
    rng = random.Random(1)
    return [normalise("".join(rng.choices(alphabet, k=length))) for _ in range(count)]


@pytest.mark.parametrize(
    ("letters", "typos"), [(2, 1), (3, 1), (5, 1), (6, 2), (8, 2), (9, TYPOS), (12, TYPOS), (40, TYPOS)]
)
def test_a_third_of_the_letters_at_least_one_and_at_most_three_are_mistyped(letters, typos):
    found = [distance(text, misspelt(text)) for text in drawn("abcdefgh", 100, letters)]
    assert min(found) >= 1
    assert sum(edits <= typos for edits in found) >= 0.96 * len(found)  # a swap after an insertion may count twice
    assert sum(edits == typos for edits in found) > 0.7 * len(found)


def test_the_same_query_gets_the_same_typos_and_another_gets_others():
    assert misspelt("stainless kettle") == misspelt("stainless kettle")
    assert len({misspelt(f"kettle {word}") for word in ("red", "blue", "black", "green")}) == 4


@pytest.mark.parametrize(("text", "most"), [("q", 0), ("3.5", 0), ("锅", 0), ("tv", 1), ("雨鞋", 1), ("mug", 1), ("a b", 1)])
def test_a_short_query_gets_fewer_typos_and_keeps_a_letter(text, most):
    found = misspelt(text)
    assert distance(text, found) <= most
    assert (found != text) == (most > 0)
    assert words(found)


def test_digits_and_punctuation_stay_in_order_and_spaces_between_words_do():
    for text in ("iphone 15 pro 256gb", "3/4 in. pipe, 10-pack", "90x200 床垫 褥子"):
        kept = [[c for c in found if not c.isalpha()] for found in (text, misspelt(text))]
        assert kept[0] == kept[1]


def test_what_comes_out_is_normalised_and_of_the_same_script():
    spaced = [f"{text[:2]} {text[2:]}" for text in drawn("红色连衣裙运动鞋女童", 100, 4)]
    for text in ("红色 跑鞋", *spaced, *drawn("abc kl ", 100, 12), *drawn("a ", 50, 7), "красные туфли", "운동화 여성용"):
        found = misspelt(text)
        assert normalise(found) == found
        assert any(map(is_cjk, text)) == any(map(is_cjk, found))


def test_a_chinese_query_of_four_characters_keeps_three():
    for text in drawn("红色连衣裙运动鞋女童", 100, 4):
        assert sum(min(text.count(char), misspelt(text).count(char)) for char in set(text)) >= 3


def test_a_chinese_character_is_mistaken_for_one_that_sounds_like_it():
    found = {misspelt(f"{other}鞋") for other in "雨布皮棉拖凉球童"}
    replaced = {text[1] for text in found if len(text) == 2 and "鞋" not in text}
    assert replaced
    assert replaced <= set("些歇蝎协挟携邪斜")  # xie, as 鞋
