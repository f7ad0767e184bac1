"""Row groups of a dataset's files, read ahead in a thread of their own, in an order that a seed decides."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_POLL_S = 0.1
_SHOWN = 8


class ReaderStalled(RuntimeError):
    """The storage gave nothing for too long; the thread that waits for it cannot be stopped."""


class UnreadableFile(RuntimeError):
    """A file of the dataset cannot be read, though its hash was right when the training began."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is read, and by whom."""

    files: Sequence[Path]
    columns: Sequence[str]
    seed: int
    """Of the order; not 0, which petastorm takes for none."""
    who: str
    """As ``pairs, epoch 3, rank 0 of 2``, for messages."""

    def __str__(self) -> str:
        names = [str(path) for path in self.files[:_SHOWN]]
        more = [f"and {len(self.files) - _SHOWN} more"] if len(self.files) > _SHOWN else []
        return f"{self.who}; files: {', '.join(names + more)}"


class _Tables:
    """Hands petastorm's row groups on as Arrow tables.

    Its own reader makes a Python object of each text; a batch needs their bytes only, end to end.
    """

    batched_output = True

    def read_next(self, pool: Any, schema: Any, ngram: Any) -> pa.Table:
        from petastorm.workers_pool import EmptyResultError

        try:
            return pool.get_results()
        except EmptyResultError:
            raise StopIteration from None


class _Thread(threading.Thread):
    """Reads into a bounded queue: row groups, then None, or the exception that ended it."""

    def __init__(self, source: Source, ahead: int) -> None:
        super().__init__(name=f"read {source.who}", daemon=True)
        self.source, self.stopped = source, threading.Event()
        self.queue: queue.Queue[pa.Table | BaseException | None] = queue.Queue(maxsize=ahead)

    def run(self) -> None:
        try:
            with _petastorm(self.source) as reader:
                for table in reader:
                    if not self._put(table):
                        return
            self._put(None)
        except BaseException as error:  # whatever it is, the consumer raises it
            self._put(error)

    def _put(self, item: pa.Table | BaseException | None) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False


def row_groups(source: Source, *, ahead: int, timeout_s: float) -> Generator[pa.Table, None, None]:
    """Row groups of ``source`` as Arrow tables; closing the generator ends the thread.

    Args:
        source: What to read.
        ahead: Row groups that are read before they are asked for.
        timeout_s: Longest wait for one.

    Raises:
        ReaderStalled: none came in that time.
        UnreadableFile: a file is damaged; it is named, petastorm's error is the cause.
    """
    # Petastorm 0.12.1 on pyarrow 14 earns a page of these per reader. For the whole process, since
    # warnings.catch_warnings in a thread undoes what another one set.
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
    thread = _Thread(source, ahead)
    thread.start()
    try:
        while True:
            try:
                item = thread.queue.get(timeout=timeout_s)
            except queue.Empty:
                raise ReaderStalled(
                    f"no row group came within {timeout_s:g} s ({source}): does the storage answer? "
                    "Raise --reader-timeout-s if it is only slow"
                ) from None
            if item is None:
                return
            if isinstance(item, BaseException):
                raise UnreadableFile(_diagnosis(source, item)) from item
            yield item
    finally:
        thread.stopped.set()
        thread.join(2 * _POLL_S)  # longer only where a read hangs, which nothing can end


def _petastorm(source: Source) -> Any:
    from petastorm import make_batch_reader

    reader = make_batch_reader(
        [f"file://{path.resolve()}" for path in source.files],  # petastorm does not decode %3D
        schema_fields=list(source.columns),
        reader_pool_type="dummy",  # the only one whose order repeats
        num_epochs=1,
        shuffle_row_groups=True,
        seed=source.seed,
    )
    reader._results_queue_reader = _Tables()
    return reader


def _diagnosis(source: Source, error: BaseException) -> str:
    """Petastorm's error does not say which file: read each of them once more."""
    bad = []
    for path in source.files:
        try:
            pq.read_table(path, columns=list(source.columns), partitioning=None)
        except (OSError, pa.ArrowException) as found:
            bad.append(f"{path}: {found}")
    what = "; ".join(bad) or f"{type(error).__name__}: {error} (each file can be read by itself)"
    return f"cannot read {source.who}: {what}; run `labeller dataset` again"
