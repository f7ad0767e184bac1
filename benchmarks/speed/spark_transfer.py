"""Rows between Spark and Python: how vectors come out, and how terms are given for stored ones, beside Spark's other ways.

Ours lays a vector down as `labeller embed` does (float16 bytes through mapInArrow) and reads it as `labeller predict` does;
the others hold array<float>. The work in Python is a look-up or a small product, the same on all sides, and what comes back
goes to Spark's `noop` sink: what is left to measure is the transfer, in CPU seconds of the JVM and its workers. One session,
with Java's optimising compiler, as executors of a cluster have it.
"""

# N rows of a batch, D embedding, T terms

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import Broadcast
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, StructType

from benchmarks.speed.comparison import Comparison, add_results_argument, faster, in_turn, record
from etl.config import SparkConfig
from etl.session import start_session
from labeling.encoding import VECTOR_SCHEMA

WARM_JVM = {"spark.driver.extraJavaOptions": "-XX:+UseParallelGC"}
"""In place of what local sessions have, whose rows are few."""

DIM, STORED, TERMS = 512, 4_096, 16
"""Numbers of a vector, distinct vectors, and terms of which an item is given the nearest."""

PEERS = ("pandas_udf", "mapInPandas", "predict_batch_udf", "mapInArrow, array<float>")
GOALS = {"pandas_udf": 10.0, "predict_batch_udf": 8.0, "mapInArrow, array<float>": 1.2}
"""Least ratios where vectors come out."""

ARRAYS = "item_id string, vector array<float>"
TERM = "term string, score double"
TERM_ROWS = f"item_id string, {TERM}"


class Look:
    """What stands for an encoder: the stored vector of a title, by the number at its end; shipped to every worker."""

    dim = DIM

    def __init__(self, stored: Broadcast[np.ndarray]) -> None:
        self.stored = stored

    def encode(self, titles: Sequence[str]) -> np.ndarray:
        """float32 unit vectors [N, D]."""
        return self.stored.value[np.fromiter((int(title[-8:]) for title in titles), np.int64, len(titles)) % STORED]


def items(spark: SparkSession, rows: int) -> DataFrame:
    """Rows item_id, title, kept in memory."""
    number = F.lpad(F.col("id").cast("string"), 8, "0")
    title = F.concat(F.lit("Air Zoom 39 black, size "), number)
    return settled(spark.range(rows).select(F.concat(F.lit("item"), number).alias("item_id"), title.alias("title")))


