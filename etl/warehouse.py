"""Where things lie under the root of a warehouse, and the inputs outside of it."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etl import storage
from etl.config import WarehouseConfig, from_args
from etl.contracts import Table
from etl.errors import InputError
from etl.sources import Source


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The directory layout: tables by name, and beside them bundles, datasets, staging and reports.

    Tables may lie on a store; all else lies in a mounted directory, since it is renamed, mapped into memory and locked.
    """

    root: Path | str
    """Directory of the tables, or its URI on a store."""

    sources: Mapping[str, Source] = field(default_factory=dict, hash=False)
    """Input tables that lie elsewhere or are written otherwise, by name."""

    pins: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    """Delta version of each input, as asked for or from the first look at it on: a job scans its log five times while others
    append."""

    local_dir: Path | None = None
    """Where all else lies that is no table, if not under the root."""

    @classmethod
    def at(cls, root: str) -> Warehouse:
        """The warehouse under ``root``; of one on a store its own settings say where all else lies.

        Raises:
            InputError: the directory does not exist; of a store, as :func:`etl.config.from_args` and :meth:`of`.
        """
        if storage.is_uri(root):
            return cls.of(from_args(WarehouseConfig, argparse.Namespace(config=None, root=root)))
        path = Path(root).expanduser().resolve()
        if not path.is_dir():
            raise InputError(f"warehouse {root!r} is no directory: give --root a directory with the input tables in it")
        return cls(path)

    @classmethod
    def of(cls, config: WarehouseConfig) -> Warehouse:
        """The warehouse of a job, its inputs where the settings say.

        Raises:
            InputError: the root is no directory, or ``local_dir`` is none.
        """
        root = config.root.rstrip("/") if storage.is_uri(config.root) else cls.at(config.root).root
        local = Path(config.local_dir).expanduser().resolve() if config.local_dir else None
        if local is not None and not local.is_dir():
            raise InputError(
                f"[warehouse] local_dir {config.local_dir!r} is no directory (expected one that all machines share which "
                "work on this warehouse): make it, or mount it"
            )
        return cls(root, config.inputs, dict(config.pins), local)

    def source(self, table: Table) -> Source:
        return self.sources.get(table.name, Source())

    def table(self, table: Table) -> str:
        """Directory of a table.

        Raises:
            InputError: it is an input that has a name in Spark's catalogue instead.
        """
        source = self.source(table)
        if source.table:
            raise InputError(
                f"table {table.name} is {source.table} in Spark's catalogue, which only Spark jobs can read "
                f"(expected a directory): give [warehouse.inputs.{table.name}] the path of its files"
            )
        if storage.is_uri(source.path):
            return source.path.rstrip("/")
        path = Path(source.path or table.name).expanduser()
        return storage.join("/" if path.is_absolute() else str(self.root), str(path))

    def place(self, table: Table) -> str:
        """Where an input is, for a message."""
        source = self.source(table)
        return f"{source.table} (Spark's catalogue)" if source.table else self.table(table)

    def staged(self, table: Table) -> str:
        """Where a run lays a table down until it is audited."""
        return storage.join(self.staging, table.name)

    @property
    def staging(self) -> str:
        return storage.join(str(self.root), "staging")

    @property
    def files(self) -> Path:
        """Directory of all that is no table."""
        return self.local_dir or Path(self.root)

    @property
    def datasets(self) -> Path:
        return self.files / "datasets"

    def dataset(self, ds: dt.date) -> Path:
        return self.datasets / f"ds={ds.isoformat()}"

    @property
    def bundles(self) -> Path:
        return self.files / "bundles"

    @property
    def checkpoints(self) -> Path:
        return self.files / "checkpoints"

    def training_checkpoints(self, ds: dt.date) -> Path:
        """Where the training on the dataset of ``ds`` leaves its checkpoints until it is over."""
        return self.checkpoints / f"ds={ds}"

    def training_figures(self, ds: dt.date) -> Path:
        """TensorBoard's event files of the last training on the dataset of ``ds``."""
        return self.files / "training" / f"ds={ds}"

    @property
    def truth(self) -> Path:
        """Ground truth of a generated or adapted warehouse; read by evaluation only."""
        return self.files / "truth"

    @property
    def item_indexes(self) -> Path:
        """Persisted faiss indexes of the items; ``live.json`` names the one of what is live."""
        return self.files / "item_index"

    def report(self, ds: dt.date) -> Path:
        return self.files / "reports" / f"ds={ds.isoformat()}"

    def has(self, table: Table) -> bool:
        """Whether a table is there; one whose place is configured is meant to be, and reading it tells."""
        source = self.source(table)
        if source.table or source.path:
            return True
        return bool(storage.entries(self.table(table)))


def is_delta(path: str) -> bool:
    return storage.is_directory(f"{path}/_delta_log")
