"""The output tables as an independent reader (polars over delta-rs) sees them; with a name, what its columns mean.

Inputs are not listed: ``labeller check`` looks at those.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from deltalake import DeltaTable
from rich.markup import escape
from rich.table import Table as RichTable

from etl.contracts import INPUTS, OUTPUTS, Table
from etl.errors import EXIT_OK, InputError
from etl.polars_scan import scan
from etl.warehouse import Warehouse, is_delta
from labeling.data_dictionary import data_dictionary
from labeling.terminal import add_root_argument, console


@dataclass(frozen=True, slots=True)
class Found:
    """What one table holds; ``version`` is None if it was never written."""

    table: str
    rows: int
    days: int
    first: str | None
    last: str | None
    version: int | None
    reader_version: int | None
    comment: str


def survey(warehouse: Warehouse) -> Iterator[Found]:
    """Every output table of the contracts, in their order."""
    for table in OUTPUTS:
        path = warehouse.table(table)
        if not is_delta(path):
            yield Found(table.name, 0, 0, None, None, None, None, table.comment)
            continue
        delta = DeltaTable(path)
        figures: dict[str, Any] = scan(path).select(*_figures(table)).collect().row(0, named=True)
        yield Found(
            table=table.name,
            version=delta.version(),
            reader_version=delta.protocol().min_reader_version,
            comment=table.comment,
            **figures,
        )


def _figures(table: Table) -> list[pl.Expr]:
    day = next((name for name in ("ds", "first_ds") if name in table.names), None)
    if day is None:
        return [pl.len().alias("rows"), pl.lit(0).alias("days"), pl.lit(None).alias("first"), pl.lit(None).alias("last")]
    text = pl.col(day).cast(pl.String)
    return [
        pl.len().alias("rows"),
        pl.col(day).n_unique().alias("days"),
        text.min().alias("first"),
        text.max().alias("last"),
    ]


def as_table(found: Sequence[Found], title: str) -> RichTable:
    """The survey for a terminal."""
    shown = RichTable(title=title, title_justify="left")
    for name in ("table", "rows", "days", "version"):
        shown.add_column(name, justify="left" if name in ("table", "days") else "right", no_wrap=True)
    shown.add_column("one row is", overflow="fold")
    for entry in found:
        days = "" if entry.first is None else entry.first if entry.first == entry.last else f"{entry.first} … {entry.last}"
        written = entry.version is not None
        shown.add_row(
            entry.table,
            f"{entry.rows:,}" if written else "-",
            days,
            str(entry.version) if written else "not yet",
            entry.comment,
        )
    return shown


def columns_of(table: Table) -> RichTable:
    """What each column of a table means, for a terminal."""
    shown = RichTable(title=f"{table.name}: {table.comment}", title_justify="left")
    for name in ("column", "type", "meaning"):
        shown.add_column(name, overflow="fold")
    for column in table.columns:
        may = " May be absent." if column.optional else " May be null." if column.nullable else ""
        shown.add_row(column.name, " or ".join((column.type, *column.accepts)), escape(column.comment) + may)
    return shown


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller tables", description=__doc__, allow_abbrev=False)
    names = [table.name for table in (*OUTPUTS, *INPUTS)]
    parser.add_argument("name", metavar="TABLE", nargs="?", choices=names, help="say what its columns mean, and no more")
    add_root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--markdown", action="store_true", help="print the data dictionary: all tables and their columns")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    if args.markdown:
        print(data_dictionary(), end="")
        return EXIT_OK
    if args.name:
        console().print(columns_of(next(table for table in (*OUTPUTS, *INPUTS) if table.name == args.name)))
        return EXIT_OK
    try:
        warehouse = Warehouse.at(args.root)
        found = list(survey(warehouse))
    except InputError as error:
        print(f"labeller tables: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps([asdict(entry) for entry in found], indent=1))
    else:
        console().print(as_table(found, f"output tables of {warehouse.root}"))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
