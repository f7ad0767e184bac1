"""Where things lie under the root of a warehouse, and the inputs outside of it."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etl.config import WarehouseConfig
from etl.contracts import INPUTS, Table
from etl.errors import InputError
from etl.sources import Source

_BUNDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ODD = re.compile("[`%]")
"""In a path: Delta takes the first for the end of a name, delta-rs the second for the start of an escape."""
_INPUTS = frozenset(table.name for table in INPUTS)


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The directory layout: tables by name, and beside them bundles, datasets, staging and reports."""

    root: Path

    sources: Mapping[str, Source] = field(default_factory=dict, hash=False)
    """Input tables that lie elsewhere or are written otherwise, by name."""

    pins: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    """Delta version of each input, as asked for or from the first look at it on: a job scans its log five times while others
    append."""

    @classmethod
    def at(cls, root: str) -> Warehouse:
        """The warehouse under ``root``.

        Raises:
            InputError: the directory does not exist, or tables there could not be read.
        """
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
            InputError: as :meth:`at`.
        """
        return cls(cls.at(config.root).root, config.inputs, dict(config.pins))

    def inside(self, path: Path) -> Path:
        """A place of ours as it is given: jobs write and remove there, so no link in it may lead out of the root.

        Raises:
            InputError: one does.
        """
        there = path.resolve()
        if not there.is_relative_to(self.root.resolve()):
            raise InputError(
                f"{path} is a link to {there} (expected a place under {self.root}, where jobs write and remove what is "
                "theirs): move it there, or mount the other place there"
            )
        return path

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
        # As Spark writes it, whose errors name files: no ".." in it, links kept.
        path = os.path.normpath(self.root / Path(source.path or table.name).expanduser())
        return path if table.name in _INPUTS else str(self.inside(Path(path)))

    def place(self, table: Table) -> str:
        """Where an input is, for a message."""
        source = self.source(table)
        return f"{source.table} (Spark's catalogue)" if source.table else self.table(table)

    def staged(self, table: Table) -> str:
        """Where a run lays a table down until it is audited."""
        return str(self.inside(self.root / "staging" / table.name))

    def dataset(self, ds: dt.date) -> Path:
        return self.inside(self.root / "datasets" / f"ds={ds.isoformat()}")

    @property
    def bundles(self) -> Path:
        return self.inside(self.root / "bundles")

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
        return self.inside(self.root / "checkpoints")

    def training_checkpoints(self, ds: dt.date) -> Path:
        """Where the training on the dataset of ``ds`` leaves its checkpoints until it is over."""
        return self.inside(self.checkpoints / f"ds={ds}")

    def training_figures(self, ds: dt.date) -> Path:
        """TensorBoard's event files of the last training on the dataset of ``ds``."""
        return self.inside(self.root / "training" / f"ds={ds}")

    @property
    def truth(self) -> Path:
        """Ground truth of a generated or adapted warehouse; read by evaluation only."""
        return self.root / "truth"

    @property
    def item_indexes(self) -> Path:
        """Persisted faiss indexes of the items; ``live.json`` names the one of what is live."""
        return self.inside(self.root / "item_index")

    def report(self, ds: dt.date) -> Path:
        return self.inside(self.root / "reports" / f"ds={ds.isoformat()}")

    def has(self, table: Table) -> bool:
        """Whether a table is there; one whose place is configured is meant to be, and reading it tells."""
        source = self.source(table)
        if source.table or source.path:
            return True
        path = Path(self.table(table))
        return path.is_dir() and any(path.iterdir())


def is_delta(path: str) -> bool:
    return (Path(path) / "_delta_log").is_dir()
