"""What Spark's workers count while they encode, and the driver shows: whole tasks at a time, as Spark reports them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark import Accumulator
from pyspark.sql import SparkSession

from model.progress import advancing

LOOK_SECONDS = 1.0
"""Between two looks at the counters; a line is written every :data:`model.progress.LINE_SECONDS`."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counters; a task that Spark ran twice counts twice."""

    texts: Accumulator[int]
    """Texts that are through."""
    halved: Accumulator[int]
    """Calls of the encoder that were halved for lack of memory."""

    @classmethod
    def of(cls, spark: SparkSession) -> Tally:
        return cls(spark.sparkContext.accumulator(0), spark.sparkContext.accumulator(0))


@contextmanager
def watched(tally: Tally, total: int) -> Iterator[None]:
    """Log how many of ``total`` texts are through, with the time that is left, while the work inside goes on."""
    over = threading.Event()

    def watch() -> None:
        seen = 0
        with advancing("encoding", total, "text", bar=False) as advance:
            while not over.wait(LOOK_SECONDS):
                done = min(tally.texts.value, total)
                advance(done - seen)
                seen = done

    watcher = threading.Thread(target=watch, name="encoding progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
