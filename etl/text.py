"""The one normaliser and word splitter for queries, titles and terms, in training and in labelling."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# Han, kana and hangul are written without spaces: there a character is a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
# Vowel signs and points belong to the letter before them (हिन्दी, ที่นอน), but \w lacks them. Above U+1F000 there are only
# variation selectors, which are no part of a normalised text; the search takes 0.01 s.
_MARKS = "".join(char for char in map(chr, range(0x300, 0x1F000)) if unicodedata.category(char)[0] == "M")
_LETTERS = rf"[^\W\d_{_CJK}]+"
_WORD = re.compile(rf"[{_CJK}]|{_LETTERS}(?:[{_MARKS}]+(?:{_LETTERS})?)*|\d+(?:[.,/]\d+)*")
_ASCII_WORD = re.compile(r"[A-Za-z]+|\d+(?:[.,/]\d+)*", re.ASCII)  # the same of such a text, in a quarter of the time
_IS_CJK = re.compile(rf"[{_CJK}]").match
_SPACE = re.compile(r"\s+")
_DOTTED_I = re.compile("i\u0307+")
# Seen by nobody and parting nothing: soft hyphen, joiners, byte order mark, keycaps, variation selectors.
UNSEEN = dict.fromkeys(
    [0xAD, 0x34F, 0x200D, 0x2060, 0x20E3, 0xFEFF, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
)


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Unicode NFKC (full width becomes half width), lower case, no control characters or emoji, single spaces.

    A text that is normalised already stays as it is.
    """

    simplified: bool = False
    """Traditional Chinese characters become simplified ones, 運動鞋 -> 运动鞋."""

    def __call__(self, text: str) -> str:
        # First of all: what they kept apart may then compose.
        seen = text if text.isascii() else text.translate(UNSEEN)
        folded = unicodedata.normalize("NFKC", seen).casefold()
        if not folded.isascii():
            # Folding leaves what composes anew, ß with an accent becomes ss with one; and a dot on Turkish İ alone.
            folded = unicodedata.normalize("NFKC", _DOTTED_I.sub("i", folded))
        if not folded.isascii() or not folded.isprintable():
            folded = "".join(" " if is_dropped(c) else c for c in folded)
        if self.simplified and not folded.isascii():
            folded = folded.translate(_simplified())
        return _SPACE.sub(" ", folded).strip()

    def normal_form(self, text: str) -> str:
        """The normalised text, or nothing if no word is left in it."""
        normal = self(text)
        return normal if words(normal) else ""

    @property
    def hash(self) -> str:
        """Identity of the behaviour of this module with these options, kept in datasets and bundles, compared before use."""
        return _hash(self)


normalise = Normaliser()
"""The default, for texts that belong to no bundle and no warehouse's settings."""


def is_dropped(char: str) -> bool:
    """Whether a space takes the place of a character: control, format, private, surrogate, emoji and their modifiers.

    ASCII's ^ and ` are modifiers too, but stand in plain texts, and so in all.
    """
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "So", "Sk") and char not in "^`"


