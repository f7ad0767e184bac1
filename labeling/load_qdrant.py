"""Loads the live item index, with title and labels of each item, into an embedded Qdrant. Starts no Spark.

One collection an index, named as its directory, so vectors of two bundles never meet in one; the alias ``items`` moves to
it when it is whole, and the collection before is dropped. Points that are there already are not written again.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.contracts import LABELS_CURRENT
from etl.errors import EXIT_OK, InputError
from etl.job import configure_logging
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.item_index import ItemIndex, live_item_index
from labeling.terminal import add_root_argument

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

ALIAS = "items"
_SPACE = uuid.UUID("6f1b5c1e-3a52-5d0e-9c55-1a1f2f0c7a10")  # of our points' ids; another would double every item
_PLACES = 1_000  # texts whose items go into one call


def load(client: QdrantClient, index: ItemIndex, payloads: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Make the collection of ``index`` and point the alias to it; returns how many ``items`` it has and were ``written``.

    A second call writes what is missing or has another payload: one that was interrupted goes on where it was.

    Args:
        client: Of an embedded database or of a server.
        index: The items and their vectors.
        payloads: Of each item, JSON.

    Raises:
        InputError: an item of the index has no payload.
    """
    from qdrant_client import models

    if lacking := sorted(set(index.items.flatten().to_pylist()) - payloads.keys()):
        raise InputError(
            f"{len(lacking)} items of index {index.path} have no row in labels_current (first: {lacking[0]!r}): the two are "
            "of different days, run `labeller relate` first"
        )
    name, written = index.path.name, 0
    if not client.collection_exists(name):
        size = models.VectorParams(size=index.vectors.shape[1], distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config=size)
    for items in _batches(index):
        ids = {point_id(item): item for item in items}
        there = {str(point.id): point.payload for point in client.retrieve(name, list(ids), with_payload=True)}
        points = [models.PointStruct(id=at, vector=index.vectors[items[item]].tolist(), payload=dict(payloads[item]))
                  for at, item in ids.items() if there.get(at) != payloads[item]]  # fmt: skip
        if points:
            client.upsert(name, points, wait=True)
        written += len(points)
    count = client.count(name, exact=True).count
    assert count == len(index.items.flatten()), f"collection {name} has {count} points"
    _set_alias(client, name)
    return {"items": count, "written": written}


def payloads_of(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    """What is live of each item: title, best term, all terms, category path, and the day of the row.

    Raises:
        InputError: nothing was published yet.
    """
    columns = ("item_id", "ds", "title", "term", "terms", "category_path")
    rows = local_tables.read(warehouse, LABELS_CURRENT, columns=columns).iter_rows(named=True)
    return {
        row["item_id"]: {
            "item_id": row["item_id"],
            "title": row["title"],
            "term": row["term"],
            "terms": [term["term"] for term in row["terms"]],
            "category": row["category_path"],
            "ds": row["ds"].isoformat(),
        }
        for row in rows
    }


def point_id(item_id: str) -> str:
    """Id of an item's point, the same in every collection: Qdrant takes numbers and UUIDs only."""
    return str(uuid.uuid5(_SPACE, item_id))


def open_embedded(path: Path) -> QdrantClient:
    """The database in a directory of its own, made if there is none.

    Raises:
        InputError: another process has it open, or qdrant-client is not installed.
    """
    try:
        from qdrant_client import QdrantClient
    except ModuleNotFoundError:
        raise InputError("the package qdrant-client is not installed: `pip install qdrant-client` or `make setup`") from None
    try:
        return QdrantClient(path=str(path))
    except RuntimeError as error:  # of its lock
        raise InputError(f"{path} cannot be opened: {error} Stop what has it open, or load into another.") from None


def _batches(index: ItemIndex) -> Iterator[dict[str, int]]:
    """Items of some texts at a time, with the place of their vector."""
    for start in range(0, len(index.vectors), _PLACES):
        places = range(start, min(start + _PLACES, len(index.vectors)))
        yield {item: place for place in places for item in index.items_at(place)}


def _set_alias(client: QdrantClient, name: str) -> None:
    """Both halves are one operation: a query by the alias finds the collection before or this one."""
    from qdrant_client import models

    before = [found.collection_name for found in client.get_aliases().aliases if found.alias_name == ALIAS]
    drop = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS)) for _ in before]
    new = models.CreateAlias(collection_name=name, alias_name=ALIAS)
    client.update_collection_aliases([*drop, models.CreateAliasOperation(create_alias=new)])
    for collection in before:
        if collection != name:
            client.delete_collection(collection)


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller load-qdrant", description=__doc__, allow_abbrev=False)
    add_root_argument(parser)
    parser.add_argument("--path", type=Path, required=True, metavar="DIR", help="the database's own directory, new or not")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    configure_logging()
    try:
        index, payloads = live_item_index(args.root), payloads_of(Warehouse.at(args.root))
        client = open_embedded(args.path)
        try:
            done = load(client, index, payloads)
        finally:
            client.close()
        print(json.dumps({**done, "collection": index.path.name, "bundle": index.bundle, "path": str(args.path)}))
    except InputError as error:
        print(f"labeller load-qdrant: error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
