"""Encoding on Spark's Python workers: the bundle once per process, some thousand texts at a time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pyspark import TaskContext

from etl.errors import InputError
from etl.warehouse import Warehouse
from labeling.product_text import NOT_ENCODABLE
from labeling.tally import Tally
from model.bundle import Bundle, champion, load_bundle

log = logging.getLogger(__name__)

CHUNK = 4_096
"""Texts that are tokenised and encoded at a time; a text's vector does not depend on the others."""

Side = Literal["query", "title"]

Device = Literal["task", "cpu"]
"""Where to encode: ``task``: see :func:`task_device`."""

VECTOR_SCHEMA = "text_hash string, vector binary, dim int, reason string"

_ARROW_SCHEMA = pa.schema(
    [("text_hash", pa.string()), ("vector", pa.binary()), ("dim", pa.int32()), ("reason", pa.string())]
)

_Row = tuple[str, str | None, str | None]  # text_hash, text, reason


def labelling_bundle(warehouse: Warehouse, pinned: str) -> Path:
    """Directory of the bundle ``pinned``, or of the champion where that is empty.

    Raises:
        InputError: there is no such bundle, or no champion yet.
    """
    if pinned:
        path = warehouse.bundle(pinned)
        if not path.is_dir():
            raise InputError(f"bundle {pinned!r} is not under {warehouse.bundles}: give the name of a directory there")
        return path
    found = champion(warehouse)
    if found is None:
        raise InputError(
            f"{warehouse.bundles} has no champion: run `labeller train`, `labeller calibrate` and `labeller promote` first"
        )
    return found


def encode_texts(
    batches: Iterable[pa.RecordBatch],
    *,
    path: str,
    bundle_id: str,
    device: Device = "task",
    tally: Tally | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows (text_hash, text, reason) -> rows of VECTOR_SCHEMA, one for one.

    A row that has no text keeps its reason; one that the encoder fails on gets one.

    Raises:
        InputError: the bundle is damaged or another, or Spark gave a GPU that torch does not find.
    """
    bundle = worker_bundle(path, bundle_id, task_device() if device == "task" else device)
    rows = _rows(batches)
    while chunk := list(itertools.islice(rows, CHUNK)):
        halvings: list[int] = []
        yield _encoded(bundle, chunk, partial(halvings.append, 1))
        if halvings:
            log.warning("out of memory: %d calls of the encoder were halved for %d texts", len(halvings), len(chunk))
        if tally is not None:
            tally.texts.add(len(chunk))
            tally.halved.add(len(halvings))


@lru_cache(maxsize=1)
def worker_bundle(path: str, bundle_id: str, device: str) -> Bundle:
    """The bundle at ``path``, loaded once per Python worker; its files are verified against their hashes there.

    Raises:
        InputError: it is damaged, or not the one that the driver chose.
    """
    if device == "cpu":
        torch.set_num_threads(1)  # Spark runs one worker per core; more threads each would fight for them
    bundle = load_bundle(Path(path), device)
    if bundle.id != bundle_id:
        raise InputError(
            f"{path} holds bundle {bundle.id} on this worker, the driver chose {bundle_id}: is the storage shared?"
        )
    return bundle


def task_gpu() -> str | None:
    """Address of the GPU that Spark gave to this task; None where it gave none. Spark does not set CUDA_VISIBLE_DEVICES."""
    context = TaskContext.get()
    gpu = context.resources().get("gpu") if context else None
    return str(gpu.addresses[0]) if gpu else None


def task_device() -> str:
    """The GPU that Spark gave to this task, or the CPU.

    Raises:
        InputError: torch finds no such GPU.
    """
    address = task_gpu()
    if address is None:
        return "cpu"
    if address not in map(str, range(torch.cuda.device_count())):
        raise InputError(
            f"Spark gave this task GPU {address!r}, torch finds {torch.cuda.device_count()} GPUs on this worker: is the "
            "discovery script right, and torch built for CUDA? Or encode on the CPU: `labeller embed --device cpu`"
        )
    return f"cuda:{address}"


def encode_each(bundle: Bundle, texts: Sequence[str], halved: Callable[[], None] | None = None) -> list[bytes | None]:
    """Float16 bytes of the unit vector of each title; None for one that the encoder fails on."""
    vectors = vector_each(bundle, texts, "title", halved)
    return [None if vector is None else vector.astype("<f2").tobytes() for vector in vectors]


def encode_good(bundle: Bundle, texts: Sequence[str], side: Side) -> tuple[list[int], np.ndarray]:
    """Places of the texts that the encoder does not fail on, and their float32 unit vectors [len(places), D]."""
    vectors = [(place, vector) for place, vector in enumerate(vector_each(bundle, texts, side)) if vector is not None]
    stacked = np.stack([vector for _, vector in vectors]) if vectors else np.empty((0, bundle.dim), dtype=np.float32)
    return [place for place, _ in vectors], stacked


def vector_each(
    bundle: Bundle, texts: Sequence[str], side: Side, halved: Callable[[], None] | None = None
) -> list[np.ndarray | None]:
    """Float32 unit vector [D] of each text; None for a text that the encoder fails on.

    A failing batch is halved until the texts that cause it stand alone: one poisonous title costs its own vector only.
    The device's failures (torch's RuntimeError) are no text's fault: for lack of memory calls are halved, ``halved`` told
    of each (:func:`model.inference.embed`); any other is raised, and Spark then tries the task again.
    """
    try:
        vectors = bundle.encode(texts, side, halved=halved)
    except (ValueError, LookupError, RecursionError) as error:
        if len(texts) == 1:
            # Not what the error says, which may be the text: queries come this way too.
            log.warning("one text of %d characters cannot be encoded: %s", len(texts[0]), type(error).__name__)
            return [None]
        half = len(texts) // 2
        return vector_each(bundle, texts[:half], side, halved) + vector_each(bundle, texts[half:], side, halved)
    unit = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 1e-2  # false for not-a-number too
    return [vector if good else None for vector, good in zip(vectors, unit, strict=True)]


def _encoded(bundle: Bundle, chunk: list[_Row], halved: Callable[[], None]) -> pa.RecordBatch:
    vectors = iter(encode_each(bundle, [text for _, text, _ in chunk if text is not None], halved))
    found = [None if text is None else next(vectors) for _, text, _ in chunk]
    reasons = [
        NOT_ENCODABLE if vector is None and text is not None else reason
        for (_, text, reason), vector in zip(chunk, found, strict=True)
    ]
    columns = ([text_hash for text_hash, _, _ in chunk], found, [bundle.dim] * len(chunk), reasons)
    return pa.RecordBatch.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, _ARROW_SCHEMA, strict=True)], schema=_ARROW_SCHEMA
    )


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[_Row]:
    for batch in batches:
        yield from zip(*(batch.column(name).to_pylist() for name in ("text_hash", "text", "reason")), strict=True)
