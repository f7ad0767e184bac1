"""Places on a mounted path or on a store (``s3a://``, ``abfs://``, ``hdfs://``), looked at without Spark.

A store is seen through delta-rs, the reader of the tables, as a file system of pyarrow: the same credentials open tables and
plain files, from the variables, profiles and instance roles that every client of that store knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from etl.errors import InputError, TryLater
from etl.outage import may_pass

if TYPE_CHECKING:  # half a second that mounted paths do without
    import pyarrow as pa

SCHEMES = ("s3a", "abfs", "abfss", "hdfs")
"""Of the stores: names that Spark and delta-rs both know."""

_KEYLESS = re.compile(r"/latest/(api/token|meta-data)")
"""Where a client without keys asks for them: the machine's own Amazon, which does not answer elsewhere."""

_CODE = re.compile(r"<Code>([^<]+)</Code>(?:<Message>([^<]*)</Message>)?")


class StoreError(InputError):
    """A store that lacks the bucket, or does not let us in."""


class StoreSilent(TryLater):
    """A store that does not answer, or is too busy to."""


@dataclass(frozen=True, order=True, slots=True)
class StoredFile:
    """A file; ``path`` is whole, a URI on a store."""

    path: str
    size: int
    """Bytes."""
    changed_ns: int
    """Time of change, nanoseconds since 1970."""


def is_uri(path: str | Path) -> bool:
    return "://" in str(path)


def require_known(uri: str) -> None:
    """Refuse a URI of a scheme that only one of our engines knows, or with a secret in it.

    Raises:
        ValueError: as settings want it; says what would do.
    """
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        cure = ": Spark writes it s3a://" if parts.scheme in ("s3", "s3n") else ""
        raise ValueError(f"{parts.scheme}:// is no store that is known (expected a path, or {', '.join(SCHEMES)}://){cure}")
    if not parts.netloc:
        raise ValueError(f"{uri} names no bucket, container or name node (expected {parts.scheme}://NAME/...)")
    # A container of Azure stands before the @; a colon there is a password.
    if parts.password is not None or parts.query:
        raise ValueError(f"{parts.scheme}:// has a password or a query in it: leave them to the store's own variables")


def join(place: str, *names: str) -> str:
    """A place below another; on a mounted path as Spark writes it, whose errors name files: no ".." in it, links kept."""
    if is_uri(place):
        return "/".join((place.rstrip("/"), *names))
    return os.path.normpath(Path(place, *names))


def shown(path: str, place: str) -> str:
    """A path for a message: what is below ``place`` relative to it."""
    return path.removeprefix(f"{place.rstrip('/')}/")


def is_directory(path: str) -> bool:
    """Whether there is a directory; on an object store, whether anything lies below."""
    if not is_uri(path):
        return Path(path).is_dir()
    import pyarrow.fs

    with _said_by_store(path):
        files, inside = _opened(path)
        return bool(files.get_file_info(inside).type == pyarrow.fs.FileType.Directory)


def entries(path: str) -> list[str]:
    """Names of what lies in a directory; none where there is no such directory."""
    if not is_uri(path):
        return sorted(entry.name for entry in Path(path).iterdir()) if Path(path).is_dir() else []
    return sorted(info.base_name for info in _listed(path, recursive=False))


