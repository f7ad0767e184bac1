"""One writer for a day of a warehouse: a lease that other processes and machines see, and that a crash releases.

Two things together are the lease of a day. The file ``ds=DAY.lock`` is locked by the kernel, which releases it with the last
process that has it open, however that ends; file systems that pass such locks on (NFS, CephFS, Lustre) do the same for other
machines. For those that do not, ``ds=DAY.lease`` is made exclusively and touched while the work goes on; another machine
takes it once it has seen it untouched for :data:`DURATION`. Both lie under ``ROOT/locks`` (of a root on a store, under
``local_dir``), or where ``lock_dir`` says.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import LeaseCompromise, SoftFileLease, Timeout

from etl.config import WarehouseConfig
from etl.errors import EXIT_FAILED, InputError, TryLater
from etl.outage import may_pass

log = logging.getLogger(__name__)

DURATION = 180.0
"""Seconds without a touch after which another machine takes a lease: NFS shows times of change up to 60 s late."""

HEARTBEAT = 30.0
"""Seconds between two touches."""

INHERITED = "LABELLER_LEASE"
"""Variable that tells a process which of its descriptors is the lock of a day that its parent holds."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NOTE_WAIT = 2.0  # a winner writes who it is milliseconds after it has won


class DayTaken(TryLater):
    """Another process writes for this day."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A day that is ours until its context ends."""

    ds: dt.date
    descriptor: int
    """Of the locked file; a process that inherits it holds the day too, until it ends."""

    def child(self) -> dict[str, Any]:
        """Arguments of ``subprocess.Popen`` for a job of ours on this day: it writes under this lease, and ends with us.

        The caller must keep the process's ``stdin`` open as long as it shall run.
        """
        environment = {**os.environ, INHERITED: str(self.descriptor)}
        return {"env": environment, "pass_fds": (self.descriptor,), "stdin": subprocess.PIPE}


def lock_directory(config: WarehouseConfig) -> Path:
    """Where leases and locks of a warehouse lie."""
    return Path(config.lock_dir or Path(config.local_dir or config.root) / "locks").expanduser().resolve()


@contextmanager
def hold_day(
    directory: Path,
    ds: dt.date,
    command: str,
    *,
    duration: float = DURATION,
    heartbeat: float = HEARTBEAT,
    on_loss: Callable[[LeaseCompromise], None] | None = None,
) -> Iterator[Lease]:
    """Be the one writer of ``ds`` while the context lasts; a process started as :meth:`Lease.child` says is it already.

    Args:
        directory: As :func:`lock_directory` says.
        ds: The day.
        command: What is to be done, for others to read.
        duration: As :data:`DURATION`; the same for all that share the directory.
        heartbeat: As :data:`HEARTBEAT`.
        on_loss: Called when another machine has taken the lease, since this one was out of sight; by default the process
            ends at once, as if it were killed, which every stage survives.

    Raises:
        DayTaken: another process has the day; nothing was written.
        InputError: the directory cannot be written, or a link lies in the place of the day's file.
    """
    file = directory / f"ds={ds}.lock"
    if (inherited := _inherited(file)) is not None:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        yield Lease(ds, inherited)
        return
    descriptor = _open(file)
    try:
        before = _note(file)  # another machine's, should it turn out to have the day
        _lock(descriptor, file, ds)
        marker = SoftFileLease(
            file.with_suffix(".lease"), lease_duration=duration, heartbeat_interval=heartbeat, on_compromise=on_loss or _end,
            poll_interval=min(1.0, duration / 10), thread_local=False,
        )  # fmt: skip
        _claim(marker, before, ds, duration)
        try:
            _write(descriptor, {"host": socket.gethostname(), "pid": os.getpid(), "command": command, "since": _now()})
            yield Lease(ds, descriptor)
        finally:
            os.ftruncate(descriptor, 0)  # which a full disk allows, too
            marker.release()
    finally:
        os.close(descriptor)


