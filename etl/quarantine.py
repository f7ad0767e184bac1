"""Files of inputs that cannot be read: found in Spark's errors, named as bad input, and left out where that is allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from etl import storage
from etl.errors import InputError, TryLater, UnreadableFiles
from etl.outage import says_so

log = logging.getLogger(__name__)

T = TypeVar("T")


def bad_file(error: BaseException) -> str | None:
    """Path of the file that a Spark exception says cannot be read, wherever it stands in the chain; else None."""
    return _failed_read(error)[1]


def _failed_read(error: BaseException) -> tuple[str, str | None]:
    """Condition and path of the file in a Spark exception that says that reading one failed; "" and None in another.

    Spark 4.0 wraps what goes wrong while it reads a file in a SparkException of condition FAILED_READ_FILE, whose
    parameter ``path`` is a percent-encoded URI; ``toArrow`` and ``toPandas`` wrap that once more.
    """
    cause = _java_exception(error)
    while cause is not None:
        try:
            condition = cause.getCondition() or ""
            if condition.startswith("FAILED_READ_FILE"):
                uri = urlsplit(str(cause.getMessageParameters().get("path")))
                return condition, unquote(uri.path) if uri.scheme in ("", "file") else unquote(uri.geturl())
        except Py4JError:
            pass  # a Java exception without a condition
        cause = cause.getCause()
    return "", None


@contextmanager
def naming_bad_files() -> Iterator[None]:
    """Turn Spark's error on a file that cannot be read into bad input that names the file.

    Raises:
        UnreadableFiles: that file cannot be read.
        TryLater: the store or mount that it lies on does not answer now, which says nothing of the file.
        InputError: it can, and a column of it is of another type than the table's.
    """
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        condition, file = _failed_read(error)
        if file is None:
            raise
        if says_so(reason := root_cause(error)):
            raise TryLater(f"{file} cannot be read now: {reason} (expected an answer): try again later") from error
        if condition.endswith("PARQUET_COLUMN_DATA_TYPE_MISMATCH"):
            raise InputError(
                "an input file has a column of another type than its table (expected one type in all files), write it "
                f"again with the table's:\n  - {file}: {root_cause(error)}"
            ) from error
        raise _unreadable(file, error) from error


def with_quarantine(work: Callable[[frozenset[str]], T], max_bad_files: int) -> tuple[T, frozenset[str]]:
    """Run ``work`` again without the files that it cannot read, until it ends; returns its result and those files.

    ``work`` takes the paths to leave out and hands them to :func:`etl.inputs.read_input`. A corrupt page shows only while
    Spark reads, so each such file costs a run; bad footers are found all at once. Files are never skipped in silence
    (``ignoreCorruptFiles``): that lost 250 of 2,000 rows without a word.

    Raises:
        UnreadableFiles: more than ``max_bad_files`` cannot be read, or one that is not to be left out.
        InputError: as ``work``; differences of schema are never left out.
    """
    without: frozenset[str] = frozenset()
    reasons: list[str] = []
    while True:
        try:
            with naming_bad_files():
                return work(without), without
        except UnreadableFiles as error:
            gone = [file for file in error.files if not storage.is_file(file)]
            if gone or error.files <= without:  # replaced while we read, or read by a table that cannot do without
                raise
            without |= error.files
            reasons += error.problems
            if len(without) > max_bad_files:
                heading = (
                    f"{len(without)} input files cannot be read (expected at most {max_bad_files}, [pairs] max_bad_files):"
                )
                refused = UnreadableFiles.of(reasons, heading=heading)
                refused.files = without
                raise refused from error
            log.warning("%d of at most %d bad files are left out: %s", len(without), max_bad_files, "; ".join(reasons))


def _unreadable(file: str, error: Py4JJavaError | PySparkException) -> UnreadableFiles:
    problem = f"{file}: {root_cause(error)}"
    unreadable = UnreadableFiles(f"an input file cannot be read, write it again or restore it:\n  - {problem}")
    unreadable.problems, unreadable.files = (problem,), frozenset([file])
    return unreadable


def root_cause(error: Py4JJavaError | PySparkException) -> str:
    """The first line of what went wrong: Spark wraps it several times."""
    cause = _java_exception(error)
    while cause is not None and cause.getCause() is not None:
        cause = cause.getCause()
    return str(error if cause is None else cause.getMessage()).partition("\n")[0]


def _java_exception(error: BaseException) -> Any:
    return error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
