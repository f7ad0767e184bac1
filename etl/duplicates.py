"""Groups of texts that are nearly equal: colour and size variants, relistings. They are never each other's negatives.

MinHash signatures (Broder 1997, by the library datasketch) cut into bands (Leskovec et al., "Mining of Massive Datasets",
section 3.4) propose, exact Jaccard similarity of the words decides, connected components join. Cost grows linearly: within a
band's bucket each text is compared with the one of the smallest id and with its neighbour, not with all.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.session import settle
from etl.text import words

BANDS, ROWS = 16, 4
"""A pair of similarity s shares a bucket with probability 1 - (1 - s^4)^16: .9998 at .8, .64 at .5."""
_MINHASH = {"num_perm": BANDS * ROWS, "seed": 1, "scheme": "affine32"}
_MAX_ROUNDS = 50


def near_duplicates(texts: DataFrame, threshold: float) -> DataFrame:
    """(title_id, text), normalised and distinct -> (title_id, item_group) of the texts that have a near-duplicate.

    Args:
        texts: See above.
        threshold: Jaccard similarity of the sets of words from which two texts are nearly equal.

    Raises:
        RuntimeError: the groups are not settled after fifty rounds.
    """
    signed = settle(texts.mapInArrow(_signatures, "title_id bigint, words array<int>, bands array<bigint>"))
    pairs = signed.transform(candidates)
    for side in ("one", "other"):
        pairs = pairs.join(signed.select(F.col("title_id").alias(side), F.col("words").alias(f"{side}_words")), side)
    shared = F.size(F.array_intersect("one_words", "other_words"))
    union = F.size("one_words") + F.size("other_words") - shared
    return connected(pairs.where(shared >= F.lit(threshold) * union).select("one", "other"))


def candidates(signed: DataFrame) -> DataFrame:
    """(title_id, bands) -> distinct pairs (one, other) of ids, one < other, that share a bucket."""
    buckets = signed.select("title_id", F.explode("bands").alias("bucket"))
    bucket = Window.partitionBy("bucket").orderBy("title_id")
    first, before = F.first("title_id").over(bucket), F.lag("title_id").over(bucket)
    linked = buckets.select("title_id", F.array_distinct(F.array(first, before)).alias("ones"))
    pairs = linked.select(F.explode("ones").alias("one"), F.col("title_id").alias("other"))
    return pairs.where(F.col("one") < F.col("other")).distinct()


def connected(edges: DataFrame) -> DataFrame:
    """Edges (one, other) -> (title_id, item_group): every node with the smallest id that can be reached from it.

    Raises:
        RuntimeError: not settled after fifty rounds.
    """
    edges = settle(edges)
    both = edges.union(edges.select("other", "one")).toDF("title_id", "neighbour")
    labels = both.groupBy("title_id").agg(F.min("neighbour").alias("_least"))
    labels = settle(labels.select("title_id", F.least("title_id", "_least").alias("item_group")))
    for _ in range(_MAX_ROUNDS):
        # Pointer jumping: a label's own label is nearer still, so that a chain of n is settled in some log2(n) rounds.
        theirs = both.join(labels.toDF("neighbour", "_theirs"), "neighbour", how="inner")
        least = theirs.groupBy("title_id").agg(F.min("_theirs").alias("_least"))
        ends = labels.toDF("item_group", "_end")
        joined = labels.join(least, "title_id", how="inner").join(ends, "item_group", how="inner")
        best = F.least("_least", "_end")
        new = settle(joined.select("title_id", best.alias("_new"), (best < F.col("item_group")).alias("_moved")))
        settled = new.where("_moved").isEmpty()
        labels = new.select("title_id", F.col("_new").alias("item_group"))
        if settled:
            return labels
    raise RuntimeError(f"groups of near-duplicates are not settled after {_MAX_ROUNDS} rounds")


def _signatures(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """(title_id, text) -> title_id, hashes of its words, and a key for each band of its signature."""
    from datasketch import MinHash  # not above: with it comes scipy, a second of every job that reads clicks

    for batch in batches:
        sets = [sorted(set(words(text))) for text in batch.column("text").to_pylist()]
        made = MinHash.bulk([[word.encode() for word in found] for found in sets], **_MINHASH)
        values = np.stack([signature.hashvalues for signature in made]) if made else np.empty((0, BANDS * ROWS), np.uint64)
        arrays = [batch.column("title_id"), _word_hashes(sets), _band_keys(values)]
        yield pa.RecordBatch.from_arrays(arrays, names=["title_id", "words", "bands"])


def _word_hashes(sets: list[list[str]]) -> pa.Array:
    """Each set of words as an array of distinct 32-bit hashes."""
    return pa.array([[zlib.crc32(word.encode()) - 2**31 for word in found] for found in sets], pa.list_(pa.int32()))


def _band_keys(values: np.ndarray) -> pa.Array:
    """Signatures [N, BANDS * ROWS] -> N lists of BANDS keys: a hash of the band's values and its number."""
    keys = np.broadcast_to(np.arange(BANDS, dtype=np.uint64), (len(values), BANDS)).copy()
    for row in values.astype(np.uint64).reshape(len(values), BANDS, ROWS).transpose(2, 0, 1):
        keys = (keys ^ row) * np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit is lost; wraps around
        keys ^= keys >> np.uint64(29)
    return pa.ListArray.from_arrays(np.arange(0, keys.size + 1, BANDS, dtype=np.int32), keys.astype(np.int64).reshape(-1))
