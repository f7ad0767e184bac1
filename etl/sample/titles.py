"""Titles of the sample, put together from what an item shows."""

from __future__ import annotations

import numpy as np

from etl.sample.items import LACKING, PARTIAL, Items, attribute_texts, colour_texts
from etl.sample.names import MISLEADING_EN, MISLEADING_ZH
from etl.sample.world import World
from etl.text import is_cjk

LANGUAGES = ("en", "zh", "mul")


def write_titles(world: World, items: Items) -> list[str]:
    attributes, colours = attribute_texts()[0], colour_texts()
    return [_title(world, items, i, attributes, colours) for i in range(len(items))]


def _title(world: World, items: Items, i: int, attributes: list[tuple[str, str]], colours: list[tuple[str, str]]) -> str:
    language, layout = LANGUAGES[items.language[i]], items.layout[i]
    # A mixed title has its noun in one language and the rest in the other.
    tongue = int(language == "zh" or (language == "mul" and layout[0] < 0.6))
    noun_tongue = 1 - tongue if language == "mul" else tongue
    lead = []
    if items.brand_shown[i]:
        lead.append(world.brands[world.series_brand[items.series[i]]][tongue])
    if items.series_shown[i]:
        lead.append(world.series[items.series[i]])
    if items.model[i]:
        lead.append(f"{'ABKMSTVX'[items.series[i] % 8]}{items.model[i]}")
    tail = [attributes[a][tongue] for a in items.attributes[i] if a >= 0]
    if items.hint[i] >= 0:
        tail.append(world.hints[items.hint[i]][tongue])
    if items.colour_shown[i]:
        tail.append(colours[items.colour[i]][tongue])
    tail = [tail[k] for k in np.argsort(layout[1 : 1 + len(tail)])]
    named = _named(world, items, i, noun_tongue)
    place = layout[6]
    parts = [*named, *lead, *tail] if place < 0.15 else [*lead, *named, *tail] if place < 0.7 else [*lead, *tail, *named]
    if items.mention[i] >= 0:
        phrases = (MISLEADING_EN, MISLEADING_ZH)[tongue]
        phrase = phrases[int(items.form[i, 2] * len(phrases))]
        parts.append(phrase.format(_form(world, items.mention[i], tongue, items.form[i, 1])))
    return join_parts(parts, spaced=layout[7] < 0.5)


def _named(world: World, items: Items, i: int, tongue: int) -> list[str]:
    """The words for what it is: forms of its terms, the bare noun, or nothing."""
    term = items.term[i]
    if items.mode[i] == LACKING:
        return []
    if items.mode[i] == PARTIAL:
        noun = world.nouns[world.terms[term].noun]
        return [(noun.en, noun.zh)[tongue][0]]
    own = [_form(world, term, tongue, items.form[i, 0])]
    return own if items.second[i] < 0 else [*own, _form(world, items.second[i], tongue, items.form[i, 1])]


def _form(world: World, term: int, tongue: int, draw: float) -> str:
    forms = (world.terms[term].en, world.terms[term].zh)[tongue]
    return forms[int(draw**2 * len(forms))]  # the usual form is the likeliest


def join_parts(parts: list[str], *, spaced: bool) -> str:
    """Parts joined by spaces; between two Chinese characters only where ``spaced``."""
    text = parts[0]
    for part in parts[1:]:
        text += part if not spaced and is_cjk(text[-1]) and is_cjk(part[0]) else f" {part}"
    return text
