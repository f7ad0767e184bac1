"""Best Buy's category tree: 4,584 categories as they were dumped, completed to a tree that a warehouse can hold.

The dump lacks the parents of 363 categories; each category says the path that leads to it, so the ancestors that are missing
come from there. It has no items and no clicks: a tree of real size and with real faults, to load and to label with.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.sets.adapter import AdapterConfig, data_file, open_root, run_command, write_input
from etl.contracts import TAXONOMY
from etl.errors import InputError
from etl.taxonomy import Taxonomy

SET = "bestbuy"
FILE = "categories.json.gz"

MADE_UP = ("the name of a category that has none: its id",)


class BestBuyConfig(AdapterConfig):
    """Where the categories are and where the tree goes."""

    data: str = "../shared/data/bestbuy_categories"
    """Directory with categories.json.gz."""


def read_categories(directory: str) -> list[dict[str, Any]]:
    """The categories as they were dumped: id, name, path (id and name from the root down to the category itself).

    Raises:
        InputError: the file is missing, or is no list of such categories.
    """
    path = data_file(directory, FILE)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = json.load(file)
    keys = {"id", "name", "path"}
    if not isinstance(found, list) or not all(isinstance(one, dict) and keys <= one.keys() for one in found):
        raise InputError(f"{path} is no list of categories with {', '.join(sorted(keys))}: give --data another directory")
    return found


def completed(categories: Iterable[Mapping[str, Any]]) -> list[dict[str, str | None]]:
    """Rows of TAXONOMY in the order of their ids: each category and each ancestor that a path names, once.

    Raises:
        InputError: a path does not end with its category, or two paths disagree on a node's parent or name; all listed.
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    problems = []
    for category in categories:
        path = category["path"]
        if not path or path[-1]["id"] != category["id"]:
            problems.append(f"the path of category {category['id']!r} does not end with it")
        parents = [None, *(step["id"] for step in path)]
        for parent, step in zip(parents, path, strict=False):
            known = found.setdefault(step["id"], (parent, step["name"]))
            if known != (parent, step["name"]):
                problems.append(
                    f"category {step['id']!r} is {step['name']!r} under {parent!r} and {known[1]!r} under {known[0]!r}"
                )
    if problems:
        raise InputError.of(sorted(set(problems)), heading="the paths of the categories make no tree:")
    return [{"category_id": id_, "parent_id": of, "name": name or id_} for id_, (of, name) in sorted(found.items())]


def warehouse(config: BestBuyConfig) -> Mapping[str, Any]:
    """Write the completed tree as the table ``taxonomy`` of a warehouse."""
    categories = read_categories(config.data)
    rows = completed(categories)
    tree = Taxonomy.of(rows)
    root = open_root(config.root, SET, MADE_UP)
    write_input(root, TAXONOMY, {name: [row[name] for row in rows] for name in TAXONOMY.names})
    leaves = sum(not node.children for node in tree.nodes.values())
    return {
        "categories": len(categories),
        "nodes": len(rows),
        "roots": len(tree.roots),
        "leaves": leaves,
        "taxonomy": tree.version,
        "path": root,
    }


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmarks.sets.bestbuy", __doc__, {"warehouse": (BestBuyConfig, warehouse)}, argv)


if __name__ == "__main__":
    sys.exit(main())
