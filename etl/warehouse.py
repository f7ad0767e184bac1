"""Where things lie under the root of a warehouse, and which version of an input was read."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from etl.contracts import Table
from etl.errors import InputError


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The directory layout: tables by name, and beside them bundles, datasets, staging and reports."""

    root: Path

    @classmethod
    def at(cls, root: str) -> Warehouse:
        """The warehouse under ``root``.

        Raises:
            InputError: the directory does not exist.
        """
        path = Path(root).expanduser().resolve()
        if not path.is_dir():
            raise InputError(f"warehouse {root!r} is no directory: give --root a directory with the input tables in it")
        return cls(path)

    def table(self, table: Table) -> str:
        return str(self.root / table.name)

    def staged(self, table: Table) -> str:
        """Where a run lays a table down until it is audited."""
        return str(self.root / "staging" / table.name)

    def dataset(self, ds: dt.date) -> Path:
        return self.root / "datasets" / f"ds={ds.isoformat()}"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def truth(self) -> Path:
        """Ground truth of a generated or adapted warehouse; read by evaluation only."""
        return self.root / "truth"

    def report(self, ds: dt.date) -> Path:
        return self.root / "reports" / f"ds={ds.isoformat()}"

    def has(self, table: Table) -> bool:
        path = self.root / table.name
        return path.is_dir() and any(path.iterdir())


def is_delta(path: str) -> bool:
    return (Path(path) / "_delta_log").is_dir()


def parquet_version(path: str, days: Iterable[dt.date] = ()) -> str:
    """Version of a plain Parquet directory: a hash over the names and sizes of its files, of ``days`` where it has such."""
    root = Path(path)
    of_days = [root / f"ds={day}" for day in days]
    read = of_days if any(directory.is_dir() for directory in of_days) else [root]
    files = sorted((str(f.relative_to(path)), f.stat().st_size) for directory in read for f in directory.rglob("*.parquet"))
    return "parquet:" + hashlib.sha256(repr(files).encode()).hexdigest()[:12]
