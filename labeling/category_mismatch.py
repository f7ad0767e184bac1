"""The seller's category against ours: CATALOGUE and ITEM_CATEGORIES -> CATEGORY_MISMATCH, for risk control."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.taxonomy import Taxonomy
from etl.text import normalise

JOINED = " > "

SCHEMA = """item_id string, title string, seller_category string, seller_category_id string, seller_path string,
    category_id string, category_path string, level int, probability double"""
_ARROW_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("item_id", "title", "seller_category", "seller_category_id", "seller_path")]
    + [("category_id", pa.string()), ("category_path", pa.string()), ("level", pa.int32()), ("probability", pa.float64())]
)


def compared(catalogue: DataFrame, categories: DataFrame, taxonomy: Taxonomy) -> DataFrame:
    """Rows of SCHEMA: each item with a seller's category and a path of ours, and where the two part.

    ``seller_category_id`` is null where the seller's value is no category of the tree; ``level`` and ``probability`` are
    null there, and where one path is the beginning of the other: it says less, and contradicts nothing.

    Args:
        catalogue: Rows item_id, title, seller_category of one day.
        categories: ITEM_CATEGORIES of that day.
        taxonomy: The tree of both.
    """
    shared = catalogue.sparkSession.sparkContext.broadcast((taxonomy, seller_names(taxonomy)))

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in found:
            rows = [_compared(row, *shared.value) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, _ARROW_SCHEMA)

    given = catalogue.where("seller_category IS NOT NULL").select("item_id", "title", "seller_category")
    ours = categories.where("category_id IS NOT NULL").select("item_id", "category_id", "path_ids", "path", "probabilities")
    return given.join(ours, on="item_id", how="inner").mapInArrow(batches, SCHEMA)


def mismatches(rows: DataFrame, min_probability: float) -> DataFrame:
    """Rows of SCHEMA whose paths part where ours is at least that probable."""
    return rows.where(F.col("probability") >= min_probability)


def seller_names(taxonomy: Taxonomy) -> dict[str, str]:
    """What sellers may call a node -> its id: the id itself, its names from the root down, its name if no other has it.

    Names are compared normalised; what means two nodes means neither.
    """
    spoken: dict[str, list[str]] = {}
    for id_, node in taxonomy.nodes.items():
        path = JOINED.join(part.name for part in taxonomy.path(id_))
        for text in {normalise(node.name), normalise(path)}:
            spoken.setdefault(text, []).append(id_)
    return {text: ids[0] for text, ids in spoken.items() if len(ids) == 1} | {id_: id_ for id_ in taxonomy.nodes}


def seller_node(given: str, names: Mapping[str, str]) -> str | None:
    """The id of the node that a seller's value means by :func:`seller_names`; None if it means none."""
    return names.get(given) or names.get(normalise(given))


def parting(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """The first level, from 1, on which two paths of ids differ; None if one is the beginning of the other."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
    return None if same == min(len(ours), len(theirs)) else same + 1


def _compared(row: Mapping[str, Any], taxonomy: Taxonomy, names: Mapping[str, str]) -> dict[str, Any]:
    node = seller_node(str(row["seller_category"]), names)
    theirs = [] if node is None else taxonomy.path(node)
    ours: Sequence[str] = row["path_ids"]
    level = parting(ours, [part.id for part in theirs]) if node else None
    probabilities: Sequence[float] = row["probabilities"]
    return {
        **{name: row[name] for name in ("item_id", "title", "seller_category", "category_id")},
        "seller_category_id": node,
        "seller_path": JOINED.join(part.name for part in theirs) if node else None,
        "category_path": JOINED.join(row["path"]),
        "level": level,
        "probability": None if level is None else probabilities[level - 1],
    }
