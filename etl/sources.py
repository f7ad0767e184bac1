"""Where a shop keeps an input table, and how it writes it: ``[warehouse.inputs.NAME]`` of ``warehouse.toml``."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from etl import storage
from etl.contracts import CATALOGUE, INPUTS, Table
from etl.errors import did_you_mean

_DAY_FORMAT = re.compile(r"yyyy([^\w\s/]?)MM\1dd|dd([^\w\s/]?)MM\2yyyy")


class Source(BaseModel):
    """One input table as the shop has it; by default a directory of its name, with our column names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    table: str = ""
    """Name in Spark's catalogue (Hive metastore), such as shop.clicks."""

    path: str = ""
    """Directory of a Delta table or of Parquet files, relative to the root of the warehouse; or its URI on a store."""

    columns: dict[str, str] = {}
    """Our name of a column -> theirs, where the two differ."""

    day_format: str = ""
    """How theirs writes a day, such as yyyyMMdd; a date or YYYY-MM-DD unless given."""

    mask: bool = True
    """Whether e-mail addresses and telephone numbers in titles are masked; of the catalogue alone."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Source:
        if self.table and self.path:
            raise ValueError(f"both table {self.table!r} and path {self.path!r} are given (expected one): drop the other")
        if storage.is_uri(self.path):
            storage.require_known(self.path)
        if self.day_format and not _DAY_FORMAT.fullmatch(self.day_format):
            raise ValueError(
                f"day_format {self.day_format!r} is unknown (expected yyyy, MM and dd, in this order or reversed, "
                "with one sign between them or none: yyyyMMdd, yyyy.MM.dd, dd-MM-yyyy)"
            )
        return self

    def theirs(self, column: str) -> str:
        """Their name of our column."""
        return self.columns.get(column, column)

    def fold(self, name: str) -> str:
        """A name of theirs as names are compared: the metastore keeps lower case, the files of its tables may not."""
        return name.lower() if self.table else name

    def named(self, column: str) -> str:
        """Our column for a message, with their name where it differs."""
        theirs = self.theirs(column)
        return f"column {column}" + (f" (theirs: {theirs})" if theirs != column else "")

    @property
    def strptime(self) -> str:
        """``day_format`` in the letters of :meth:`datetime.date.strftime`."""
        return (self.day_format or "yyyy-MM-dd").replace("yyyy", "%Y").replace("MM", "%m").replace("dd", "%d")

    def day(self, day: dt.date) -> str:
        """A day as they write it."""
        return day.strftime(self.strptime)


def _require_known(inputs: Any) -> Any:
    """Names of tables, keys and columns, before pydantic judges the values: its own messages do not say what was meant."""
    tables = {table.name: table for table in INPUTS}
    problems = []
    for name, source in inputs.items() if isinstance(inputs, Mapping) else ():
        if name not in tables:
            problems.append(f"{name} is no input table{did_you_mean(name, tables)} (known: {', '.join(tables)})")
        elif isinstance(source, Mapping):
            problems += _unknown_names(tables[name], source)
    if problems:
        raise ValueError("; ".join(problems))
    return inputs


def _unknown_names(table: Table, source: Mapping[str, Any]) -> list[str]:
    keys = [key for key in source if key not in Source.model_fields]
    problems = [
        f"{table.name}.{key} is no setting{did_you_mean(key, Source.model_fields)} (known: {', '.join(Source.model_fields)})"
        for key in keys
    ]
    columns = source.get("columns", {})
    unknown = [name for name in columns if name not in table.names] if isinstance(columns, Mapping) else []
    return problems + [
        f"{table.name}.columns: {name} is no column of ours{did_you_mean(name, table.names)} "
        f"(expected ours = theirs; `labeller tables {table.name}` lists ours)"
        for name in unknown
    ]


def _require_fitting(inputs: dict[str, Source]) -> dict[str, Source]:
    tables = {table.name: table for table in INPUTS}
    wrong = [name for name, source in inputs.items() if source.day_format and "ds" not in tables[name].names]
    if wrong:
        raise ValueError(f"day_format is given for {', '.join(wrong)}, which has no day: drop it")
    wrong = [name for name, source in inputs.items() if not source.mask and name != CATALOGUE.name]
    if wrong:
        raise ValueError(
            f"mask is given for {', '.join(wrong)} (expected for catalogue alone, whose titles it is about): drop it"
        )
    return inputs


Sources = Annotated[dict[str, Source], BeforeValidator(_require_known), AfterValidator(_require_fitting)]
"""Input tables by name; one that is not named lies under the root, as the contract has it."""
