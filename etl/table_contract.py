"""What of a Delta table differs from its contract, by its log alone, and the statements that make it the same.

A contract grows: a column, a comment, a constraint. What can be added without touching a row has statements; of the rest
somebody has to decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import deltalake

from etl import table_log
from etl.contracts import Column, Table

READER_VERSION = 1
"""Of the Delta protocol, that every engine reads: no deletion vectors, no column mapping."""

_CONSTRAINT = "delta.constraints."
_TYPES = {"integer": "int", "long": "bigint"}
"""Delta's names of types -> Spark SQL's, where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which a table is not as its contract says."""

    what: str
    """As ``column why`` or ``constraint split_known``."""
    found: str
    expected: str
    blocks: bool
    """Whether a job that writes by the contract would fail, or write other rows than are read."""
    statements: tuple[str, ...] = ()
    """What makes it the same, with ``{table}`` for the table's name; none: that is not to be had without rows."""
    requires: str = ""
    """Condition that every row must meet before."""

    def __str__(self) -> str:
        return f"{self.what}: {self.found} (expected {self.expected})"


def properties(table: Table) -> dict[str, str]:
    """Delta's properties of a table by its contract, constraints among them."""
    checks = {f"{_CONSTRAINT}{name}": condition for name, condition in table.checks.items()}
    return {"delta.enableDeletionVectors": "false"} | checks | table.properties


def differences(path: str, table: Table) -> list[Difference]:
    """All of them, of the newest version of the Delta table at ``path``.

    Raises:
        InputError: as :func:`etl.table_log.opened`.
    """
    found = table_log.opened(path)
    return [
        *_of_layout(found, table),
        *_of_columns(found, table),
        *_of_properties(found.metadata().configuration, table),
    ]


def _of_layout(found: deltalake.DeltaTable, table: Table) -> Iterator[Difference]:
    reader = found.protocol().min_reader_version
    if reader > READER_VERSION:
        yield Difference(what="reader version", found=str(reader), expected=str(READER_VERSION), blocks=True)
    partitions = tuple(found.metadata().partition_columns)
    if partitions != table.partition_by:
        yield Difference(what="partitions", found=str(partitions), expected=str(table.partition_by), blocks=True)
    said = found.metadata().description
    if said != table.comment:
        statement = f"COMMENT ON TABLE {{table}} IS {_literal(table.comment)}"
        yield Difference(
            what="comment", found=repr(said), expected=repr(table.comment), blocks=False, statements=(statement,)
        )


def _of_columns(found: deltalake.DeltaTable, table: Table) -> Iterator[Difference]:
    fields = {field["name"]: field for field in _schema(found)["fields"]}
    for name in fields:
        if name not in table.names:
            yield Difference(what=f"column {name}", found="there", expected="no such column", blocks=True)
    before = ""
    for column in table.columns:
        if column.name in fields:
            yield from _of_column(fields[column.name], column)
        else:
            yield _lacking(column, f"AFTER {before}" if before else "FIRST")
        before = column.name


def _lacking(column: Column, place: str) -> Difference:
    expected = column.type + ("" if column.nullable else " NOT NULL")
    add = f"ALTER TABLE {{table}} ADD COLUMN {column.name} {column.type} COMMENT {_literal(column.comment)} {place}"
    # Earlier rows can only say null in it.
    statements = (add,) if column.nullable else ()
    return Difference(what=f"column {column.name}", found="missing", expected=expected, blocks=True, statements=statements)


def _of_column(field: Mapping[str, Any], column: Column) -> Iterator[Difference]:
    alter = f"ALTER TABLE {{table}} ALTER COLUMN {column.name}"
    kind = _ddl(field["type"])
    if kind != column.type:
        yield Difference(what=f"type of {column.name}", found=kind, expected=column.type, blocks=True)
    if field["nullable"] and not column.nullable:
        yield Difference(what=f"column {column.name}", found="may be null", expected="NOT NULL", blocks=False)
    if column.nullable and not field["nullable"]:
        loosen = (f"{alter} DROP NOT NULL",)
        yield Difference(
            what=f"column {column.name}", found="NOT NULL", expected="may be null", blocks=True, statements=loosen
        )
    said = field["metadata"].get("comment")
    if said != column.comment:
        statement = f"{alter} COMMENT {_literal(column.comment)}"
        yield Difference(
            what=f"comment of {column.name}", found=repr(said), expected=repr(column.comment), blocks=False,
            statements=(statement,),
        )  # fmt: skip


def _of_properties(found: Mapping[str, str | None], table: Table) -> Iterator[Difference]:
    expected = properties(table)
    for key, value in found.items():
        if key.startswith(_CONSTRAINT) and key not in expected:
            name = key.removeprefix(_CONSTRAINT)
            drop = (f"ALTER TABLE {{table}} DROP CONSTRAINT {name}",)
            yield Difference(
                what=f"constraint {name}", found=str(value), expected="no such constraint", blocks=True, statements=drop
            )
    for key, wanted in expected.items():
        if found.get(key) == wanted:
            continue
        if key.startswith(_CONSTRAINT):
            yield _constraint(key.removeprefix(_CONSTRAINT), found.get(key), wanted)
        else:
            statement = f"ALTER TABLE {{table}} SET TBLPROPERTIES ({_literal(key)} = {_literal(wanted)})"
            yield Difference(
                what=f"property {key}", found=str(found.get(key)), expected=wanted, blocks=False, statements=(statement,)
            )


def _constraint(name: str, found: str | None, wanted: str) -> Difference:
    """A table that lacks one takes all our rows; one that has another may refuse them."""
    drop = (f"ALTER TABLE {{table}} DROP CONSTRAINT {name}",) if found else ()
    return Difference(
        what=f"constraint {name}", found=str(found), expected=wanted, blocks=found is not None, requires=wanted,
        statements=(*drop, f"ALTER TABLE {{table}} ADD CONSTRAINT {name} CHECK ({wanted})"),
    )  # fmt: skip


def _schema(found: deltalake.DeltaTable) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(found.schema().to_json())
    return schema


def _ddl(kind: Any) -> str:
    """A type of Delta's JSON as the contracts write it."""
    if isinstance(kind, str):
        return _TYPES.get(kind, kind)
    if kind["type"] == "array":
        return f"array<{_ddl(kind['elementType'])}>"
    if kind["type"] == "struct":
        fields = [f"{field['name']}: {_ddl(field['type'])}" for field in kind["fields"]]
        return f"struct<{', '.join(fields)}>"
    return str(kind)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
