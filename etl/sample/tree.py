"""Categories and product nouns, parsed from the words."""

from __future__ import annotations

from dataclasses import dataclass

from etl.sample.modifiers import FAMILY_MODIFIERS


@dataclass(frozen=True, slots=True)
class Node:
    """A category; ``parent`` is an index into the nodes, -1 for a root."""

    category_id: str
    parent: int
    en: str
    zh: str
    family: str

    @property
    def name(self) -> str:
        return f"{self.en} {self.zh}"


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of product; ``node`` is its leaf category."""

    en: tuple[str, ...]
    zh: tuple[str, ...]
    node: int
    modifiers: tuple[str, ...]


def parse_tree(text: str) -> tuple[list[Node], list[Noun]]:
    """Nodes and nouns of the indented text of :mod:`etl.sample.words`."""
    nodes: list[Node] = []
    nouns: list[Noun] = []
    path: list[int] = []
    for line in filter(str.strip, text.splitlines()):
        depth, entry = (len(line) - len(line.lstrip())) // 2, line.strip()
        del path[depth:]
        if entry.startswith("*"):
            en, zh, modifiers = (tuple(split(part, ",")) for part in entry[1:].split("|"))
            modifiers += tuple(split(FAMILY_MODIFIERS[nodes[path[-1]].family], ","))
            nouns.append(Noun(en, zh, path[-1], tuple(dict.fromkeys(modifiers))))
            continue
        name, _, family = entry.partition("[")
        en_name, zh_name = split(name, "/")
        parent = path[-1] if path else -1
        nodes.append(Node(f"c{len(nodes) + 1:03d}", parent, en_name, zh_name, family.rstrip("]") or nodes[parent].family))
        path.append(len(nodes) - 1)
    return nodes, nouns


def split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]
