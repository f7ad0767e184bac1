"""A full disk: found in the errors of Python, Java, Rust and torch, and said as one error that names the places."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.errors import TryLater

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = re.compile(r"no space left on device|disk quota exceeded|\bos error (?:28|122)\b", re.IGNORECASE)
# What torch says when a file has taken less than it was given, whatever the cause.
_CUT_SHORT = re.compile(r"inline_container|PytorchStreamWriter|unexpected pos")
_NEARLY_NOTHING = 4 << 20  # bytes: what a writer that failed has given back since may be free again
_MOST_SHOWN = 300  # characters of a line
_MB = 1e6


class DiskFull(TryLater):
    """There is no room for what was to be written; what was there before is as it was, and a rerun goes on from it."""


@contextmanager
def naming_full_disk(*places: Path | str) -> Iterator[None]:
    """Turn whatever error a full disk ends in into one that says where how much is free.

    Args:
        places: Directories that are written, of which the full one is told; those of temporary files are looked at too.

    Raises:
        DiskFull: instead of the error, where that is of a full disk or quota.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        said = what_is_full(error)
        if said is None and _CUT_SHORT.search(str(error)) and any(free < _NEARLY_NOTHING for free in _free(places).values()):
            said = "a file could not be written to its end"
        if said is None:
            raise
        raise DiskFull(_message(said, places)) from error


def what_is_full(error: BaseException | None) -> str | None:
    """The line of an error, or of what caused it, that says that a disk or quota is full; None of another error.

    Spark's hold the whole of Java's trace, those of its Python workers too.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return str(error)
        for line in str(error).splitlines():
            if _WORDS.search(line):
                return line.strip()[:_MOST_SHOWN]
        error = error.__cause__ or error.__context__
    return None


def _message(said: str, places: tuple[Path | str, ...]) -> str:
    found = sorted(_free(places).items(), key=lambda place: place[1])
    shown = "".join(f"\n  - {place}: {free / _MB:,.1f} MB free" for place, free in found)
    return (
        f"a disk or quota is full ({said}): make room where there is least, or raise the quota, and start the same command "
        f"again; what was there before is as it was:{shown}"
    )


def _free(places: tuple[Path | str, ...]) -> dict[Path, int]:
    """Directory -> bytes free for this user, of each file system once."""
    free: dict[int, tuple[Path, int]] = {}
    for place in (*places, *os.environ.get("SPARK_LOCAL_DIRS", "").split(","), tempfile.gettempdir()):
        path = Path(place)
        if place and path.is_dir():
            free.setdefault(path.stat().st_dev, (path, shutil.disk_usage(path).free))
    return dict(free.values())
