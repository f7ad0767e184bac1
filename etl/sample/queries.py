"""What shoppers type: forms of terms with and without a brand, broader words, misspellings, and personal data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etl.sample.items import Items, attribute_texts, colour_texts
from etl.sample.titles import join_parts
from etl.sample.world import World

# n queries

TERM, BRAND, COLOUR, SERIES, SERIES_TERM, ATTRIBUTE, NOUN = range(7)
CATEGORY, MISSPELT, PERSONAL, NOTHING, WIDE, CAMPAIGN, PASTED = range(7, 14)
"""Kinds of queries: a term's form; with brand, colour, series or attribute; a broader word; a slip; no use at all;
a word for anything on sale, the mark of a mail that led here, and a text pasted by mistake."""
KIND_SHARES = np.array([0.42, 0.10, 0.06, 0.06, 0.08, 0.06, 0.10, 0.04, 0.04, 0.002, 0.003, 0.012, 0.005, 0.001])
KIND_SHARES /= KIND_SHARES.sum()
OTHER_TONGUE = 0.08  # queries in the language that is not the shopper's
WIDE_TEXTS = ["sale", "促销"]
CAMPAIGNS = 3
PASTED_CHARACTERS = 400
POOLED_PERSONAL = 0.3  # personal data that many type, such as a service number: no rule of distinct users stops it


@dataclass(frozen=True, slots=True)
class Phrases:
    """Every text that a query is put together from, by number; number 0 is the empty text."""

    texts: list[str]
    term: np.ndarray
    """[T, 2, 2] first text and number of texts of a term in English and Chinese; nouns and nodes alike."""
    noun: np.ndarray
    node: np.ndarray
    brand: np.ndarray
    """[brands, 2] text of a brand in English and Chinese; colours and attributes alike."""
    colour: np.ndarray
    attribute: np.ndarray
    series: np.ndarray
    """[S]"""

    @classmethod
    def of(cls, world: World) -> Phrases:
        texts = [""]

        def runs(entries: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> np.ndarray:
            table = np.empty((len(entries), 2, 2), int)
            for i, entry in enumerate(entries):
                for tongue, forms in enumerate(entry):
                    table[i, tongue] = len(texts), len(forms)
                    texts.extend(forms)
            return table

        def pairs(entries: list[tuple[str, str]]) -> np.ndarray:
            return runs([((en,), (zh,)) for en, zh in entries])[:, :, 0]

        return cls(
            texts=texts,
            term=runs([(term.en, term.zh) for term in world.terms]),
            noun=runs([(noun.en, noun.zh) for noun in world.nouns]),
            node=runs([((node.en,), (node.zh,)) for node in world.nodes]),
            brand=pairs(world.brands),
            colour=pairs(colour_texts()),
            attribute=pairs(attribute_texts()[0]),
            series=pairs([(name, name) for name in world.series])[:, 0],
        )


def write_queries(
    world: World,
    items: Items,
    phrases: Phrases,
    rng: np.random.Generator,
    kind: np.ndarray,
    term: np.ndarray,
    wanted: np.ndarray,
    tongue: np.ndarray,
) -> tuple[np.ndarray, list[str | None]]:
    """Texts of n queries as (index, distinct texts): every array is [n]; ``wanted`` are items, ``tongue`` 0 or 1."""
    n = len(kind)
    tongue = np.where(rng.random(n) < OTHER_TONGUE, 1 - tongue, tongue)
    nouns = np.array([t.noun for t in world.terms])[term]
    nodes = np.array([t.node for t in world.terms])[term]
    run = phrases.term[term, tongue]
    run = np.where((kind == NOUN)[:, None], phrases.noun[nouns, tongue], run)
    run = np.where((kind == CATEGORY)[:, None], phrases.node[nodes, tongue], run)
    head = run[:, 0] + (run[:, 1] * rng.random(n) ** 2.5).astype(int)  # the usual form comes first
    head = np.where(kind == SERIES, phrases.series[items.series[wanted]], head)
    attribute = items.attributes[wanted, 0]
    front = np.select(
        [kind == BRAND, kind == COLOUR, kind == SERIES_TERM, (kind == ATTRIBUTE) & (attribute >= 0)],
        [
            phrases.brand[world.series_brand[items.series[wanted]], tongue],
            phrases.colour[items.colour[wanted], tongue],
            phrases.series[items.series[wanted]],
            phrases.attribute[attribute, tongue],
        ],
        default=0,
    )
    slip = np.where(kind == MISSPELT, rng.integers(1, 3, n), 0)
    width = len(phrases.texts)
    keys, index = np.unique((front * width + head) * 3 + slip, return_inverse=True)
    texts: list[str | None] = [
        _misspell(_join(phrases.texts[k // 3 // width], phrases.texts[k // 3 % width]), k % 3) for k in keys.tolist()
    ]
    nothing = np.flatnonzero(kind == NOTHING)
    index[nothing] = len(texts) + (rng.random(len(nothing)) < 0.5)
    texts += [None, ""]
    index[kind == WIDE] = len(texts) + tongue[kind == WIDE]
    texts += WIDE_TEXTS
    campaigns = np.flatnonzero(kind == CAMPAIGN)
    index[campaigns] = len(texts) + rng.integers(CAMPAIGNS, size=len(campaigns))
    texts += [f"utm_campaign=spring-{number + 1}" for number in range(CAMPAIGNS)]
    pasted = np.flatnonzero(kind == PASTED)
    made = [((texts[index[i]] or "") + " ") * PASTED_CHARACTERS for i in pasted]
    index[pasted] = len(texts) + np.arange(len(pasted))
    texts += [text[:PASTED_CHARACTERS] for text in made]
    personal = np.flatnonzero(kind == PERSONAL)
    invented = personal_data(rng, [texts[index[i]] or "" for i in personal])
    index[personal] = len(texts) + np.arange(len(personal))
    texts += invented
    return index, texts


def _join(front: str, head: str) -> str:
    return join_parts([front, head], spaced=False) if front else head


def _misspell(text: str, slip: int) -> str:
    """The ``slip``-th usual misspelling of a text: 0 none, 1 two letters swapped, 2 a letter left out."""
    if not slip or len(text) < 3:
        return text
    # Slips fall into the longest word, a third and two thirds of the way in; everybody makes the same ones.
    start, length = max(_spans(text), key=lambda span: span[1])
    at = start + min(length - 2, max(1, length * slip // 3)) if length > 2 else start
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :] if slip == 1 else text[:at] + text[at + 1 :]


def _spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for word in text.split(" "):
        spans.append((start, len(word)))
        start += len(word) + 1
    return spans


def personal_data(rng: np.random.Generator, contexts: list[str]) -> list[str | None]:
    """One query with an e-mail address, phone, card or identity number for each context; all of them invented."""
    pool_rng = np.random.default_rng(7)
    pool = [_personal(pool_rng, kind) for kind in (0, 1, 2, 3, 4)]
    made: list[str | None] = []
    for context in contexts:
        text = pool[rng.integers(len(pool))] if rng.random() < POOLED_PERSONAL else _personal(rng, int(rng.integers(5)))
        made.append(f"{context} {text}" if rng.random() < 0.2 else text)
    return made


def _personal(rng: np.random.Generator, kind: int) -> str:
    digits = "".join(map(str, rng.integers(10, size=17)))
    if kind == 0:
        return f"user{digits[:6]}@example.com"
    if kind == 1:
        return f"13{digits[:9]}"  # a mobile number in China
    if kind == 2:
        return f"+1 212 555 {digits[:4]}"
    if kind == 3:
        return _card("4" + digits[:14])
    return _identity(f"110101{1950 + int(digits[:2]) % 55}0{1 + int(digits[2]) % 9}1{digits[3]}{digits[4:7]}")


def _card(fifteen: str) -> str:
    """Sixteen digits that pass Luhn's check."""
    doubled = [int(d) * (2 - i % 2) for i, d in enumerate(fifteen)]
    total = sum(d - 9 if d > 9 else d for d in doubled)
    return fifteen + str(-total % 10)


def _identity(seventeen: str) -> str:
    """Eighteen characters with the check digit of GB 11643 (ISO 7064, mod 11-2)."""
    total = sum(int(d) * (2 ** (17 - i) % 11) for i, d in enumerate(seventeen))
    return seventeen + "10X98765432"[total % 11]
