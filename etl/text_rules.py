"""The text normaliser as rules of the ``tokenizers`` library, so that a ``tokenizer.json`` carries it to any reader.

The library has its own tables of Unicode and no case folding: what they lack is a replacement each, found by comparison.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

from tokenizers import Regex, normalizers

from etl.errors import InputError
from etl.text import UNSEEN, Normaliser, is_dropped


def text_rules(normaliser: Normaliser) -> normalizers.Normalizer:
    """What :class:`etl.text.Normaliser` does, step by step, as one normaliser of the library.

    Equal for every text of assigned characters, but where combining marks younger than Unicode 9 stand in a row, which the
    library does not sort. .17 ms a title of 130 characters; our own loader leaves it out, see :mod:`etl.wordpiece`.

    Raises:
        InputError: the option ``simplified`` is on: it would take 5,119 more replacements.
    """
    if normaliser.simplified:
        raise InputError("Traditional to Simplified Chinese cannot be written as rules of a tokenizer.json")
    nfkc, lower = normalizers.NFKC(), normalizers.Lowercase()
    return normalizers.Sequence([
        normalizers.Replace(Regex(_any_of(map(chr, UNSEEN))), ""),
        *_differing((c for c in _assigned() if unicodedata.decomposition(c)), nfkc.normalize_str, _nfkc),
        nfkc,
        lower,
        *_differing((c for c in _assigned() if c.lower() == c == _nfkc(c)), str, lambda c: _nfkc(c.casefold())),
        normalizers.Replace(Regex("i\u0307+"), "i"),
        nfkc,
        normalizers.Replace(Regex(_any_of(filter(is_dropped, _assigned()))), " "),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ])  # fmt: skip


def _differing(chars: Iterable[str], theirs: Callable[[str], str], ours: Callable[[str], str]) -> list[normalizers.Replace]:
    """A replacement for each character that ``theirs`` would not make what ``ours`` does."""
    return [normalizers.Replace(char, ours(char)) for char in chars if theirs(char) != ours(char)]


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@lru_cache(maxsize=1)
def _assigned() -> tuple[str, ...]:
    """Every character that Unicode has assigned and UTF-8 can write: 282 thousand."""
    every = map(chr, range(sys.maxunicode + 1))
    return tuple(char for char in every if unicodedata.category(char) not in ("Cn", "Cs"))


def _any_of(chars: Iterable[str]) -> str:
    """A class of characters in a regular expression, neighbours as ranges."""
    points = sorted(map(ord, chars))
    starts = [p for p, before in zip(points, [-2, *points], strict=False) if p != before + 1]
    ends = [p for p, after in zip(points, [*points[1:], -2], strict=True) if p + 1 != after]
    return "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in zip(starts, ends, strict=True)) + "]"
