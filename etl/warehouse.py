"""Where things lie under the root of a warehouse, and the inputs outside of it."""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etl import storage
from etl.config import WarehouseConfig, from_args
from etl.contracts import INPUTS, OUTPUTS, STAGED, Table
from etl.errors import InputError
from etl.sources import Source

_BUNDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ODD = re.compile("[`%]")
"""In a path: Delta takes the first for the end of a name, delta-rs the second for the start of an escape."""
_LOG = "_delta_log"
_OF_A_VERSION = re.compile(r"\d{20}\.")
_INPUTS = frozenset(table.name for table in INPUTS)


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
            InputError: the directory does not exist, or tables there could not be read; of a store, as
                :func:`etl.config.from_args` and :meth:`of`.
        """
        if storage.is_uri(root):
            return cls.of(from_args(WarehouseConfig, argparse.Namespace(config=None, root=root)))
        path = Path(root).expanduser().resolve()
        if odd := sorted(set(_ODD.findall(str(path)))):
            raise InputError(
                f"warehouse {root!r} holds {' '.join(map(repr, odd))}, which readers of its tables misread: rename it"
            )
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

    def inside(self, path: Path) -> Path:
        """A place of ours as it is given: jobs write and remove there, so no link in it may lead out of the root.

        Raises:
            InputError: one does.
        """
        there = path.resolve()
        ours = [self.files] if storage.is_uri(self.root) else [self.files, Path(self.root)]
        if not any(there.is_relative_to(place.resolve()) for place in ours):
            raise InputError(
                f"{path} is a link to {there} (expected a place under {self.files}, where jobs write and remove what is "
                "theirs): move it there, or mount the other place there"
            )
        return path

    def _inside_root(self, path: str) -> str:
        """The same for a table; a store has no links."""
        return path if storage.is_uri(path) else str(self.inside(Path(path)))

    def source(self, table: Table) -> Source:
        return self.sources.get(table.name, Source())

    def table(self, table: Table) -> str:
        """Directory of a table.

        Raises:
            InputError: it is an input that has a name in Spark's catalogue instead, or a table of ours outside of the root.
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
        found = storage.join("/" if path.is_absolute() else str(self.root), str(path))
        return found if table.name in _INPUTS else self._inside_root(found)

    def place(self, table: Table) -> str:
        """Where an input is, for a message."""
        source = self.source(table)
        return f"{source.table} (Spark's catalogue)" if source.table else self.table(table)

    def staged(self, table: Table) -> str:
        """Where a run lays a table down until it is audited."""
        return self._inside_root(storage.join(self.staging, table.name))

    def outputs(self) -> dict[str, tuple[Table, str]]:
        """Name -> contract and place of all tables that jobs write; a staged one is called ``staging/NAME``."""
        live = {table.name: (table, self.table(table)) for table in OUTPUTS}
        return live | {f"staging/{table.name}": (table, self.staged(table)) for table in STAGED}

    @property
    def staging(self) -> str:
        return storage.join(str(self.root), "staging")

    @property
    def files(self) -> Path:
        """Directory of all that is no table."""
        return self.local_dir or Path(self.root)

    @property
    def datasets(self) -> Path:
        return self.inside(self.files / "datasets")

    def dataset(self, ds: dt.date) -> Path:
        return self.inside(self.datasets / f"ds={ds.isoformat()}")

    @property
    def bundles(self) -> Path:
        return self.inside(self.files / "bundles")

    def bundle(self, name: str) -> Path:
        """Directory of a bundle, which need not be there.

        Raises:
            InputError: the name is none of a directory there, or that is a link out of the warehouse.
        """
        if not _BUNDLE.fullmatch(name):
            raise InputError(f"bundle {name!r} is not under {self.bundles}: give the name of a directory there")
        return self.inside(self.bundles / name)

    @property
    def checkpoints(self) -> Path:
        return self.inside(self.files / "checkpoints")

    def training_checkpoints(self, ds: dt.date) -> Path:
        """Where the training on the dataset of ``ds`` leaves its checkpoints until it is over."""
        return self.inside(self.checkpoints / f"ds={ds}")

    def training_figures(self, ds: dt.date) -> Path:
        """TensorBoard's event files of the last training on the dataset of ``ds``."""
        return self.inside(self.files / "training" / f"ds={ds}")

    @property
    def truth(self) -> Path:
        """Ground truth of a generated or adapted warehouse; read by evaluation only."""
        return self.files / "truth"

    @property
    def item_indexes(self) -> Path:
        """Persisted faiss indexes of the items; ``live.json`` names the one of what is live."""
        return self.inside(self.files / "item_index")

    def report(self, ds: dt.date) -> Path:
        return self.inside(self.files / "reports" / f"ds={ds.isoformat()}")

    def has(self, table: Table) -> bool:
        """Whether a table is there; one whose place is configured is meant to be, and reading it tells."""
        source = self.source(table)
        if source.table or source.path:
            return True
        path = self.table(table)
        return is_delta(path) or any(name != _LOG for name in storage.entries(path))


def is_delta(path: str) -> bool:
    """Whether a Delta table is there: its log holds a version; a writer that was killed before its first leaves none.

    The .crc of a version is enough: a log that lost its entries is a damaged table, which must not be made anew.
    """
    return any(_OF_A_VERSION.match(name) for name in storage.entries(storage.join(path, _LOG)))
