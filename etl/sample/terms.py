"""Product terms: modifiers and nouns put together in both languages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from etl.sample.modifiers import MODIFIERS
from etl.sample.names import HINTS
from etl.sample.tree import Noun, parse_tree, split
from etl.sample.words import TREE
from etl.text import contains, normalise, stem, words


@dataclass(frozen=True, slots=True)
class Term:
    """A product term: a modifier and a noun, in both languages, the usual form of each first."""

    term_id: str
    noun: int
    node: int
    en: tuple[str, ...]
    zh: tuple[str, ...]
    language: str
    hints: tuple[int, ...]

    @property
    def forms(self) -> tuple[str, ...]:
        """All forms, the canonical one first."""
        return self.en + self.zh if self.language == "en" else self.zh + self.en


def capacity() -> int:
    """How many terms the words can make."""
    return sum(len(noun.modifiers) for noun in parse_tree(TREE)[1])


def parse_hints() -> tuple[list[tuple[str, str]], dict[str, tuple[int, ...]]]:
    hints: list[tuple[str, str]] = []
    of: dict[str, tuple[int, ...]] = {}
    for entry in split(HINTS.replace("\n", ";"), ";"):
        modifier, _, pairs = entry.partition(":")
        for pair in split(pairs, ","):
            en, _, zh = pair.partition("/")
            of[modifier] = (*of.get(modifier, ()), len(hints))
            hints.append((en.strip(), zh.strip()))
    return hints, of


def _parse_modifiers() -> dict[str, tuple[list[str], list[str]]]:
    entries = (entry.split("=") for entry in split(MODIFIERS.replace("\n", ";"), ";"))
    forms = [(split(en, ","), split(zh, ",")) for en, zh in entries]
    return {en[0]: (en, zh) for en, zh in forms}


def compose_terms(
    rng: np.random.Generator, nouns: list[Noun], hints_of: dict[str, tuple[int, ...]], n_terms: int
) -> list[Term]:
    """Terms in random order of popularity; a form belongs to the first term that claims it."""
    modifiers = _parse_modifiers()
    taken: set[tuple[str, ...]] = set()
    terms: list[Term] = []
    for rank, (noun_index, modifier) in enumerate(_choose(rng, nouns, n_terms)):
        noun, (en, zh) = nouns[noun_index], modifiers[modifier]
        forms = []
        for candidates in (_product(en, noun.en, " "), _product(zh, noun.zh, "")):
            keys = {tuple(map(stem, words(normalise(form)))): form for form in candidates}
            forms.append(tuple(form for key, form in keys.items() if key not in taken))
            taken |= set(keys)
        assert all(forms), f"{modifier} {noun.en[0]} has no form of its own in one of the languages"
        language = "en" if rng.random() < 0.6 else "zh"
        terms.append(
            Term(f"t{rank + 1:04d}", noun_index, noun.node, forms[0], forms[1], language, hints_of.get(modifier, ()))
        )
    return terms


def _product(modifiers: list[str], nouns: tuple[str, ...], joint: str) -> list[str]:
    # The usual modifier with every noun, then its other forms with the usual noun.
    pairs = [(modifiers[0], noun) for noun in nouns] + [(modifier, nouns[0]) for modifier in modifiers[1:]]
    return [f"{modifier}{joint}{noun}" for modifier, noun in pairs]


def _choose(rng: np.random.Generator, nouns: list[Noun], n_terms: int) -> list[tuple[int, str]]:
    """Nouns and modifiers of ``n_terms`` terms: few terms take few nouns, so that a term still has siblings."""
    count = min(len(nouns), max(6, math.ceil(n_terms / 4)))
    while True:
        chosen = np.unique(np.linspace(0, len(nouns) - 1, count).astype(int))
        pairs = [(i, n, modifier) for n in chosen for i, modifier in enumerate(nouns[n].modifiers)]
        if len(pairs) >= n_terms:
            break
        count = min(len(nouns), count + 1)
    kept = [(int(noun), modifier) for _, noun, modifier in sorted(pairs)[:n_terms]]
    return [kept[i] for i in rng.permutation(n_terms)]


def wider_terms(terms: list[Term]) -> list[tuple[int, ...]]:
    """Terms of the same noun whose usual forms stand inside the other's in both languages."""
    usual = [(words(normalise(t.en[0])), words(normalise(t.zh[0]))) for t in terms]

    def inside(small: int, large: int) -> bool:
        return terms[small].noun == terms[large].noun and all(
            contains(b, s) for b, s in zip(usual[large], usual[small], strict=True)
        )

    by_noun: dict[int, list[int]] = {}
    for i, term in enumerate(terms):
        by_noun.setdefault(term.noun, []).append(i)
    return [tuple(j for j in by_noun[term.noun] if j != i and inside(j, i)) for i, term in enumerate(terms)]
