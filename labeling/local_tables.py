"""Tables of a warehouse read without Spark: what answers on a terminal in seconds starts no JVM.

Delta is read by polars through delta-rs, an engine that shares no code with the one that wrote it.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl

from etl.contracts import TAXONOMY, VOCABULARY, Table
from etl.errors import InputError
from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse, is_delta

# Types that input tables may bring instead of the contract's and that are cast.
_CAST = {"string": pl.String, "date": pl.Date, "bigint": pl.Int64, "int": pl.Int32}


def read(warehouse: Warehouse, table: Table, ds: dt.date | None = None, columns: tuple[str, ...] = ()) -> pl.DataFrame:
    """Rows of an input or output table, of one day if ``ds`` is given; columns as the contract names and types them.

    Raises:
        InputError: there is no such table, or columns are missing.
    """
    if not warehouse.has(table):
        raise InputError(
            f"table {table.name} is not at {warehouse.table(table)}: "
            "put it there, or run the stage that writes it first (see `labeller --help`)"
        )
    frame = scan(warehouse.table(table))
    found = frame.collect_schema().names()
    wanted = [column for column in table.columns if not columns or column.name in columns]
    if missing := [column.name for column in wanted if column.name not in found and not column.optional]:
        raise InputError(f"table {table.name} at {warehouse.table(table)} lacks the columns {missing} (found {found})")
    if ds is not None:
        frame = frame.filter(pl.col("ds").cast(pl.Date, strict=False) == ds)
    return frame.select(
        (pl.col(column.name) if column.name in found else pl.lit(None).alias(column.name)).cast(_CAST[column.type])
        if column.type in _CAST
        else pl.col(column.name)
        for column in wanted
    ).collect()


def scan(path: str) -> pl.LazyFrame:
    """A Delta table or a directory of Parquet files, partitions by their names."""
    if is_delta(path):
        return pl.scan_delta(path)
    files = sorted(str(file) for file in Path(path).rglob("*.parquet") if not _is_hidden(file.relative_to(path)))
    if not files:
        raise InputError(f"{path} holds neither a Delta table nor Parquet files")
    # Optional columns may have come with a later day.
    return pl.scan_parquet(files, hive_partitioning=True, missing_columns="insert", extra_columns="ignore")


def vocabulary(warehouse: Warehouse) -> Vocabulary:
    """The vocabulary of a warehouse.

    Raises:
        InputError: as :func:`read`, or it cannot be used.
    """
    return Vocabulary.of(read(warehouse, VOCABULARY).to_dicts())


def taxonomy(warehouse: Warehouse) -> Taxonomy:
    """The category tree of a warehouse.

    Raises:
        InputError: as :func:`read`, or it is no tree.
    """
    return Taxonomy.of(read(warehouse, TAXONOMY).to_dicts())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.parts)
