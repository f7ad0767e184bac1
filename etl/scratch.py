"""Directories of running processes: a lock says that one is in use, until its process ends, however it does."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

RUNNING = "running"
"""File of such a directory, locked as long as its process runs; it holds a note of that process."""

KILLED = ""


def claim(directory: Path, note: str) -> IO[str]:
    """Lock a new directory by a file that holds ``note``, for as long as the returned file is open."""
    draft = directory / "draft"
    file = draft.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        log.warning("%s cannot be locked (%s): should this process be killed, it stays there", directory, error)
    else:
        file.write(note)
        file.flush()
        draft.rename(directory / RUNNING)  # under that name it is never seen unlocked
    return file


def note_of(directory: Path) -> str | None:
    """The note of the process that runs there; KILLED, or None if it starts or ends just now."""
    try:
        with (directory / RUNNING).open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return KILLED


def remove(directory: Path, why: str) -> None:
    """Remove a directory; one that cannot be is a warning."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:  # another job removes it too
        return
    except OSError as error:
        log.warning("%s (%s) cannot be removed: %s", directory, why, error)
    else:
        log.info("removed %s: %s", directory, why)


def directory_of_process(name: str) -> Path:
    """A new directory for this process under that of temporary files (``TMPDIR``); what killed ones left there goes.

    Nobody but this user may enter it.
    """
    prefix = f"labeller-{name}-{os.getuid()}-"
    for left in sorted(Path(tempfile.gettempdir()).glob(f"{prefix}*")):
        if _is_ours(left) and note_of(left) == KILLED:
            remove(left, "the job that it was for was killed")
    made = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(claim(made, name).close)  # which keeps it open until then
    return made


def _is_ours(path: Path) -> bool:
    """Anybody may lay something of that name there."""
    try:
        return path.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False
