"""The search for hard negatives on Spark's Python workers."""

# N titles, P pairs of an Arrow batch, Q distinct queries among them

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from etl.dataset import HARD_NEGATIVE, Manifest, decode_ids, load_token_table
from etl.tokenizer import TokenTable
from labeling.encoding import task_device, worker_bundle
from model.augment import uniform
from model.bundle import Bundle
from model.hard_negatives import hard_columns
from model.inference import embed
from model.known import KnownPairs
from model.packing import take
from model.retrieval import top_k

Batches = Iterable[pa.RecordBatch]
_ARROW = {"hard_title": pa.binary(), "hard_group": pa.int64()}
_VECTORS, _TITLES = "vectors.npy", "titles.arrow"
_USE = 6
"""Keeps this draw apart from those of training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What is searched by whom, and what counts as hard; see :class:`labeling.mine_negatives.MineConfig`."""

    bundle: str
    bundle_id: str
    dataset: str
    digest: str
    """The dataset's, by which a worker that lives on knows it from one of before."""
    corpus: str
    """Directory that :func:`lay_down` wrote, of a name of its own, by which a worker that lives on knows it."""
    negatives: int
    first_rank: int
    last_rank: int
    max_score_share: float
    seed: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a worker searches, by ascending title_id, so that ties are the same everywhere.

    Mapped from files, so that all workers of a machine share one copy: 2 GB of two million titles at 256 dimensions.
    """

    title_id: np.ndarray
    item_group: np.ndarray
    title: pa.ChunkedArray
    vectors: np.ndarray
    """[N, D] float32."""

    @classmethod
    def open(cls, directory: Path) -> Corpus:
        """What :func:`lay_down` wrote."""
        rest = pa.ipc.open_file(pa.memory_map(str(directory / _TITLES))).read_all()
        return cls(
            title_id=rest["title_id"].to_numpy(),
            item_group=rest["item_group"].to_numpy(),
            title=rest["title"],
            vectors=np.load(directory / _VECTORS, mmap_mode="r"),
        )


def lay_down(titles: DataFrame, directory: Path) -> None:
    """Write titles with their vectors to files that workers map.

    Args:
        titles: What :func:`with_vectors` returns.
        directory: Of the files; made here, where every worker sees it.
    """
    titles.select("title_id", "item_group", "title", "vector").write.parquet(str(directory))
    files = sorted(directory.glob("*.parquet"))
    place = np.concatenate([pq.read_table(file, columns=["title_id"])["title_id"].to_numpy() for file in files])
    place = np.argsort(np.argsort(place))
    vectors, start = None, 0
    for file in files:  # one at a time: together they are as large as what is written
        rows = pq.read_table(file, columns=["vector"])["vector"]
        for value in rows.to_pylist():
            if vectors is None:
                shape = (len(place), len(value) // 4)
                vectors = np.lib.format.open_memmap(directory / _VECTORS, "w+", np.float32, shape)
            vectors[place[start]] = np.frombuffer(value, np.float32)
            start += 1
    if vectors is not None:
        vectors.flush()  # workers of other machines open it next
    rest = pa.concat_tables(pq.read_table(file, columns=["title_id", "item_group", "title"]) for file in files)
    with pa.ipc.new_file(str(directory / _TITLES), rest.schema) as writer:
        writer.write_table(rest.sort_by("title_id"))


def with_vectors(titles: DataFrame, *, bundle: Bundle, dataset: Path, manifest: Manifest) -> DataFrame:
    """Rows of titles/ with the bundle's ``vector`` of each, float32 bytes."""
    path, bundle_id, kind, hashed = str(bundle.path), bundle.id, manifest.token_dtype, manifest.hashed
    digest = manifest.digest

    def encoded(batches: Batches) -> Iterator[pa.RecordBatch]:
        encoder = worker_bundle(path, bundle_id, task_device())
        table = _token_table(str(dataset), digest) if hashed else None
        for batch in batches:
            found = _vectors(encoder, batch.column("title").to_pylist(), kind, table)
            column = pa.array([row.tobytes() for row in found], pa.binary())
            yield pa.RecordBatch.from_arrays([*batch.columns, column], names=[*batch.schema.names, "vector"])

    tasks = 2 * titles.sparkSession.sparkContext.defaultParallelism
    return titles.repartition(tasks, "title_id").mapInArrow(encoded, f"{_ddl(titles)}, vector binary")


