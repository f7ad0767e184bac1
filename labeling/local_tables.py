"""Tables of a warehouse read without Spark: what answers on a terminal in seconds starts no JVM.

Delta is read by polars through delta-rs, an engine that shares no code with the one that wrote it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

import polars as pl

from etl.contracts import CATALOGUE, OUTPUTS, TAXONOMY, VOCABULARY, Column, Table
from etl.errors import InputError
from etl.masking import masked
from etl.polars_scan import scan
from etl.product_template import ProductTemplate
from etl.sources import Source
from etl.table_log import opened
from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse, is_delta

# Types that input tables may bring instead of the contract's and that are cast.
_CAST = {"string": pl.String, "date": pl.Date, "bigint": pl.Int64, "int": pl.Int32}

# Types of an output table's columns; the others are lists.
_PLAIN: dict[str, Any] = _CAST | {"double": pl.Float64, "boolean": pl.Boolean, "timestamp": pl.Datetime(time_zone="UTC")}


def read(
    warehouse: Warehouse,
    table: Table,
    ds: dt.date | None = None,
    columns: tuple[str, ...] = (),
    further: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Rows of an input or output table, of one day if ``ds`` is given; columns as the contract names and types them.

    Columns that an output table of an earlier version lacks are null. Titles of the catalogue are masked as
    :func:`etl.catalogue.read_catalogue` masks them.

    ``further`` names columns beside the contract; they come as strings.

    Raises:
        InputError: there is no such table, it is one of Spark's catalogue, or columns are missing.
    """
    if not warehouse.has(table):
        raise InputError(
            f"table {table.name} is not at {warehouse.table(table)}: "
            "put it there, or run the stage that writes it first (see `labeller --help`)"
        )
    source = warehouse.source(table)
    frame = scan(warehouse.table(table))
    found = frame.collect_schema().names()
    wanted = [column for column in table.columns if not columns or column.name in columns]
    wanted += [Column(name, "string", "[text] product_text names it", nullable=True) for name in further]
    theirs = {column.name: source.theirs(column.name) for column in wanted}
    # As Spark jobs have it: an output table of before a column was there lacks one that may be null.
    spared = {column.name for column in wanted if column.optional or (table in OUTPUTS and column.nullable)}
    if missing := [source.named(name) for name in theirs if theirs[name] not in found and name not in spared]:
        raise InputError(f"table {table.name} at {warehouse.table(table)} lacks {', '.join(missing)} (found {found})")
    if ds is not None:
        frame = frame.filter(_day(source, frame) == ds)
    rows = frame.select(
        _day(source, frame).alias("ds") if column.name == "ds" else _as_ours(column, theirs[column.name], found)
        for column in wanted
    ).collect()
    if table == CATALOGUE and source.mask and "title" in rows.columns:
        return rows.with_columns(pl.col("title").map_elements(masked, return_dtype=pl.String))
    return rows


def catalogue_texts(warehouse: Warehouse, ds: dt.date, template: ProductTemplate) -> dict[str, str | None]:
    """Raw text of each item of a day's catalogue, see :func:`etl.catalogue.read_catalogue`.

    Raises:
        InputError: as :func:`read`; the day has no rows.
    """
    further = tuple(name for name in template.columns if name not in CATALOGUE.names)
    found = read(warehouse, CATALOGUE, ds, ("item_id", *template.columns), further)
    if found.is_empty():
        raise InputError(f"catalogue/ds={ds} has 0 rows (expected >= 1): is that day complete?")
    texts = {row["item_id"]: template.render(row) for row in found.cast(pl.String).iter_rows(named=True)}
    if not warehouse.source(CATALOGUE).mask:
        return texts
    return {item: None if text is None else masked(text) for item, text in texts.items()}


def written(warehouse: Warehouse, table: Table, *, staged: bool = False) -> pl.LazyFrame:
    """An output table as it is, or as it is staged; perhaps of before a column was, and empty if never written."""
    path = warehouse.staged(table) if staged else warehouse.table(table)
    if is_delta(path):
        return scan(path)
    return pl.LazyFrame(schema={column.name: _PLAIN.get(column.type, pl.List(pl.String)) for column in table.columns})


def days(warehouse: Warehouse, table: Table) -> list[dt.date]:
    """Days of an output table, ascending, by its log alone; none if it was never written."""
    path = warehouse.table(table)
    parts = opened(path).partitions() if is_delta(path) else []
    return sorted({dt.date.fromisoformat(part["ds"]) for part in parts})


def files(path: str) -> pl.DataFrame:
    """Files of a Delta table by its log alone: path, size_bytes, num_records, partition.NAME, min.NAME and max.NAME."""
    return pl.DataFrame(opened(path).get_add_actions(flatten=True))


def _as_ours(column: Column, theirs: str, found: Collection[str]) -> pl.Expr:
    values = pl.col(theirs) if theirs in found else pl.lit(None)
    return (values.cast(_CAST[column.type]) if column.type in _CAST else values).alias(column.name)


def _day(source: Source, frame: pl.LazyFrame) -> pl.Expr:
    """Their day as a date; null where it is none."""
    theirs = source.theirs("ds")
    if not source.day_format or frame.collect_schema()[theirs] == pl.Date:
        return pl.col(theirs).cast(pl.Date, strict=False)
    # The directory dt=01052024 is read as the number 1052024.
    text = pl.col(theirs).cast(pl.String).str.zfill(len(source.day_format))
    return text.str.to_date(source.strptime, strict=False)


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