def require_idle(directory: Path, ds: dt.date) -> None:
    """See that nobody writes for another day than ``ds`` now; who starts later is not kept from it.

    Raises:
        DayTaken: somebody does; the first one is named.
        InputError: a file there is named like the lock of a day and is none, or is a link.
    """
    for file in sorted(directory.glob("ds=*.lock")):
        day = _day_of(file)
        if day != ds:
            descriptor = _open(file)
            try:
                _lock(descriptor, file, day)
            finally:
                os.close(descriptor)


def _day_of(file: Path) -> dt.date:
    try:
        return dt.date.fromisoformat(file.stem.removeprefix("ds="))
    except ValueError:
        raise InputError(
            f"{file} is no lock of a day (expected ds=YYYY-MM-DD.lock): no job of ours made it, so remove it"
        ) from None


def _open(file: Path) -> int:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if file.is_symlink():
            raise InputError(
                f"{file} is a link to {file.readlink()} (expected a file of its own, which is written): remove the link"
            ) from None
        _require_answer(error, file)
        raise InputError(
            f"{file} cannot be opened: {error.strerror} (expected a directory for leases that this user may write): "
            "mend its permissions, or name another by [warehouse] lock_dir, the same for all that write this warehouse"
        ) from None


def _lock(descriptor: int, file: Path, ds: dt.date) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(ds, _note_of_winner(file)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            _require_answer(error, file)
            raise
        log.warning("%s: this file system has no locks (%s), so a crash frees ds=%s after minutes", file, error.strerror, ds)


def _require_answer(error: OSError, file: Path) -> None:
    if may_pass(error):
        raise TryLater(
            f"{file} cannot be locked now: {error.strerror} (expected a mount that answers): try again later"
        ) from None


def _claim(marker: SoftFileLease, before: dict[str, Any], ds: dt.date, duration: float) -> None:
    """Take the marker; one of another machine only if that does not touch it any more."""
    looks: list[int] = []

    def is_touched() -> bool:
        if (now := _touched(marker.lock_file)) is not None:
            looks.append(now)
        if len(looks) == 3:  # one that this machine left behind is taken by then
            log.warning("waits up to %.0f s to see whether %s still runs", 1.5 * duration, _shown(before))
        return bool(looks) and looks[-1] != looks[0]

    try:
        marker.acquire(timeout=1.5 * duration, cancel_check=is_touched)
    except Timeout:
        raise _taken(ds, before) from None


def _touched(file: str) -> int | None:
    with suppress(FileNotFoundError):
        return Path(file).stat().st_mtime_ns
    return None


def _taken(ds: dt.date, owner: dict[str, Any]) -> DayTaken:
    return DayTaken(
        f"ds={ds} is being written by {_shown(owner)} (expected no other writer of that day): wait until it has ended, or "
        "end it, which frees the day; nothing was written"
    )


def _shown(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process, which has not said its name"
    return f"process {owner['pid']} on host {owner['host']} since {owner['since']}: `{owner['command']}`"


def _note_of_winner(file: Path) -> dict[str, Any]:
    until = time.monotonic() + _NOTE_WAIT
    while not (found := _note(file)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _note(file: Path) -> dict[str, Any]:
    """Who is said to write; of one that was killed too."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # empty, or in the middle of being written
        return {}
    return found


def _write(descriptor: int, note: dict[str, Any]) -> None:
    content = json.dumps(note).encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _inherited(file: Path) -> int | None:
    """The descriptor of this very file that a parent who holds the day has left us."""
    number = os.environ.get(INHERITED, "")
    if not number.isdigit():
        return None
    with suppress(OSError):
        if os.path.samestat(os.fstat(int(number)), file.lstat()):
            return int(number)
    return None


def _end_with_parent() -> None:
    """End this process when standard input does: what holds the day through its parent must not outlive it."""
    while os.read(0, 4096):
        pass
    log.error("the process that started this one has ended")
    os._exit(EXIT_FAILED)


def _end(loss: LeaseCompromise) -> None:
    log.critical(
        "%s was lost (%s): another machine may write for its day now, this process ends", loss.lock_file, loss.reason
    )
    os._exit(EXIT_FAILED)
