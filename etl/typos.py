"""Queries as hasty fingers type them: a random typo for every three letters, one to three in all, the same each time."""

from __future__ import annotations

import random
from functools import lru_cache

from etl.text import is_cjk, normalise

TYPOS = 3
"""The most that a query gets."""

LETTERS = 3
"""Letters that a query has for each of its typos: of 红色跑鞋 three typos would leave a single character."""

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_NEAR = 4  # places away in the order of pinyin: homophones, which an input method mixes up


def misspelt(text: str) -> str:
    """A normalised text with some letters inserted, dropped, replaced, or swapped with the next one; normalised again.

    Drawn by the text alone. A text of n letters gets n / LETTERS typos (rounded down, at least one, at most TYPOS), each at
    another letter; one of a single letter, or of none, stays as it is. Digits and punctuation stay, and spaces do, unless
    the word beside them is dropped. A Chinese character is replaced by a common one that sounds alike, and none is inserted;
    a letter of another alphabet is dropped or swapped only, or doubled.
    """
    draw = random.Random(text)
    letters = [place for place, char in enumerate(text) if char.isalpha()]
    if len(letters) < 2:
        return text
    count = min(max(len(letters) // LETTERS, 1), TYPOS)
    while True:  # two typos may undo each other
        changed = list(text)
        for place in sorted(draw.sample(letters, count), reverse=True):  # from the end: places before it stay
            _mistype(changed, place, draw)
        if (found := normalise("".join(changed))) != text:
            return found


def _mistype(text: list[str], place: int, draw: random.Random) -> None:
    """One typo at a letter, in place."""
    char = text[place]
    kinds = ["drop", "replace", "insert"]
    if is_cjk(char):
        kinds.remove("insert")
    if place + 1 < len(text) and text[place + 1].isalpha() and text[place + 1] != char:
        kinds.append("swap")
    match draw.choice(kinds):
        case "drop":
            text[place] = ""
        case "replace":
            text[place] = _other(char, draw)
        case "insert":
            text[place] = draw.choice(_LATIN if char in _LATIN else char) + char
        case "swap":
            text[place], text[place + 1] = text[place + 1], char


def _other(char: str, draw: random.Random) -> str:
    """Another letter in the place of ``char``; none where its alphabet is not known."""
    if char in _LATIN:
        return draw.choice(_LATIN.replace(char, ""))
    common = _common_characters()
    if (place := common.find(char)) >= 0:
        return draw.choice(common[max(place - _NEAR, 0) : place] + common[place + 1 : place + 1 + _NEAR])
    return draw.choice(common) if "\u4e00" <= char <= "\u9fff" else ""


@lru_cache(maxsize=1)
def _common_characters() -> str:
    """The 3,755 characters of GB 2312's first level, which stand in the order of their pinyin."""
    cells = (bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return "".join(cell.decode("gb2312", "ignore") for cell in cells)
