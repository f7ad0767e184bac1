"""What a test needs of the machine and a person's laptop may lack; where all tests must run, its lack is a failure."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from airflow_dags.stack.errors import StackError
from airflow_dags.stack.postgres import find_programs


def require_or_skip(*programs: str, root: bool = False) -> None:
    """Skip the test with the reason, or fail it where the variable ``CI`` is set."""
    lacking = [f"{name} on PATH" for name in programs if shutil.which(name) is None]
    lacking += ["to be root"] * (root and os.geteuid() != 0)
    if lacking:
        _lacks(f"needs {', '.join(lacking)} (`make system-packages` as root installs what Debian has)")


def require_postgresql() -> None:
    """The same for PostgreSQL's programs, which Debian keeps off the PATH."""
    try:
        find_programs()
    except StackError as error:
        _lacks(str(error))


def _lacks(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def require_data(directory: Path) -> None:
    """Skip the test where a public set was not downloaded: the project never contains one."""
    if not directory.is_dir():
        pytest.skip(f"needs the public set {directory}")
