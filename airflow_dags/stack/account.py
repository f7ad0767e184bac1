"""Whose account the stack runs under: the caller's, or, where that is root, one without privileges.

PostgreSQL refuses to run as root, and tasks have no need to.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from airflow_dags.stack.errors import StackError

_CLONE_NEWNS = 0x00020000
_ASIDE = Path("/mnt")
"""Where directories are kept while what lies above them is covered; in a view of the file system that only we have."""


def own_state(state: Path, name: str | None = None) -> None:
    """Make the directory of the stack's state for an account (ours unless ``name`` says another), or check that it is its.

    Raises:
        StackError: it is somebody else's, or there is no such account.
    """
    uid = os.geteuid() if name is None else _account(name).pw_uid
    if not state.exists():
        state.mkdir(mode=0o700, parents=True)
        os.chown(state, uid, -1)
    owner = state.stat().st_uid
    if owner != uid:
        raise StackError(f"{state} belongs to user id {owner}, not to {uid}: remove it, or name another with --state")


def leave_root(name: str, home: Path, needed: Sequence[Path]) -> None:
    """Become the account ``name`` for good, with ``home`` as its home directory.

    Interpreters and checkouts often lie in root's home directory, which nobody else may enter. Where one of ``needed`` does,
    this process and its children see an empty home there, that holds just these.

    Raises:
        StackError: there is no such account, it is root, or it cannot be let in to what is ``needed``.
    """
    account = _account(name)
    _uncover([path for path in (*needed, home) if _closed_above(path, account)], account)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    for variable in [variable for variable in os.environ if variable.startswith("XDG_")]:
        del os.environ[variable]  # root's caches and settings
    os.environ.update(HOME=str(home), USER=name, LOGNAME=name)
    for path in needed:
        if not os.access(path, os.R_OK | os.X_OK):
            raise StackError(f"{name} may not read {path}: `chmod -R a+rX` it, or run as an ordinary user")


def _account(name: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise StackError(f"there is no account {name!r} to run under instead of root: name one with --account") from None
    if account.pw_uid == 0:
        raise StackError(f"account {name!r} is root, which PostgreSQL refuses: name another one with --account")
    return account


def _closed_above(path: Path, account: pwd.struct_passwd) -> Path | None:
    """The topmost directory above ``path`` that the account may not enter."""
    for directory in reversed(path.parents):
        about = directory.stat()
        mine = stat.S_IXOTH
        if about.st_uid == account.pw_uid:
            mine = stat.S_IXUSR
        elif about.st_gid == account.pw_gid:
            mine = stat.S_IXGRP
        if not about.st_mode & mine:
            return directory
    return None


def _uncover(paths: Iterable[Path], account: pwd.struct_passwd) -> None:
    """Cover what is closed above each of the paths by an empty directory that leads to them, for this process alone."""
    closed = {path: _closed_above(path, account) for path in paths}
    if not closed:
        return
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
        _mount("--make-rprivate", "/")
        _mount("-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", str(_ASIDE))
        for number, path in enumerate(closed):
            (_ASIDE / str(number)).mkdir()
            _mount("--bind", str(path), str(_ASIDE / str(number)))
        for directory in sorted({str(directory) for directory in closed.values()}):
            _mount("-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", directory)
        for number, path in enumerate(closed):
            path.mkdir(parents=True, exist_ok=True)
            _mount("--bind", str(_ASIDE / str(number)), str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        below, above = (", ".join(sorted({str(path) for path in paths})) for paths in (closed, closed.values()))
        raise StackError(
            f"{account.pw_name} may not enter {above}, where {below} lie, and they cannot be mounted for it ({error}): "
            "run as an ordinary user, or lay them elsewhere"
        ) from None


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
