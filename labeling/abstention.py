"""Texts that can be encoded and still say nothing: too few letters, or letters that training has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from etl.text import is_cjk, script_of
from model.bundle import Bundle

TOO_SHORT, LANGUAGE_NOT_COVERED = "too_short", "language_not_covered"
"""Why an item with a vector gets no label: fewer letters than wanted, or a script that training saw no title in."""

RARE = 1e-3
"""Share of the titles trained on up to which a script counts as not seen: in any log some lines are in any script."""


@dataclass(frozen=True, slots=True)
class Readable:
    """Which texts a bundle can read."""

    min_letters: int
    scripts: frozenset[str] | None
    """Scripts of the titles that it was trained on; None: not known, and none is refused."""

    @classmethod
    def of(cls, bundle: Bundle, min_letters: int) -> Readable:
        titles: Mapping[str, int] = bundle.metrics.get("scripts", {})
        seen = frozenset(script for script, count in titles.items() if count > RARE * sum(titles.values()))
        return cls(min_letters, seen or None)

    def reason(self, text: str) -> str | None:
        """Why a normalised text gets no label, None if it may.

        A character of a script without spaces counts as two letters: it is a word, and may be all there is to say (鞋).
        """
        if sum(1 + is_cjk(char) for char in text if char.isalpha()) < self.min_letters:
            return TOO_SHORT
        if self.scripts is not None and script_of(text) not in self.scripts:
            return LANGUAGE_NOT_COVERED
        return None
