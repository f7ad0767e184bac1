"""What a contract is made of: columns and tables, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

LOG_RETENTION = "interval 365 days"
"""Of tables whose earlier commits tell something; Delta's own default is 30 days."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Spark SQL type and what it means.

    ``accepts`` lists further types that an input table may bring; they are cast without loss.
    """

    name: str
    type: str
    comment: str
    nullable: bool = False
    optional: bool = False
    accepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table: rows are unique in ``keys``; ``checks`` are SQL conditions that every row meets.

    Each stands here once, so a table equals itself only, and may be the key of a dict.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    checks: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def ddl(self) -> str:
        """Columns as a Spark DDL string."""
        return ", ".join(f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in self.columns)


DS = Column("ds", "date", "Day that the row was made for.")

LINEAGE = (
    Column("run_id", "string", "Run that made the row: ds and a hash of all that it depends on."),
    Column("bundle", "string", "Encoder that made it."),
    Column("calibration", "string", "Calibration that turned scores into probabilities."),
    Column("vocabulary", "string", "Version (hash) of the vocabulary; empty if the warehouse has none."),
    Column("taxonomy", "string", "Version (hash) of the taxonomy; empty if the warehouse has none."),
    Column("code", "string", "Version of this package, with a hash of its source."),
    Column("settings", "string", "Cuts that chose the labels, [predict] as JSON; null in older rows.", nullable=True),
    Column("inputs", "string", "What was read of the input tables, as JSON: a hash of the rows, by table."),
)
