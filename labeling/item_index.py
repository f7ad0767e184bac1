"""The items of a day as a faiss index on disk that a service and Spark's workers load: exact search, ties by item_id.

One place of the index is one distinct text, and stands for all items that have it. The directory holds ``vectors.faiss``
(flat, inner product), ``items.arrow`` (the item ids of each place) and ``manifest.json`` (bundle, day, SHA-256 of both).
"""

# T distinct texts, N queries, D embedding

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.durable import read_json, write_json
from etl.errors import InputError
from etl.lease import DayTaken, hold_day
from etl.warehouse import Warehouse
from labeling.term_search import DECIMALS
from model.retrieval import search

if TYPE_CHECKING:  # a service loads an index without Spark
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

FORMAT = 1
VECTORS_FILE, ITEMS_FILE, MANIFEST_FILE, LIVE_FILE = "vectors.faiss", "items.arrow", "manifest.json", "live.json"

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-[0-9a-f]{12}")
_WRITING = re.compile(r"\.writing-(\d{4}-\d\d-\d\d)-\w+")
"""Names of directories that :func:`write_item_index` makes, whole ones and those that are not yet, with the day of each."""

_SPARE = 16  # float32 may order near ties otherwise than float64
_GATHERED = 16_384  # neighbours' vectors that are held at once: at 256 dimensions in float64 they are 34 MB
_ADDED = 65_536  # vectors that are turned into float32 at once


