"""A Delta table opened by delta-rs, its log compared with what lies beside it.

Readers take a log as they find it: an entry that was emptied, or cut at the end of a line, and a newest one that is gone
give the rows of before, without an error. What shows it is NNN.crc, which Spark's writer lays beside each entry, with the
number and bytes of all files of that version.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from etl import storage
from etl.errors import InputError, TryLater
from etl.outage import says_so

log = logging.getLogger(__name__)

_FILE = re.compile(r"(\d{20})\.(json$|crc$|checkpoint\.)")


@dataclass(frozen=True, slots=True)
class _Listing:
    """Files of a log, by the version that each is of."""

    entries: Mapping[int, int]
    """Version -> bytes."""
    checksums: frozenset[int]
    checkpoints: frozenset[int]

    @classmethod
    def of(cls, path: str) -> _Listing:
        directory = f"{path}/_delta_log"
        named = ((storage.shown(file.path, directory), file.size) for file in storage.files_under(directory))
        found = [(int(match[1]), match[2], size) for name, size in named if (match := _FILE.match(name))]
        return cls(
            {version: size for version, kind, size in found if kind == "json"},
            frozenset(version for version, kind, _ in found if kind == "crc"),
            frozenset(version for version, kind, _ in found if kind == "checkpoint."),
        )

    def problems(self) -> dict[int, str]:
        """Version -> what is wrong with its entry.

        What is older than a checkpoint may go, the oldest first; of the newest entry only what lies beside it tells.
        """
        known = {*self.entries, *self.checkpoints}
        if not known:
            return dict.fromkeys(self.checksums, "is missing")
        first = min(self.entries, default=max(known))
        needed = {version for version in self.checksums if version >= first}
        needed.update(range(max(self.checkpoints, default=-1) + 1, max(known) + 1))
        missing = dict.fromkeys(needed - set(self.entries), "is missing")
        return missing | {version: "has 0 bytes" for version, size in self.entries.items() if size == 0}


def opened(path: str, version: int | None = None) -> DeltaTable:
    """The Delta table at ``path``, of its newest version unless one is given, with all files that were committed to it.

    One listing of the log and one small file beside what delta-rs reads. Where no .crc lies beside an entry (delta-rs writes
    none, nor does Spark if it is killed first), a cut at the end of a line does not show, nor that the newest entry is gone.

    Raises:
        InputError: entries are missing, empty or damaged, or the files are not those that the .crc counts; says which
            version it is and what to do.
        TryLater: the store does not answer now.
    """
    require_entries(path)
    with naming_table(path):
        table = DeltaTable(path, version=version)
        lacking = _lacking(path, table)
    if lacking:
        raise _damaged(path, _first_lacking(path, table.version(), lacking))
    return table


def require_entries(path: str) -> None:
    """See that no entry of a table's log is missing or empty, by one listing: that much holds for tables of any writer.

    Raises:
        InputError: some are; all are named.
    """
    # Looked at twice: a commit that ends meanwhile can show its .crc before its entry.
    if _Listing.of(path).problems() and (problems := _Listing.of(path).problems()):
        raise _damaged(path, problems)


@contextmanager
def naming_table(path: str) -> Iterator[None]:
    """Turn delta-rs' errors on a table into bad input that names it.

    Raises:
        TryLater: the store does not answer now.
        InputError: the table cannot be read.
    """
    try:
        yield
    except (DeltaError, OSError) as error:
        reason = str(error).partition("\n")[0]  # a trace of delta-rs follows
        if says_so(reason):
            raise TryLater(f"{_name(path)} cannot be read now: {reason} (expected an answer): try again later") from error
        if unreadable := _unreadable(path):
            raise _damaged(path, unreadable) from error
        raise InputError(
            f"{_name(path)} cannot be read: {reason} (expected a log that is whole, and its checkpoint): restore its "
            "_delta_log from a copy; a damaged checkpoint may be moved away where all entries before it are there"
        ) from error


def _unreadable(path: str) -> dict[int, str]:
    """Version -> what is wrong, of entries that hold something else than lines of JSON."""
    found = {}
    for version in _Listing.of(path).entries:
        try:
            for line in storage.read_text(f"{path}/_delta_log/{version:020}.json").splitlines():
                json.loads(line)
        except ValueError as error:
            found[version] = f"is damaged: {error}"
    return found


def _lacking(path: str, table: DeltaTable) -> str:
    """What the table lacks of what the .crc of its version says; empty if nothing, or if there is no .crc."""
    said = _checksum(path, table.version())
    if said is None:
        return ""
    sizes = pl.DataFrame(table.get_add_actions())["size_bytes"]
    found: dict[str, Any] = {"files": len(sizes), "bytes": sizes.sum()}
    expected = {"files": said["numFiles"], "bytes": said["tableSizeBytes"]}
    if "metadata" in said:
        found["properties"] = table.metadata().configuration
        expected["properties"] = said["metadata"]["configuration"]
    differing = [name for name in found if found[name] != expected[name]]
    differences = ", ".join(f"{name} {found[name]} (expected {expected[name]})" for name in differing)
    return f"gives {differences}, by its .crc" if differences else ""


def _checksum(path: str, version: int) -> dict[str, Any] | None:
    file = f"{path}/_delta_log/{version:020}.crc"
    if not storage.is_file(file):
        return None
    try:
        said: dict[str, Any] = json.loads(storage.read_text(file))
    except ValueError as error:
        log.warning("%s is damaged, so the table is not compared with it: %s", file, error)
        return None
    return said


def _first_lacking(path: str, version: int, lacking: str) -> dict[int, str]:
    """Version -> what it lacks, of the first version down from one that lacks something: there it happened."""
    with suppress(DeltaError):  # older ones than the log has
        while version and (before := _lacking(path, DeltaTable(path, version=version - 1))):
            version, lacking = version - 1, before
    return {version: lacking}


def _damaged(path: str, problems: Mapping[int, str]) -> InputError:
    first = min(problems)
    left = f"version {first - 1}" if first else "no table"
    return InputError.of(
        [f"_delta_log/{version:020}.json {problems[version]}" for version in sorted(problems)],
        heading=f"{_name(path)}: its log is damaged from version {first} on, and would give rows of before (restore these "
        f"files from a copy; without one, move away what _delta_log has of version {first} and later, which leaves {left}, "
        "and run what wrote these versions again):",
    )


def _name(path: str) -> str:
    return f"table {path.rstrip('/').rpartition('/')[2]} at {path}"
