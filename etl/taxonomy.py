"""The category tree as plain Python, checked, and its version."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl.contracts import TAXONOMY
from etl.errors import InputError
from etl.text import normalise
from etl.vocabulary import has_words
from etl.warehouse import Warehouse

if TYPE_CHECKING:  # `label "TITLE"` answers without Spark, whose import alone takes it a second
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """One category; ``children`` are ids in ascending order."""

    id: str
    parent_id: str | None
    name: str
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """The tree by id; ``roots`` ascend; ``version`` is a hash of ids, parents and names."""

    nodes: dict[str, Node]
    roots: tuple[str, ...]
    version: str

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Taxonomy:
        """From rows of TAXONOMY.

        Raises:
            InputError: no node, an id that is null or occurs twice (as that of a node with two parents does), a node
                without a name, an orphan, a cycle, two roots of the same name; all of them listed.
        """
        found = [(_text(row["category_id"]), _text(row["parent_id"]), row["name"]) for row in rows]
        problems = _problems(found)
        if problems:
            raise InputError.of(problems, heading="table taxonomy is no tree:")
        children: defaultdict[str | None, list[str]] = defaultdict(list)
        for id_, parent, _ in sorted(found):
            children[parent].append(id_)
        nodes = {id_: Node(id_, parent, name, tuple(children[id_])) for id_, parent, name in sorted(found)}
        _warn_of_equal_siblings(nodes)
        content = json.dumps(sorted(found), ensure_ascii=False)
        return cls(nodes, tuple(children[None]), hashlib.sha256(content.encode()).hexdigest()[:12])

    def path(self, category_id: str) -> list[Node]:
        """The nodes from the root down to ``category_id``."""
        node = self.nodes[category_id]
        path = [node]
        while node.parent_id is not None:
            node = self.nodes[node.parent_id]
            path.append(node)
        return path[::-1]


def load_taxonomy(spark: SparkSession, warehouse: Warehouse) -> Taxonomy:
    """The category tree of a warehouse.

    Raises:
        InputError: the table is missing, does not fit its contract or is no tree; all problems listed.
    """
    from etl.inputs import read_input

    return Taxonomy.of(read_input(spark, warehouse, TAXONOMY).toArrow().to_pylist())


_Row = tuple[Any, Any, Any]  # category_id, parent_id, name


def _problems(rows: list[_Row]) -> list[str]:
    if not rows:
        return ["it has 0 rows (expected >= 1)"]
    problems = []
    above: defaultdict[str, set[str]] = defaultdict(set)
    for id_, parent, _ in rows:
        above[id_].add(repr(parent))
    for id_, count in Counter(id_ for id_, _, _ in rows).items():
        if id_ is None:
            problems.append(f"column category_id is null in {count} rows (expected an id in each)")
        elif count > 1:
            under = f" under the parents {', '.join(sorted(above[id_]))}" if len(above[id_]) > 1 else ""
            problems.append(f"column category_id holds {id_!r} {count} times{under} (expected once): drop the other rows")
    for id_, _, name in rows:
        if not has_words(name):
            problems.append(f"column name is {name!r} for category_id {id_!r} (expected at least one word)")
    parents = {id_: parent for id_, parent, _ in rows}
    for id_, parent, _ in rows:
        if parent is not None and parent not in parents:
            problems.append(
                f"column parent_id of category_id {id_!r} is {parent!r}, which is no category_id "
                "(expected a node of the table, or null for a root): add the parent or drop the orphan"
            )
    return problems + _cycles(parents) + _equal_roots(rows)


def _cycles(parents: dict[str, str | None]) -> list[str]:
    problems = []
    settled: set[str] = set()
    for start in parents:
        walk: dict[str, None] = {}
        node: str | None = start
        while node is not None and node not in settled and node not in walk:
            walk[node] = None
            node = parents.get(node)
        if node is not None and node in walk:
            cycle = list(walk)[list(walk).index(node) :]
            problems.append(
                f"column parent_id makes a cycle: {' -> '.join(map(repr, [*cycle, node]))} (expected a way to a root): "
                "set the parent_id of one of them to null or to a node outside"
            )
        settled.update(walk)
    return problems


def _equal_roots(rows: list[_Row]) -> list[str]:
    roots: defaultdict[str, list[str]] = defaultdict(list)
    for id_, parent, name in rows:
        if parent is None and name is not None:
            roots[normalise(name)].append(id_)
    return [
        f"column name is {name!r} for {len(ids)} roots, category_id {', '.join(map(repr, sorted(map(str, ids))))} "
        "(expected one root of a name): merge or rename them"
        for name, ids in roots.items()
        if len(ids) > 1 and has_words(name)
    ]


def _warn_of_equal_siblings(nodes: dict[str, Node]) -> None:
    # Real trees have a few (Best Buy's: 3 of 4,584 nodes): usable, but no text can tell them apart.
    counts = Counter((node.parent_id, normalise(node.name)) for node in nodes.values())
    for (parent, name), count in counts.items():
        if count > 1:
            log.warning("taxonomy: %d children of category_id %r have the name %r", count, parent, name)


def _text(value: Any) -> Any:
    return None if value is None else str(value)
