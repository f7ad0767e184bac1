"""How fast the training reader gives packed batches, beside raw pyarrow and petastorm's own readers on the same files.

The dataset is made up: Zipf-distributed word hashes, queries of 4 tokens and titles of 10 on average, half of the titles
with a cut form. It is written once below ``--root`` in our format, with petastorm's metadata so that make_reader reads it.
"""

from __future__ import annotations

import datetime as dt
import json
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from benchmarks.speed.comparison import Comparison, faster, in_turn, record
from benchmarks.unleased import Unleased
from etl.config import JobConfig, arg_parser
from etl.dataset import COLUMNS, MANIFEST_FILE, DataFile, Manifest, schemas, verify
from etl.job import run_job
from model.ranks import Ranks
from model.reader import PAIR_COLUMNS, ReaderConfig, TrainingReader
from model.row_groups import Source, row_groups

FILES = 8
ROW_GROUP = 80_000
"""Rows; some 16 MiB, the default of `labeller dataset`."""
VOCABULARY = 200_000
BATCH = 512
CROPS = 0.5
"""A pair, which count as rows."""
TURNS = 5
PYARROW, ROW_BY_ROW, BY_ROW_GROUP = "pyarrow read_table", "petastorm make_reader", "petastorm make_batch_reader"
GOALS = {
    ("ours, ids and offsets", PYARROW): 0.2,
    ("ours, ids and offsets", ROW_BY_ROW): 100.0,
}
"""Least ratio of rates, of shuffled batches; row groups are only a part of the way to them, features are computed."""