def words(text: str) -> list[str]:
    """Words of a normalised text: runs of letters, numbers, single CJK characters; punctuation is dropped."""
    return _pattern(text).findall(text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each of :func:`words` begins and ends in a normalised text."""
    return [found.span() for found in _pattern(text).finditer(text)]


def _pattern(text: str) -> re.Pattern[str]:
    return _ASCII_WORD if text.isascii() else _WORD


def is_cjk(word: str) -> bool:
    """Whether a word of :func:`words` is a character of a script that is written without spaces."""
    return not word.isascii() and _IS_CJK(word) is not None


def language_of(text: str) -> str:
    """What the script of a normalised text tells of its language: ``chinese``, ``latin``, both ``mixed``, or ``other``.

    chinese: Han characters without kana or hangul; latin: any language written in Latin letters; other: further scripts, or
    digits alone.
    """
    scripts = {_script(char) for char in text if char.isalpha()}
    if scripts == {"chinese", "latin"}:
        return "mixed"
    return scripts.pop() if len(scripts) == 1 else "other"


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return "latin" if name.startswith("LATIN") else "chinese" if name.startswith("CJK") else "other"


def script_of(text: str) -> str:
    """The script that most letters of a text are in, as Unicode names it (``latin``, ``cjk``, ``cyrillic``, ``hiragana``).

    Nothing if it has no letters; of equally many the first by name.
    """
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else ""
    letters = Counter(_script_name(char) for char in text if char.isalpha())
    return min(letters, key=lambda script: (-letters[script], script), default="")


@lru_cache(maxsize=2**14)
def _script_name(letter: str) -> str:
    return unicodedata.name(letter, "unknown").split(" ", 1)[0].split("-", 1)[0].lower()


def by_script(text: str) -> tuple[str, ...]:
    """The parts of a normalised text in two scripts, "dresses 连衣裙" -> ("dresses", "连衣裙"); none if it is in one."""
    spaceless = "".join(word for word in words(text) if is_cjk(word))
    spaced = _SPACE.sub(" ", re.sub(rf"[{_CJK}]+", " ", text)).strip()
    return (spaced, spaceless) if spaceless and words(spaced) else ()


def stem(word: str) -> str:
    """Singular by the lightest rule there is: a trailing s is cut (shoes -> shoe, dress stays)."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def contains(text_words: list[str], phrase_words: list[str]) -> bool:
    """Whether ``phrase_words`` stand in ``text_words`` one after the other, up to a plural s."""
    text, phrase = [stem(w) for w in text_words], [stem(w) for w in phrase_words]
    return bool(phrase) and any(text[i : i + len(phrase)] == phrase for i in range(len(text) - len(phrase) + 1))


def cut_words(title: str, query: str) -> str:
    """``title`` (normalised) without the words of ``query`` (normalised).

    Latin words go one by one, up to a plural s. Runs of CJK characters go where the run, or a part of it of
    two or more characters, stands in the query: single characters say too little to be cut alone.
    """
    query_words = words(query)
    latin = {stem(w) for w in query_words if not is_cjk(w)}
    title_words = words(title)
    kept = [True] * len(title_words)
    for i, word in enumerate(title_words):
        if not is_cjk(word) and stem(word) in latin:
            kept[i] = False
    runs = {"".join(query_words[i : i + 2]) for i in range(len(query_words) - 1) if all(map(is_cjk, query_words[i : i + 2]))}
    for i in range(len(title_words) - 1):
        if title_words[i] + title_words[i + 1] in runs:
            kept[i] = kept[i + 1] = False
    return join(w for w, keep in zip(title_words, kept, strict=True) if keep)


def join(words_: Iterable[str]) -> str:
    """Words back to a text that :func:`words` splits the same way."""
    return " ".join(words_)


class _Simplified(dict[int, str]):
    """OpenCC's characters, asked for one by one as they occur.

    Whole texts would be converted by phrase (乾隆 stays, 牛肉乾 becomes 牛肉干): the same character would then differ
    between query and title, and between a title and its part that is left when words are cut out.
    """

    def __init__(self) -> None:
        from opencc import OpenCC  # 9 ms, and its C++ object cannot be pickled: once in each process that needs it

        self._convert = OpenCC("t2s").convert

    def __missing__(self, point: int) -> str:
        # Twice, since 薴 becomes 苧 and that becomes 苎: the one such chain in OpenCC 1.4.
        self[point] = self._convert(self._convert(chr(point)))
        return self[point]


@lru_cache(maxsize=1)
def _simplified() -> _Simplified:
    return _Simplified()


# What the rules above must do, in one string: its image is the identity of the behaviour.
_PROBE = (
    'Ａｉｒ\u3000Zoom３９ Straße ½in. 红色連衣裙 \u200bNIKE\x00👟🏽 5.5mm 3/4" Café’s ｶﾞ 운동화 \n x_y 1,000'
    " हिन्दी ที่ sho\xade 1\ufe0f\u20e3 ß\u0301 İstanbul 5^2`é"
)

# All of what OpenCC may change but its rare extensions (5,119 of 102,832 code points change): 0.1 s once in a process.
_HAN = "".join(map(chr, range(0x3400, 0xA000)))


@lru_cache(maxsize=2)
def _hash(normaliser: Normaliser) -> str:
    normal = normaliser(_PROBE)
    image = (normal, words(normal), unicodedata.unidata_version, *([normaliser(_HAN)] if normaliser.simplified else []))
    return hashlib.sha256(repr(image).encode()).hexdigest()[:16]