class Hit(NamedTuple):
    """One item that was found; ``score`` is the cosine, rounded to 6 decimals."""

    item_id: str
    score: float


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """A loaded, verified index; :func:`load_item_index` makes one."""

    path: Path
    manifest: Mapping[str, Any]
    vectors: np.ndarray
    """float32 [T, D] unit vectors, mapped from the file: workers of one machine share them."""
    items: pa.ListArray
    """Item ids of each place, ascending; places ascend by their first id."""
    index: Any
    """The faiss index that owns the vectors, for who wants to call it directly."""

    @property
    def bundle(self) -> str:
        """Id of the bundle that made the vectors: queries must be encoded by the same."""
        return str(self.manifest["bundle"])

    def nearest(self, vectors_ND: np.ndarray, k: int) -> list[list[Hit]]:
        """The ``k`` nearest items of each unit vector [N, D], best first, ties by item_id; fewer if there are fewer."""
        return [self.as_hits(*row, k) for row in zip(*self.places(vectors_ND, k), strict=True)]

    def places(self, vectors_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and places of the ``k`` nearest texts [N, min(k, T)], ties by place; exact at any batch size.

        faiss searches in float32; what it finds is scored again in float64 and rounded, so that neither the number of
        queries in a matrix product nor a machine's BLAS shows in a score.
        """
        k = min(k, len(self.vectors))
        scores, found = np.empty((len(vectors_ND), k)), np.empty((len(vectors_ND), k), dtype=np.int64)
        todo, fetch = np.arange(len(vectors_ND)), min(len(self.vectors), k + _SPARE)
        while len(todo) and k:
            unsure = []
            for rows in _chunks(todo, max(_GATHERED // fetch, 1)):
                scores[rows], found[rows], sure = self._scored(vectors_ND[rows], k, fetch)
                unsure.append(rows[~sure])
            todo, fetch = np.concatenate(unsure), min(len(self.vectors), fetch * 4)
        return scores, found

    def _scored(self, vectors_ND: np.ndarray, k: int, fetch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raw, places = search(vectors_ND, self.vectors, fetch)
        exact = np.einsum("nd,nfd->nf", vectors_ND.astype(np.float64), self.vectors[places].astype(np.float64))
        exact = exact.round(DECIMALS) + 0.0  # -0.0 sorts like 0.0 but prints otherwise
        order = np.lexsort((places, -exact), axis=1)[:, :k]
        scores = np.take_along_axis(exact, order, 1)
        # What was not fetched is no nearer in float32 than the last that was; its float64 score is off by D roundings.
        slack = self.vectors.shape[1] * np.finfo(np.float32).eps / 2 + 10.0**-DECIMALS
        sure = (raw.min(axis=1) + slack < scores[:, -1]) | (fetch == len(self.vectors))
        return scores, np.take_along_axis(places, order, 1), sure

    def as_hits(self, scores: np.ndarray, places: np.ndarray, k: int) -> list[Hit]:
        """The items at ``places``, best first, ties by item_id.

        Exact for the first ``k`` if those are the ``k`` first places: each stands for an item at least, and places of
        equal scores are in the order of their first items.
        """
        hits = [Hit(item, score) for place, score in zip(places.tolist(), scores.tolist(), strict=True)
                for item in self.items_at(place)]  # fmt: skip
        return sorted(hits, key=lambda hit: (-hit.score, hit.item_id))[:k]

    def items_at(self, place: int) -> list[str]:
        """Ids of the items with the text of this place."""
        return self.items[place].as_py()

    def places_of(self, item_ids: pa.Array) -> np.ndarray:
        """Place of each item, int64 [N]; -1 for one that the index does not hold."""
        parents = pc.list_parent_indices(self.items)
        rows = pc.index_in(item_ids, value_set=self.items.flatten())
        return pc.fill_null(pc.take(parents, rows), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def write_item_index(texts: DataFrame, warehouse: Warehouse, *, bundle: str, ds: dt.date, run_id: str) -> Path:
    """Rows items (sorted array of ids), vector (float16 bytes) -> a directory under ``item_index/``; returns its path.

    Executors write the rows to files, the driver lays them out: it holds T x D x 6 bytes, 1.5 GB of a million texts at
    256 dimensions. The name is made of day and content, so a rerun writes the same directory.
    """
    warehouse.item_indexes.mkdir(exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".writing-{ds}-", dir=warehouse.item_indexes))
    try:
        texts.select("items", "vector").write.parquet(str(aside / "rows"))
        items, halves_TD = _sorted_rows(aside / "rows")
        shutil.rmtree(aside / "rows")
        index = faiss.IndexFlatIP(halves_TD.shape[1])
        for start in range(0, len(halves_TD), _ADDED):
            rows = halves_TD[start : start + _ADDED].astype(np.float32)
            index.add(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        faiss.write_index(index, str(aside / VECTORS_FILE))
        with pa.ipc.new_file(str(aside / ITEMS_FILE), pa.schema([("items", items.type)])) as writer:
            writer.write_table(pa.table({"items": items}))
        files = {name: _sha256(aside / name) for name in (VECTORS_FILE, ITEMS_FILE)}
        content = {"format": FORMAT, "bundle": bundle, "ds": ds.isoformat(), "run_id": run_id, "dim": index.d,
                   "texts": index.ntotal, "items": len(items.flatten()), "files": files}  # fmt: skip
        write_json(aside / MANIFEST_FILE, content)
        name = hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()[:12]
        final = index_directory(warehouse, f"{ds}-{name}")
        if not _is_whole(final, content):  # else it is there already, and a service may be loading it
            shutil.rmtree(final, ignore_errors=True)
            aside.chmod(0o755)
            aside.rename(final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def load_item_index(path: Path | str, bundle: str | None = None) -> ItemIndex:
    """The index in a directory, its files verified against their hashes and mapped.

    Args:
        path: A directory under ``item_index/``.
        bundle: Id of the bundle that queries will be encoded with.

    Raises:
        InputError: no index there, another format, a file missing or changed, or the vectors are of another bundle.
    """
    path = Path(path)
    manifest = read_json(path / MANIFEST_FILE, "is no item index: make one with `labeller relate`")
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path}: item index format {manifest.get('format')!r}, this version reads {FORMAT}: "
                         "run `labeller relate` again")  # fmt: skip
    problems = [problem for name, expected in manifest["files"].items() if (problem := _damage(path / name, expected))]
    if problems:
        raise InputError.of(problems, heading=f"item index {path} is damaged (run `labeller relate` again):")
    if bundle is not None and bundle != manifest["bundle"]:
        raise InputError(
            f"item index {path} holds vectors of bundle {manifest['bundle']}, queries would be of bundle {bundle} (expected "
            "one bundle for both: cosines between two mean nothing): encode with that one, or run `labeller relate` again"
        )
    index: Any = faiss.read_index(str(path / VECTORS_FILE), faiss.IO_FLAG_MMAP_IFC)
    vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    items = pa.ipc.open_file(pa.memory_map(str(path / ITEMS_FILE))).read_all()["items"].combine_chunks()
    return ItemIndex(path, manifest, vectors, items, index)


def index_directory(warehouse: Warehouse, name: str) -> Path:
    """Directory of an index, which need not be there.

    Raises:
        InputError: the name is none that an index has, or that is a link.
    """
    path = warehouse.item_indexes / name
    if not _NAME.fullmatch(name):
        raise InputError(f"item index {name!r} is not under {path.parent}: give the name of a directory there (DAY-HASH)")
    if path.is_symlink():
        raise InputError(f"{path} is a link to {path.readlink()} (expected a directory): remove it")
    return path


def live_names(warehouse: Warehouse) -> tuple[str | None, str | None]:
    """Names of the directories of the index that is live, and of the one before it, by ``live.json``; None: there is none.

    Raises:
        InputError: the file cannot be read, or names what is no index of this warehouse.
    """
    file = warehouse.item_indexes / LIVE_FILE
    if not file.exists():
        return None, None
    content: Any = read_json(file)
    names = (content.get("index"), content.get("before")) if isinstance(content, dict) else (content, None)
    try:
        for name in names:
            if name is not None:
                index_directory(warehouse, str(name))
    except InputError as error:
        raise InputError(
            f"{file}: {error}, or delete {LIVE_FILE} and run `labeller relate` again for the live day"
        ) from None
    return names


def live_item_index(root: Path | str, bundle: str | None = None) -> ItemIndex:
    """The index of the items that are live in a warehouse; call again after a night for the new one.

    Raises:
        InputError: as :func:`load_item_index` and :func:`live_names`; there is none yet.
    """
    warehouse = Warehouse.at(str(root))
    live, _ = live_names(warehouse)
    if live is None:
        raise InputError(f"{warehouse.item_indexes} has no live item index: run `labeller relate` first (no {LIVE_FILE})")
    return load_item_index(index_directory(warehouse, live), bundle)


def set_live(warehouse: Warehouse, path: Path) -> None:
    """Point ``live.json`` to an index by one atomic rename; the one before is kept for services that are loading it.

    Raises:
        InputError: as :func:`live_names`; nothing is written or removed then.
    """
    live, before = live_names(warehouse)
    if live == path.name:
        return
    write_json(warehouse.item_indexes / LIVE_FILE, {"index": path.name, "before": live})
    if before not in (None, path.name):
        shutil.rmtree(index_directory(warehouse, str(before)), ignore_errors=True)  # what resists goes with the leftovers


def drop_unless_live(warehouse: Warehouse, path: Path) -> None:
    """Remove an index that ``live.json`` does not name: one of a day that is not the newest serves its own run only."""
    if path.name not in live_names(warehouse):
        shutil.rmtree(path)


def drop_leftovers(warehouse: Warehouse, locks: Path, ds: dt.date) -> None:
    """Remove what killed runs of `labeller relate` left: directories that it names so, and that ``live.json`` does not name.

    Who writes an index holds the lease of its day. The caller must hold that of ``ds``. That of another day is taken while
    its leftovers are removed; where somebody has it, what lies there may be in the making, and stays until the next time.

    Args:
        warehouse: See there.
        locks: Where leases lie (:func:`etl.lease.lock_directory`).
        ds: The caller's day.

    Raises:
        InputError: as :func:`live_names`.
    """
    live_names(warehouse)
    for path in sorted(warehouse.item_indexes.glob("*")):
        day = _day_of(path)
        if day is None:
            continue
        try:
            with nullcontext() if day == ds else hold_day(locks, day, "labeller relate (removes leftovers)"):
                if path.name not in live_names(warehouse):  # under the lease: its last holder may have made it live
                    shutil.rmtree(path)
                    log.info("removed %s, which a run that was killed had left", path)
        except DayTaken:
            log.info("%s stays: somebody writes for its day", path)


def _day_of(path: Path) -> dt.date | None:
    """Day of a directory that :func:`write_item_index` made; None of anything else."""
    named = _NAME.fullmatch(path.name) or _WRITING.fullmatch(path.name)
    if named is None or path.is_symlink() or not path.is_dir():
        return None
    with suppress(ValueError):
        return dt.date.fromisoformat(named[1])
    return None


@lru_cache(maxsize=1)
def worker_index(path: str) -> ItemIndex:
    """The index at ``path``, verified and mapped once per Python worker; its name is made of its content."""
    faiss.omp_set_num_threads(1)  # Spark runs one worker per core
    return load_item_index(path)


def _sorted_rows(directory: Path) -> tuple[pa.ListArray, np.ndarray]:
    """Item ids and float16 vectors [T, D] of Parquet files, ascending by the first id."""
    files = sorted(directory.glob("*.parquet"))
    ids = pa.concat_arrays([c for f in files for c in pq.read_table(f, columns=["items"])["items"].chunks])
    order = pc.sort_indices(pc.list_element(ids, 0)).to_numpy()
    place = np.argsort(order)
    vectors, start = np.empty((0, 0), dtype=np.float16), 0
    for file in files:  # one at a time: together they are as large as what they become
        for value in pq.read_table(file, columns=["vector"])["vector"].to_pylist():
            if not vectors.size:
                vectors = np.empty((len(ids), len(value) // 2), dtype=np.float16)
            vectors[place[start]] = np.frombuffer(value, dtype="<f2")
            start += 1
    return ids.take(pa.array(order)), vectors


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _is_whole(directory: Path, content: Mapping[str, Any]) -> bool:
    file = directory / MANIFEST_FILE
    files: Mapping[str, str] = content["files"]
    return file.is_file() and read_json(file) == content and not any(_damage(directory / n, h) for n, h in files.items())


def _damage(file: Path, expected: str) -> str | None:
    if not file.is_file():
        return f"{file.name} is missing"
    found = _sha256(file)
    return None if found == expected else f"{file.name} has SHA-256 {found[:12]}…, expected {expected[:12]}…"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