class ReadingConfig(Unleased, JobConfig):
    """Settings of the benchmark."""

    root: str
    """Directory for the datasets, some 250 MB; those that are there are read again."""

    ds: dt.date = dt.date(2024, 5, 7)
    """Day in its manifest."""

    rows: Annotated[int, Field(ge=10_000)] = 1_000_000
    """Pairs."""

    sample: Annotated[int, Field(ge=10_000)] = 50_000
    """Rows of the dataset that make_reader reads: all of the other would take minutes, and a part of it, while its
    threads work ahead, would show less than its rate."""

    results: Path | None = None
    """Append a line of JSON for each comparison to this file."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(ReadingConfig, "python -m benchmarks.speed.reading", __doc__ or ""), ReadingConfig, run, argv)


def run(config: ReadingConfig) -> Mapping[str, Any]:
    """Ours beside pyarrow and petastorm: rows a CPU second of all threads, in turn, after one that warms the page cache.

    Raises:
        RuntimeError: a reader gave another number of rows.
    """
    dataset, sample = (_dataset(config, rows) for rows in (config.rows, config.sample))
    warnings.filterwarnings("ignore", category=FutureWarning)
    costs, rows = in_turn(readers(dataset, sample), TURNS)
    record(compared(costs, rows, config), config.results)
    return {"rows": config.rows, "path": dataset}


def compared(costs: Mapping[str, Sequence[float]], rows: Mapping[str, int], config: ReadingConfig) -> list[Comparison]:
    """Each of ours beside each of the others, by the seconds of a row; packed batches leave out a part of one at most."""
    for name, number in rows.items():
        wanted = config.sample if name == ROW_BY_ROW else int(config.rows * (1 + CROPS * name.endswith("crops")))
        least = wanted - 8 * BATCH if name.startswith("ours, ") and "row groups" not in name else wanted
        if not least <= number <= wanted:
            raise RuntimeError(f"{name} gave {number:,} rows of {wanted:,}: not comparable")
    a_row = {name: [cost / rows[name] for cost in seconds] for name, seconds in costs.items()}
    return [
        faster(
            "reading",
            f"{name}, {config.rows:,} pairs",
            peer,
            seconds,
            a_row[peer],
            check=f"{rows[name]:,} rows, peer {rows[peer]:,}",
            goal=GOALS.get((name, peer)),
            work=1,
            unit="rows a CPU s",
        )
        for name, seconds in a_row.items()
        if name.startswith("ours")
        for peer in (PYARROW, BY_ROW_GROUP, ROW_BY_ROW)
    ]


def _dataset(config: ReadingConfig, rows: int) -> Path:
    path = Path(config.root).expanduser() / f"reading-{rows}"
    if not (path / MANIFEST_FILE).is_file():
        make(path, rows, config.ds)
    return path


def readers(dataset: Path, sample: Path) -> dict[str, Callable[[], int]]:
    """By name, what reads the pairs once; each returns the rows it gave."""
    from petastorm import make_batch_reader, make_reader

    manifest = verify(dataset)
    files = [dataset / file.path for file in manifest.files("pairs")]
    source = Source(files=files, columns=PAIR_COLUMNS, seed=1, who="pairs")
    urls = [f"file://{path.resolve()}" for path in files]

    # Made once for all epochs of a training, so that its token table is not read in each.
    made = {
        (batch, crops): TrainingReader(dataset, manifest, ReaderConfig(batch=batch, crops=crops), Ranks())
        for batch, crops in ((BATCH, 0.0), (8 * BATCH, 0.0), (BATCH, CROPS))
    }

    def flat(batch: int) -> int:
        reader = made[batch, 0.0]
        return sum(len(rows) for _, rows, _ in reader.flat(reader.steps_per_epoch))

    def packed(batch: int, crops: float) -> int:
        reader = made[batch, crops]
        return sum(len(batch.rows) for batch in reader.batches(reader.steps_per_epoch))

    def row_by_row() -> int:
        with make_reader(f"file://{(sample / 'pairs').resolve()}", schema_fields=list(PAIR_COLUMNS)) as reader:
            return sum(1 for _ in reader)

    def by_row_group() -> int:
        with make_batch_reader(urls, schema_fields=list(PAIR_COLUMNS)) as reader:
            return sum(len(group.pair_id) for group in reader)

    return {
        PYARROW: lambda: sum(len(pq.read_table(path, columns=list(PAIR_COLUMNS))) for path in files),
        "ours, row groups": lambda: sum(map(len, row_groups(source, ahead=4, timeout_s=300))),
        "ours, ids and offsets": lambda: flat(BATCH),
        "ours, ids and offsets, 4096": lambda: flat(8 * BATCH),
        "ours, with features": lambda: packed(BATCH, 0.0),
        "ours, with features, 4096": lambda: packed(8 * BATCH, 0.0),
        f"ours, with features, {CROPS:g} crops": lambda: packed(BATCH, CROPS),
        BY_ROW_GROUP: by_row_group,
        ROW_BY_ROW: row_by_row,
    }


def make(dataset: Path, rows: int, ds: dt.date) -> None:
    """Write a dataset of ``rows`` pairs, manifest last."""
    shutil.rmtree(dataset, ignore_errors=True)
    rng = np.random.default_rng(0)
    words = np.unique(rng.integers(-(2**63), 2**63 - 1, VOCABULARY))
    titles, queries = rows // 5, rows // 4

    def texts(n: int, least: int, more: float) -> pa.Array:
        lengths = least + rng.poisson(more, n)
        ids = words[(len(words) * rng.random(lengths.sum()) ** 4).astype(np.int64)]
        return _binary(ids, lengths)

    def ids(n: int) -> np.ndarray:
        return rng.integers(-(2**63), 2**63 - 1, n)

    title, query, cut = texts(titles, 3, 7.0), texts(queries, 1, 3.0), texts(titles, 2, 7.0)
    shown, asked = rng.integers(0, titles, rows), rng.integers(0, queries, rows)
    item_group, query_group = ids(titles), ids(queries)
    empty = _binary(words[:0], np.zeros(titles, np.int64))
    use = pa.array(rng.random(rows) < 0.5)
    logp = np.float32(-np.log(titles))
    columns = {
        "pairs": {
            "pair_id": ids(rows),
            "query_group": query_group[asked],
            "item_group": item_group[shown],
            "weight": rng.random(rows, np.float32),
            "query_logp": np.full(rows, logp),
            "item_logp": np.full(rows, logp),
            "query": query.take(pa.array(asked)),
            "title": title.take(pa.array(shown)),
            "title_cut": pa.compute.if_else(use, cut.take(pa.array(shown)), empty.take(pa.array(shown))),
        },
        "titles": {"title_id": item_group, "item_group": item_group, "item_logp": np.full(titles, logp), "title": title},
        "corpus": {"title_id": item_group[:0], "title": title[:0]},
        "heldout": {
            "split": ["test"],
            "query_id": [1],
            "query": query[:1],
            "query_typos": query[:1],
            "language": ["latin"],
            "frequency": ["head"],
            "title_ids": [[1]],
            "seen_title_ids": pa.array([[]], pa.list_(pa.int64())),
        },
        "known": {"query_group": query_group[asked], "item_group": item_group[shown]},
    }
    for part, values in columns.items():
        _write(dataset / part, pa.table(values), FILES if part in ("pairs", "titles") else 1)
    _petastorm_metadata(dataset / "pairs")
    features = _binary(rng.integers(0, 2**17, 6 * len(words)).astype("<u4"), np.full(len(words), 6))
    pq.write_table(pa.table({"id": words, "features": features}), dataset / "tokens.parquet")
    _manifest(dataset, ds)


def _binary(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32) * values.itemsize
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.binary(), len(lengths), buffers)


def _write(directory: Path, table: pa.Table, files: int) -> None:
    directory.mkdir(parents=True)
    share = -(-len(table) // files)
    for n in range(files):
        part = table.slice(n * share, share)
        pq.write_table(part, directory / f"part-{n:05d}.parquet", row_group_size=ROW_GROUP)


def _petastorm_metadata(directory: Path) -> None:
    """What materialize_dataset leaves, without Spark: the Unischema and the row groups of each file."""
    from petastorm.codecs import ScalarCodec
    from petastorm.etl.dataset_metadata import ROW_GROUPS_PER_FILE_KEY, UNISCHEMA_KEY
    from petastorm.unischema import Unischema, UnischemaField
    from pyspark.sql.types import BinaryType, FloatType, LongType

    kinds = {"int64": (np.int64, LongType()), "float": (np.float32, FloatType()), "binary": (np.bytes_, BinaryType())}
    fields = [UnischemaField(n, kinds[k][0], (), ScalarCodec(kinds[k][1]), False) for n, k in COLUMNS["pairs"].items()]
    files = sorted(directory.glob("*.parquet"))
    groups = {path.name: pq.read_metadata(path).num_row_groups for path in files}
    extra = {UNISCHEMA_KEY: pickle.dumps(Unischema("pairs", fields)), ROW_GROUPS_PER_FILE_KEY: json.dumps(groups).encode()}
    pq.write_metadata(pq.read_schema(files[0]).with_metadata(extra), directory / "_common_metadata")


def _manifest(dataset: Path, ds: dt.date) -> None:
    def files(part: str) -> Iterator[DataFile]:
        place = dataset / part
        yield from (DataFile.of(dataset, path) for path in ([place] if place.is_file() else sorted(place.glob("*"))))

    parts: Any = {part: tuple(files(part)) for part in COLUMNS} | {"tokens": tuple(files("tokens.parquet")), "tokenizer": ()}
    Manifest(
        ds=ds,
        token_dtype="int64",
        tokenizer="none",
        normaliser="none",
        spec={"kind": "wordhash"},
        inputs={},
        parts=parts,
        schema=schemas(dataset, parts),
    ).write(dataset)


if __name__ == "__main__":
    sys.exit(main())
