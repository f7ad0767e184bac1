"""A lock per table around each commit, for storage on which two of Delta's writers can overwrite each other.

Delta's log store looks whether a version is there and then renames its file to that name; on a mounted path it guards the
two steps by a lock inside one JVM only, so two processes can both make version 7, and the first one's rows are gone. The JVM
holds our lock, not this process: it is the JVM that commits, and one whose Python was killed lives on for a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from etl.errors import InputError

log = logging.getLogger(__name__)

DIRECTORY = "spark.labeller.lockDirectory"
"""Setting of a session that says where the locks of its warehouse lie."""

_held: set[Path] = set()
"""Locks of this process; within one JVM Delta guards its commits itself."""


@contextmanager
def table_lock(spark: SparkSession, path: str) -> Iterator[None]:
    """Be the only process that commits to the table at ``path`` while the context lasts; waits for others to end theirs.

    Whoever holds it may take it again. Tables are told apart by their names, since machines may mount them elsewhere.

    Raises:
        InputError: the lock's directory cannot be written, or its file system has no locks.
    """
    file = lock_file(spark, path)
    if file in _held:
        yield
        return
    jvm: Any = spark.sparkContext._jvm
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = jvm.java.io.RandomAccessFile(str(file), "rw")
    except (OSError, Py4JJavaError) as error:
        raise _unusable(file, error) from None
    try:
        try:
            channel = opened.getChannel()
            locked = channel.tryLock()
            if locked is None:
                log.info("another process commits to %s: waits for it", Path(path).name)
                locked = channel.lock()
        except Py4JJavaError as error:
            raise _unusable(file, error) from None
        _held.add(file)
        yield
        assert locked.isValid(), "kept by this reference"
    finally:
        _held.discard(file)
        opened.close()  # and with it the lock


def lock_file(spark: SparkSession, path: str) -> Path:
    """The file that is locked around a commit to the table at ``path``."""
    table = Path(path)
    staged = "staging." if table.parent.name == "staging" else ""
    default = table.parents[1 if staged else 0] / "locks"
    return Path(spark.conf.get(DIRECTORY, str(default)) or default) / f"{staged}{table.name}.lock"


def _unusable(file: Path, error: Exception) -> InputError:
    cause = error.java_exception.getMessage() if isinstance(error, Py4JJavaError) else error
    return InputError(
        f"{file} cannot be locked: {cause} (expected a writable directory on a file system with locks): name another by "
        "[warehouse] lock_dir, the same for all that write this warehouse"
    )
