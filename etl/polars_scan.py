"""Tables and files scanned by polars, on a mounted path or a store; no JVM is started.

Delta is read through delta-rs, an engine that shares no code with the one that wrote it.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import polars as pl
from deltalake import QueryBuilder

from etl import storage
from etl.errors import InputError
from etl.table_log import naming_table, opened
from etl.warehouse import is_delta

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def scan(path: str) -> pl.LazyFrame:
    """A Delta table or a directory of Parquet files, partitions by their names; on hdfs:// read whole.

    Raises:
        InputError: there is neither, or as :func:`etl.table_log.opened`.
    """
    if is_delta(path):
        return _by_delta_rs(path) if _is_hdfs(path) else _by_polars(path)
    found = ((file.path, storage.shown(file.path, path)) for file in storage.files_under(path))
    files = [file for file, name in found if name.endswith(".parquet") and not _is_hidden(name)]
    if not files:
        raise InputError(f"{path} holds neither a Delta table nor Parquet files")
    if _is_hdfs(path):
        return pl.concat([_with_partitions(file, path) for file in files], how="diagonal_relaxed").lazy()
    # Optional columns may have come with a later day.
    return pl.scan_parquet(files, hive_partitioning=True, missing_columns="insert", extra_columns="ignore")


def distinct(files: list[str], column: str) -> list[Any]:
    """Distinct values of a column of Parquet files; on hdfs:// the files are read whole."""
    if not files:
        return []
    if _is_hdfs(files[0]):
        rows = pl.concat([pl.DataFrame(storage.read_parquet(file)).select(column) for file in files]).lazy()
    else:
        rows = pl.scan_parquet(files).select(column)
    return rows.unique().collect()[column].to_list()


def _is_hdfs(path: str) -> bool:
    """Whether polars cannot open it itself."""
    return path.startswith("hdfs://")


def _by_polars(path: str) -> pl.LazyFrame:
    table = opened(path)
    # Of a store polars finds credentials by the URI only.
    return pl.scan_delta(path, version=table.version()) if storage.is_uri(path) else pl.scan_delta(table)


def _by_delta_rs(path: str) -> pl.LazyFrame:
    table = opened(path)
    with naming_table(path):
        rows = QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()
    return pl.DataFrame(rows).lazy()


def _with_partitions(file: str, path: str) -> pl.DataFrame:
    """One Parquet file, with the columns that stand in the names of its directories: days as dates, all else as text."""
    named = [part.split("=", 1) for part in storage.shown(file, path).split("/")[:-1] if "=" in part]
    values = {name: dt.date.fromisoformat(value) if _DAY.fullmatch(value) else value for name, value in named}
    return pl.DataFrame(storage.read_parquet(file)).with_columns(**{name: pl.lit(value) for name, value in values.items()})


def _is_hidden(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/"))