def unit_vectors() -> np.ndarray:
    """float32 [STORED, D]."""
    drawn = np.random.default_rng(3).standard_normal((STORED, DIM), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


# Vectors out


def vector_sides(rows: DataFrame, look: Look) -> dict[str, DataFrame]:
    """Rows item_id, title -> rows item_id, vector, as ours and as every peer gives them."""

    @F.pandas_udf("array<float>")  # type: ignore[call-overload]  # its stubs know the kinds of before Spark 3 only
    def udf(titles: pd.Series) -> pd.Series:
        return series_of_vectors(titles, look)

    # Its model has as many inputs as parameters.
    batch_udf = predict_batch_udf(
        lambda: lambda titles: look.encode(titles.tolist()), return_type=ArrayType(FloatType()), batch_size=STORED
    )
    return {
        "ours": rows.mapInArrow(partial(vectors_as_bytes, look=look), VECTOR_SCHEMA),
        "pandas_udf": rows.select("item_id", udf("title").alias("vector")),
        "mapInPandas": rows.mapInPandas(partial(vectors_in_pandas, look=look), ARRAYS),
        "predict_batch_udf": rows.select("item_id", batch_udf("title").alias("vector")),
        "mapInArrow, array<float>": rows.mapInArrow(partial(vectors_as_arrays, look=look), ARRAYS),
    }


def vectors_as_bytes(batches: Iterable[pa.RecordBatch], look: Look) -> Iterator[pa.RecordBatch]:
    """As :func:`labeling.encoding.encode_texts` lays them down, without its looks at their length; ids stand for hashes."""
    for batch in batches:
        ids, titles = (column.to_pylist() for column in batch.columns)
        found = [vector.astype("<f2").tobytes() for vector in look.encode(titles)]
        columns = [pa.array(ids, pa.string()), pa.array(found, pa.binary()), pa.array([look.dim] * len(ids), pa.int32())]
        yield pa.RecordBatch.from_arrays(
            [*columns, pa.nulls(len(ids), pa.string())], ["text_hash", "vector", "dim", "reason"]
        )


def vectors_as_arrays(batches: Iterable[pa.RecordBatch], look: Look) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        flat = pa.array(look.encode(batch.column("title").to_pylist()).ravel())
        offsets = pa.array(np.arange(0, len(flat) + 1, look.dim, dtype=np.int32))
        yield pa.RecordBatch.from_arrays(
            [batch.column("item_id"), pa.ListArray.from_arrays(offsets, flat)], ["item_id", "vector"]
        )


def vectors_in_pandas(frames: Iterable[pd.DataFrame], look: Look) -> Iterator[pd.DataFrame]:
    for frame in frames:
        yield pd.DataFrame({"item_id": frame["item_id"], "vector": series_of_vectors(frame["title"], look)})


def series_of_vectors(titles: pd.Series, look: Look) -> pd.Series:
    return pd.Series(list(look.encode(titles.tolist())), index=titles.index)


# Vectors in, terms out


def term_sides(rows: DataFrame, look: Look, terms_TD: np.ndarray) -> dict[str, DataFrame]:
    """Rows item_id, title -> rows item_id, term, score: of stored bytes by ours, of stored arrays by every peer."""
    sides = vector_sides(rows, look)
    ours = settled(sides["ours"].select(F.col("text_hash").alias("item_id"), "vector"))
    arrays = settled(sides["mapInArrow, array<float>"])
    give = partial(nearest, terms_TD=terms_TD)

    @F.pandas_udf(TERM)  # type: ignore[call-overload]
    def udf(vectors: pd.Series) -> pd.DataFrame:
        return frame_of_terms(vectors, give)

    batch_udf = predict_batch_udf(
        lambda: lambda vectors_ND: batch_of_terms(vectors_ND, give),
        return_type=StructType.fromDDL(TERM), batch_size=STORED, input_tensor_shapes=[[look.dim]],
    )  # fmt: skip
    return {
        "ours": ours.mapInArrow(partial(terms_of_bytes, give=give), TERM_ROWS),
        "pandas_udf": arrays.select("item_id", udf("vector").alias("given")).select("item_id", "given.*"),
        "mapInPandas": arrays.mapInPandas(partial(terms_in_pandas, give=give), TERM_ROWS),
        "predict_batch_udf": arrays.select("item_id", batch_udf("vector").alias("given")).select("item_id", "given.*"),
        "mapInArrow, array<float>": arrays.mapInArrow(partial(terms_of_arrays, give=give), TERM_ROWS),
    }


Given = tuple[list[str], np.ndarray]
"""Terms, and their scores [N]."""


def nearest(vectors_ND: np.ndarray, terms_TD: np.ndarray) -> Given:
    """The nearest term of each, and its cosine."""
    scores_NT = vectors_ND.astype(np.float32, copy=False) @ terms_TD.T
    return [f"term {place}" for place in scores_NT.argmax(axis=1).tolist()], scores_NT.max(axis=1).astype(np.float64)


Give = Callable[[np.ndarray], Given]


def terms_of_bytes(batches: Iterable[pa.RecordBatch], give: Give) -> Iterator[pa.RecordBatch]:
    """As :func:`labeling.scoring.score_items` reads its vectors."""
    for batch in batches:
        matrix = np.frombuffer(b"".join(batch.column("vector").to_pylist()), dtype="<f2").reshape(batch.num_rows, -1)
        yield as_term_rows(batch.column("item_id"), give(matrix))


def terms_of_arrays(batches: Iterable[pa.RecordBatch], give: Give) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        matrix = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
        yield as_term_rows(batch.column("item_id"), give(matrix))


def as_term_rows(ids: pa.Array, given: Given) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([ids, *map(pa.array, given)], ["item_id", "term", "score"])


def terms_in_pandas(frames: Iterable[pd.DataFrame], give: Give) -> Iterator[pd.DataFrame]:
    for frame in frames:
        yield frame_of_terms(frame["vector"], give).assign(item_id=frame["item_id"])[["item_id", "term", "score"]]


def frame_of_terms(vectors: pd.Series, give: Give) -> pd.DataFrame:
    terms, scores = give(np.stack(vectors.to_list()))
    return pd.DataFrame({"term": terms, "score": scores}, index=vectors.index)


def batch_of_terms(vectors_ND: np.ndarray, give: Give) -> dict[str, np.ndarray]:
    terms, scores = give(vectors_ND)
    return {"term": np.array(terms, dtype=object), "score": scores}


# Both


def same_vectors(ours: DataFrame, theirs: DataFrame) -> str:
    """What was compared: ids, and that theirs rounded to float16 are ours.

    Raises:
        RuntimeError: they differ.
    """
    bytes_, arrays = in_order(ours, "text_hash"), in_order(theirs, "item_id")
    require_same_ids(bytes_["text_hash"], arrays["item_id"])
    found = np.frombuffer(b"".join(bytes_["vector"].to_pylist()), dtype="<f2")
    expected = arrays["vector"].combine_chunks().flatten().to_numpy().astype(np.float16)
    if not np.array_equal(found, expected):
        raise RuntimeError("the vectors are others (expected ours to be theirs, rounded to float16)")
    return f"{bytes_.num_rows:,} rows: same ids, theirs rounded to float16 are ours"


def same_terms(ours: DataFrame, theirs: DataFrame) -> str:
    """What was compared: ids, and terms and scores as far as float16 goes.

    Raises:
        RuntimeError: they differ.
    """
    found, expected = in_order(ours, "item_id"), in_order(theirs, "item_id")
    require_same_ids(found["item_id"], expected["item_id"])
    # Of unit vectors the rounded one is at most 2^-11 away, whatever the term; within twice that two terms may swap.
    near = 2.0**-11
    scores, others = found["score"].to_numpy(), expected["score"].to_numpy()
    same = np.array(found["term"].to_pylist()) == np.array(expected["term"].to_pylist())
    if np.abs(scores - others).max() > near:
        raise RuntimeError(f"scores are {np.abs(scores - others).max():.1e} apart (expected at most {near:.1e})")
    if same.mean() < 1 - 0.01:
        raise RuntimeError(f"{same.mean():.1%} of the items have the same term (expected >= 99%, float16 moves few)")
    return f"{len(same):,} rows: same ids, scores within {near:.0e}, {same.mean():.2%} same terms"


def in_order(frame: DataFrame, key: str) -> pa.Table:
    return frame.toArrow().sort_by(key)


def require_same_ids(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> None:
    if not ours.equals(theirs):
        raise RuntimeError(f"{len(ours)} rows and {len(theirs)} rows of the other side, or other ids (expected the same)")


def settled(frame: DataFrame) -> DataFrame:
    """The frame, computed and kept in memory."""
    frame = frame.persist()
    frame.count()
    return frame


def compare(
    case: str,
    sides: Mapping[str, DataFrame],
    check: Callable[[DataFrame, DataFrame], str],
    turns: int,
    goals: Mapping[str, float],
    rows: int,
) -> list[Comparison]:
    """Ours beside every peer.

    Raises:
        RuntimeError: a side gives other rows.
    """
    checks = {peer: check(sides["ours"], frame) for peer, frame in sides.items() if peer != "ours"}
    costs, _ = in_turn({name: partial(to_nowhere, frame) for name, frame in sides.items()}, turns)
    return [
        faster(
            "transfer", case, peer, costs["ours"], costs[peer],
            check=said, goal=goals.get(peer), work=rows, unit="rows/CPU s",
        )
        for peer, said in checks.items()
    ]  # fmt: skip


def to_nowhere(frame: DataFrame) -> None:
    frame.write.format("noop").mode("overwrite").save()


def run(spark: SparkSession, rows: int, turns: int) -> list[Comparison]:
    """Both cases."""
    frame, stored = items(spark, rows), unit_vectors()
    look = Look(spark.sparkContext.broadcast(stored))
    out = compare(f"vectors of {DIM} out, {rows:,} rows", vector_sides(frame, look), same_vectors, turns, GOALS, rows)
    sides = term_sides(frame, look, stored[:TERMS])
    return out + compare(f"vectors of {DIM} in, terms out, {rows:,} rows", sides, same_terms, turns, {}, rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.spark_transfer", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rows", type=int, default=40_000, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=5, help="of each side, default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of Spark, default: %(default)s")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    with TemporaryDirectory() as scratch:
        master = f"local[{args.threads}]"
        config = SparkConfig(root=scratch, master=master, spark_conf=WARM_JVM)
        spark = start_session("benchmark of transfer", config)
        try:
            found = run(spark, args.rows, args.turns)
        finally:
            spark.stop()
    record(found, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
