"""Which terms stand in a text by their words, all at once: a dictionary of forms by their words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from etl.text import stem


class ContainedTerms:
    """Terms by the words of their forms, up to a plural s. A text costs a look a word and length of form, not one a term."""

    def __init__(self, form_words: Sequence[Sequence[str]], form_terms: Sequence[int]) -> None:
        """Of F forms.

        Args:
            form_words: Words of each form; one without any stands in no text.
            form_terms: The term that each belongs to.
        """
        self._terms: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for form, term in zip(form_words, form_terms, strict=True):
            stems = tuple(map(stem, form))
            if stems:
                self._terms[stems].add(int(term))
                lengths[stems[0]].add(len(stems))
        self._lengths = {first: tuple(sorted(found)) for first, found in lengths.items()}

    def of(self, text_words: Sequence[str]) -> set[int]:
        """The terms that :func:`etl.text.contains` finds a form of in these words."""
        text = [stem(word) for word in text_words]
        found: set[int] = set()
        for start, first in enumerate(text):
            for length in self._lengths.get(first, ()):
                found |= self._terms.get(tuple(text[start : start + length]), set())
        return found