def add_negatives(pairs: DataFrame, search: Search) -> DataFrame:
    """Rows of pairs/ with their hard negatives, and ``hard_found``, how many different ones there were."""
    names = hard_columns(search.negatives)
    types = [*HARD_NEGATIVE.values()] * search.negatives
    added = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))

    def mined(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if len(batch):
                columns = mine(batch, search)
                names = [*batch.schema.names, *columns]
                yield pa.RecordBatch.from_arrays([*batch.columns, *columns.values()], names=names)

    return pairs.mapInArrow(mined, f"{_ddl(pairs)}, {added}, hard_found int")


def mine(batch: pa.RecordBatch, search: Search) -> dict[str, pa.Array]:
    """The columns that :func:`add_negatives` adds to rows of pairs/.

    A pair that has fewer than are wanted has them several times; one that has none has empty titles.
    """
    manifest = Manifest.read(Path(search.dataset))
    bundle = worker_bundle(search.bundle, search.bundle_id, task_device())
    table = _token_table(search.dataset, search.digest) if manifest.hashed else None
    corpus = _corpus(search.corpus)
    known = _known(search.dataset, search.digest)
    queries, query_of = _distinct(batch.column("query"))
    titles, title_of = _distinct(batch.column("title"))
    query_QD, title_TD = (_vectors(bundle, texts, manifest.token_dtype, table) for texts in (queries, titles))
    score_QK, found_QK = top_k(query_QD, corpus.vectors, search.last_rank)
    score_QK, found_QK = score_QK[:, search.first_rank :], found_QK[:, search.first_rank :]
    own_P = (query_QD[query_of] * title_TD[title_of]).sum(axis=1)
    limit_P = own_P - (1 - search.max_score_share) * np.abs(own_P)  # below the clicked title also where that is below 0
    pair_id, query_group, item_group = (batch.column(name).to_numpy() for name in ("pair_id", "query_group", "item_group"))
    rows: dict[str, list[object]] = {name: [] for name in (*hard_columns(search.negatives), "hard_found")}
    for pair, query in enumerate(query_of):
        found = found_QK[query][score_QK[query] < limit_P[pair]]
        group = corpus.item_group[found]
        clicked = np.append(clicked_groups(known, query_group[pair]), item_group[pair])
        found = found[~np.isin(group, clicked)]
        draw = uniform(search.seed, 0, pair_id[pair] ^ corpus.title_id[found], _USE)
        chosen = found[np.argsort(draw, kind="stable")][: search.negatives].tolist()
        rows["hard_found"].append(len(chosen))
        given = [(corpus.title[n].as_py(), corpus.item_group[n]) for n in chosen] or [(b"", 0)]
        for n in range(search.negatives):
            for name, value in zip(HARD_NEGATIVE, given[n % len(given)], strict=True):
                rows[f"{name}_{n}"].append(value)
    types = {f"{name}_{n}": kind for n in range(search.negatives) for name, kind in _ARROW.items()} | {
        "hard_found": pa.int32()
    }
    return {name: pa.array(values, types[name]) for name, values in rows.items()}


def clicked_groups(known: KnownPairs, query_group: int) -> np.ndarray:
    """Item groups that a query led to a click on."""
    place = np.searchsorted(known.queries, [query_group])
    if place[0] == len(known.queries) or known.queries[place[0]] != query_group:
        return np.zeros(0, dtype=np.int64)
    return take(known.offsets, known.items, place)[0]


def _vectors(bundle: Bundle, texts: list[bytes], token_dtype: str, table: TokenTable | None) -> np.ndarray:
    return embed(bundle.encoder, [decode_ids(text, token_dtype) for text in texts], table, bundle.device)


def _distinct(column: pa.Array) -> tuple[list[bytes], np.ndarray]:
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _ddl(frame: DataFrame) -> str:
    return ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in frame.schema)


@lru_cache(maxsize=1)
def _token_table(dataset: str, digest: str) -> TokenTable:
    return load_token_table(Path(dataset))


@lru_cache(maxsize=1)
def _known(dataset: str, digest: str) -> KnownPairs:
    return KnownPairs.load(Path(dataset), Manifest.read(Path(dataset)))


@lru_cache(maxsize=1)
def _corpus(path: str) -> Corpus:
    return Corpus.open(Path(path))
