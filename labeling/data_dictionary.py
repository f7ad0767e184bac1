"""The data dictionary: every table of the contracts with its columns, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from etl.contracts import INPUTS, OUTPUTS, Column, Table

HEADER = """# Data dictionary

Made from `etl/contracts/` by `labeller tables --markdown > docs/data_dictionary.md`; a test sees that it is up to date.
Days and times are UTC. Columns are never null unless their type says "or null".
"""


def data_dictionary() -> str:
    """Inputs, then outputs, in the order of the contracts."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield HEADER
    for heading, tables in (("Inputs", INPUTS), ("Outputs", OUTPUTS)):
        yield f"## {heading}\n"
        for table in tables:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"### {table.name}\n"
    yield f"{table.comment}\n"
    facts = [f"Rows are unique in {_names(table.keys)}."] if table.keys else []
    facts += [f"Partitions: {_names(table.partition_by)}."] if table.partition_by else []
    facts += (
        [f"Every row meets {', '.join(f'`{_cell(check)}`' for check in table.checks.values())}."] if table.checks else []
    )
    if facts:
        yield " ".join(facts) + "\n"
    yield "| column | type | meaning |\n|---|---|---|"
    for column in table.columns:
        yield f"| `{column.name}` | {_type(column)} | {_cell(column.comment)} |"
    yield ""


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def _type(column: Column) -> str:
    kinds = " or ".join(f"`{kind}`" for kind in (column.type, *column.accepts))
    return kinds + (" or null" if column.nullable else "") + (", may be absent" if column.optional else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
