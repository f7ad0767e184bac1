"""The one normaliser and word splitter for queries, titles and terms, in training and in labelling."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

# Han, kana and hangul are written without spaces: there a character is a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_CJK}]|[^\W\d_{_CJK}]+|\d+(?:[.,/]\d+)*")
_SPACE = re.compile(r"\s+")
# Control, format (zero width, BOM), surrogate, private use; So and Sk hold emoji and their modifiers.
_DROPPED = {"Cc", "Cf", "Cs", "Co", "So", "Sk"}


def normalise(text: str) -> str:
    """Unicode NFKC (full width becomes half width), lower case, no control characters or emoji, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii() or not folded.isprintable():
        folded = "".join(" " if unicodedata.category(c) in _DROPPED else c for c in folded)
    return _SPACE.sub(" ", folded).strip()


def words(text: str) -> list[str]:
    """Words of a normalised text: runs of letters, numbers, single CJK characters; punctuation is dropped."""
    return _WORD.findall(text)


def is_cjk(word: str) -> bool:
    """Whether a word of :func:`words` is a character of a script that is written without spaces."""
    return bool(word) and re.match(rf"[{_CJK}]", word) is not None


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


# What the rules above must do, in one string: its image is the identity of the behaviour.
_PROBE = 'Ａｉｒ\u3000Zoom３９ Straße ½in. 红色連衣裙 \u200bNIKE\x00👟🏽 5.5mm 3/4" Café’s ｶﾞ 운동화 \n x_y 1,000'


def normaliser_hash() -> str:
    """Identity of the behaviour of this module, kept in datasets and bundles and compared before use."""
    image = (normalise(_PROBE), words(normalise(_PROBE)), unicodedata.unidata_version)
    return hashlib.sha256(repr(image).encode()).hexdigest()[:16]
