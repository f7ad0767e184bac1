"""Nearest items of every item: the texts of the item index against themselves -> SIMILAR_ITEMS.

Exact, so T texts of D dimensions cost T x T x D multiplications, however many workers share them; items of equal text
are searched once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from labeling.item_index import Hit, ItemIndex, worker_index

SCHEMA = "item_id string, rank int, similar_item_id string, score double"
_ARROW_SCHEMA = pa.schema(
    [("item_id", pa.string()), ("rank", pa.int32()), ("similar_item_id", pa.string()), ("score", pa.float64())]
)


def similar_items(spark: SparkSession, index: ItemIndex, k: int, partitions: int = 0) -> DataFrame:
    """The ``k`` nearest items of each item of the index, rows of SCHEMA; an item alone with its text has none."""
    tasks = partitions or 2 * spark.sparkContext.defaultParallelism
    places = spark.range(0, len(index.items), numPartitions=tasks)
    return places.mapInArrow(partial(_neighbours, path=str(index.path), k=k), SCHEMA)


def _neighbours(batches: Iterable[pa.RecordBatch], *, path: str, k: int) -> Iterator[pa.RecordBatch]:
    index = worker_index(path)
    for batch in batches:
        places = batch.column("id").to_numpy()
        rows = []
        # One more than wanted: each text is its own neighbour, unless others with the same vector stand before it.
        for place, scores, found in zip(places, *index.places(index.vectors[places], k + 1), strict=True):
            others = found != place
            hits = index.as_hits(scores[others][:k], found[others][:k], k)
            rows += [row for item in index.items_at(int(place)) for row in _rows(item, hits)]
        yield pa.RecordBatch.from_pylist(rows, _ARROW_SCHEMA)


def _rows(item: str, hits: Iterable[Hit]) -> Iterator[dict[str, Any]]:
    for rank, hit in enumerate(hits, start=1):
        yield {"item_id": item, "rank": rank, "similar_item_id": hit.item_id, "score": hit.score}