def files_under(path: str) -> list[StoredFile]:
    """Every file below a directory, hidden ones too, by their paths; none where there is no such directory."""
    if is_uri(path):
        return sorted(_stored_files(path))
    local = ((file, file.stat()) for file in Path(path).rglob("*") if file.is_file())
    return sorted(StoredFile(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in local)


def is_file(path: str) -> bool:
    """Whether there is a file; not one of a store that only Spark knows."""
    if not is_uri(path):
        return Path(path).is_file()
    if urlsplit(path).scheme not in SCHEMES:
        return False
    with _said_by_store(path):
        files, inside = _opened(path)
        return bool(files.get_file_info(inside).is_file)


def size_of(path: str) -> int | str:
    """Bytes of a file, or "no" where there is none; for a message on one that cannot be read."""
    if not is_uri(path):
        return Path(path).stat().st_size if Path(path).exists() else "no"
    files, inside = _opened(path)
    info = files.get_file_info(inside)
    return info.size if info.is_file else "no"


def read_text(path: str) -> str:
    """Content of a small file in UTF-8.

    Raises:
        OSError: a mounted one cannot be read.
        StoreError: one on a store cannot.
    """
    if not is_uri(path):
        return Path(path).read_text(encoding="utf-8")
    with _said_by_store(path):
        files, inside = _opened(path)
        with files.open_input_stream(inside) as stream:
            return bytes(stream.read()).decode("utf-8")


def read_schema(path: str) -> pa.Schema:
    """Schema in the footer of a Parquet file.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    import pyarrow.parquet as pq

    if not is_uri(path):
        return pq.read_schema(path)
    files, inside = _opened(path)
    return pq.read_schema(inside, filesystem=files)


def read_parquet(path: str) -> pa.Table:
    """A Parquet file on a store, whole."""
    import pyarrow.parquet as pq

    with _said_by_store(path):
        files, inside = _opened(path)
        with files.open_input_file(inside) as file:
            return pq.ParquetFile(file).read()


def remove(path: str) -> None:
    """Delete one file."""
    if not is_uri(path):
        Path(path).unlink()
        return
    with _said_by_store(path):
        files, inside = _opened(path)
        files.delete_file(inside)


def _stored_files(path: str) -> Iterator[StoredFile]:
    """Files without the empty objects by which some tools mark a directory, and which are listed like files."""
    found = [info for info in _listed(path, recursive=True) if info.is_file]
    parents = {str(parent) for info in found for parent in PurePosixPath(info.path).parents}
    for info in found:
        file = f"{_authority(path)}/{info.path}"
        if info.path not in parents and (info.size or is_file(file)):
            yield StoredFile(file, info.size, info.mtime_ns or 0)


def _listed(path: str, *, recursive: bool) -> list[Any]:
    import pyarrow.fs

    with _said_by_store(path):
        files, inside = _opened(path)
        selector = pyarrow.fs.FileSelector(inside, allow_not_found=True, recursive=recursive)
        return [info for info in files.get_file_info(selector) if info.path != inside]


def _opened(path: str) -> tuple[Any, str]:
    """The file system of a URI's bucket, and the path in it."""
    return _file_system(_authority(path)), urlsplit(path, allow_fragments=False).path.strip("/")


def _authority(path: str) -> str:
    parts = urlsplit(path)
    return f"{parts.scheme}://{parts.netloc}"


@lru_cache(maxsize=16)
def _file_system(authority: str) -> Any:
    # Kept: a client for each of a thousand footers would shake hands as often.
    import pyarrow.fs
    from deltalake.fs import DeltaStorageHandler

    return pyarrow.fs.PyFileSystem(DeltaStorageHandler(authority))


@contextmanager
def _said_by_store(path: str) -> Iterator[None]:
    """Turn an error of a store into bad input, or into a later try: what the store says, without what it was sent."""
    try:
        yield
    except OSError as error:
        if may_pass(error) and not _KEYLESS.search(str(error)):
            raise StoreSilent(
                f"{path} cannot be read now: {_reason(str(error))} (expected an answer of the store): try again later, or "
                "mend the store's address where the command runs, see docs/object_stores.md"
            ) from None
        raise StoreError(
            f"{path} cannot be read: {_reason(str(error))} (expected a bucket that is there, and credentials for it): "
            f"set the store's variables where the command runs, see docs/object_stores.md"
        ) from None


def _reason(text: str) -> str:
    """The code of the store, since its whole answer names keys; else the innermost cause."""
    if found := _CODE.search(text):
        return ": ".join(filter(None, found.groups()))
    lines = [re.sub(r"\x1b\[\d+m|↳", "", line).strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "no answer")
