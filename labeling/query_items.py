"""Recall list of the most clicked queries: PAIRS and the item index -> QUERY_ITEMS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from labeling.encoding import encode_good, task_device, worker_bundle
from labeling.item_index import ItemIndex, worker_index
from model.bundle import Bundle

SCHEMA = "query_id bigint, query string, rank int, item_id string, score double"
_ARROW_SCHEMA = pa.schema(
    [
        ("query_id", pa.int64()),
        ("query", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
    ]
)


def head_queries(pairs: DataFrame, share: float, most: int) -> DataFrame:
    """PAIRS of one day -> query_id, query, clicks of the queries that the first ``share`` of all clicks belongs to.

    Queries of equally many clicks are of one band: the last band that is needed is whole. At most ``most`` of them, the
    most clicked ones, ties by the query.
    """
    queries = pairs.groupBy("query_id", "query").agg(F.sum("clicks").alias("clicks"))
    # One row a band: some thousand numbers, where a running sum over the queries would be one task's.
    bands = queries.groupBy("clicks").count().orderBy(F.desc("clicks")).collect()
    least, so_far = 0, 0
    total = sum(band["clicks"] * band["count"] for band in bands)
    for band in bands:
        if so_far >= share * total:
            break
        least, so_far = band["clicks"], so_far + band["clicks"] * band["count"]
    return queries.where(F.col("clicks") >= least).orderBy(F.desc("clicks"), "query").limit(most)


def query_items(queries: DataFrame, pairs: DataFrame, index: ItemIndex, bundle: Bundle, k: int, tasks: int = 0) -> DataFrame:
    """Rows query_id, query -> the ``k`` nearest items of each, rows of SCHEMA and ``clicks``.

    A query that the encoder fails on has no row.
    """
    partitions = tasks or 2 * queries.sparkSession.sparkContext.defaultParallelism
    listed = partial(_lists, path=str(index.path), bundle=str(bundle.path), bundle_id=bundle.id, k=k)
    found = queries.select("query_id", "query").repartition(partitions, "query_id").mapInArrow(listed, SCHEMA)
    clicked = pairs.select("query_id", "item_id", "clicks")
    return found.join(clicked, on=["query_id", "item_id"], how="left").fillna(0, subset=["clicks"])


def _lists(batches: Iterable[pa.RecordBatch], *, path: str, bundle: str, bundle_id: str, k: int) -> Iterator[pa.RecordBatch]:
    encoder, index = worker_bundle(bundle, bundle_id, task_device()), worker_index(path)
    for batch in batches:
        ids, queries = batch.column("query_id").to_pylist(), batch.column("query").to_pylist()
        good, vectors = encode_good(encoder, queries, "query")
        rows = [
            {"query_id": ids[i], "query": queries[i], "rank": rank, "item_id": hit.item_id, "score": hit.score}
            for i, hits in zip(good, index.nearest(vectors, k), strict=True)
            for rank, hit in enumerate(hits, start=1)
        ]
        yield pa.RecordBatch.from_pylist(rows, _ARROW_SCHEMA)
