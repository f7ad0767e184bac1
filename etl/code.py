"""Which code ran: what rows, commits and records of runs name as the code that made them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("etl", "model", "labeling")


@cache
def code_version() -> str:
    """Version of this package with a hash of its source: what labels depend on, wherever it is installed."""
    return f"{metadata.version('nightly-product-labeller')}+{source_hash(PACKAGES)[:8]}"


def source_hash(names: Sequence[str]) -> str:
    """Of the source of these packages, which lie beside this one; SHA-256, hexadecimal."""
    packages = Path(__file__).resolve().parents[1]
    source = hashlib.sha256()
    for file in sorted(path for name in names for path in (packages / name).rglob("*") if path.suffix in (".py", ".json")):
        source.update(file.relative_to(packages).as_posix().encode() + b"\0" + file.read_bytes())
    return source.hexdigest()


def revision() -> str:
    """The git revision of the checkout that the package runs from; empty if it is none, or git cannot say."""
    checkout = Path(__file__).resolve().parents[1]
    # An installed copy can lie inside somebody else's repository; only a checkout has .git beside the package.
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return ""
    found = subprocess.run(
        ["git", "-C", str(checkout), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()
