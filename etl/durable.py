"""Files and directories of ours beside the tables: replaced whole, so that a crash or a power cut leaves the old or the new.

What has no manifest above it that knows its hash carries its own (:func:`write_sealed`). Plain Python: ranks and services
read by it too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.errors import InputError

log = logging.getLogger(__name__)

SEAL = "digest"
"""Field of a sealed file that its other fields are hashed into."""


def write(path: Path, content: bytes) -> None:
    """Put a file in its place by rename: a reader, a crash or a power cut finds the old one or the new one, whole.

    The draft beside it has a name that nobody can know, and is made, not opened: two writers do not share it, and a link
    that was laid in its place is not written through.
    """
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """As :func:`write`."""
    write(path, _json(content))


def read_json(path: Path, missing: str = "is missing", cure: str = "copy it again, or make it again") -> dict[str, Any]:
    """Content of a JSON file.

    Args:
        path: The file.
        missing: What is said of its directory where it is not there.
        cure: What to do where it is cut or otherwise damaged.

    Raises:
        InputError: it is not there, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} {missing} (no {path.name})") from None
    except ValueError as error:
        raise InputError(f"{path} cannot be read as JSON, it is cut or damaged ({error}): {cure}") from None


def write_sealed(path: Path, content: Mapping[str, Any], of: str = "") -> None:
    """As :func:`write_json`, with a hash of the content and of ``of``, what it belongs to, in the field SEAL."""
    write(path, _sealed(content, of))


def is_sealed(path: Path, of: str = "") -> bool:
    """Whether a file is byte for byte what :func:`write_sealed` wrote for ``of``."""
    found = path.read_bytes()
    try:
        content = json.loads(found)
    except ValueError:
        return False
    if not isinstance(content, dict):
        return False
    return found == _sealed({name: value for name, value in content.items() if name != SEAL}, of)


def swap_in(aside: Path, target: Path) -> None:
    """Put a finished directory in the place of the one that is there, which is removed.

    There is no call that exchanges two directories on every file system (NFS has none), so for a moment neither is in its
    place. For a kill in that moment there is :func:`mend_swap`. Only who alone writes there may call either: see
    :mod:`etl.lease`.
    """
    mend_swap(target)
    sync_tree(aside)
    if target.exists():
        target.rename(_old(target))
    aside.rename(target)
    sync_directory(target.parent)
    mend_swap(target)


def mend_swap(target: Path) -> None:
    """End a :func:`swap_in` that was killed: the old directory goes back where none is in its place, else it goes."""
    old, removing = _old(target), target.with_name(f".{target.name}.removing")
    if not old.exists():
        return
    if target.exists():
        # Under this name `labeller maintain` finds it after a crash, and nobody takes what is left of it for a whole one.
        shutil.rmtree(removing, ignore_errors=True)
        old.rename(removing)
        shutil.rmtree(removing, ignore_errors=True)
    else:
        log.warning("%s was taken away by a job that was killed before it put another there: the old one is back", target)
        old.rename(target)
        sync_directory(target.parent)


def sync_tree(directory: Path) -> None:
    """Have every file under a directory on the disk, so that what is renamed next is whole after a power cut too."""
    for where, _, names in os.walk(directory):
        for name in names:
            with (Path(where) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(where))


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # as file systems say (SMB) where a rename needs no such thing
            raise
    finally:
        os.close(descriptor)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _sealed(content: Mapping[str, Any], of: str) -> bytes:
    digest = hashlib.sha256(of.encode() + _json(content)).hexdigest()
    return _json({**content, SEAL: digest})


def _json(content: Mapping[str, Any] | list[Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
