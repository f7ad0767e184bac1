"""Where that lives which is compared with and is not ours: an environment of its own, `make benchmarks-setup`."""

from __future__ import annotations

from pathlib import Path

from etl.errors import InputError

PEERS = Path(".venv-benchmarks")
"""In the checkout."""
THEIRS = PEERS / "bin" / "python"


def require_peers() -> None:
    """See that the environment is there.

    Raises:
        InputError: it is not.
    """
    if not THEIRS.is_file():
        raise InputError(f"{THEIRS} is not there: run `make benchmarks-setup`, and this from the root of the checkout")
