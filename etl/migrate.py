"""Bring tables that an earlier version of this package made up to its contracts: what adds to them and touches no row."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config, tables
from etl.config import SparkConfig
from etl.contracts import Table
from etl.errors import InputError
from etl.job import run_job
from etl.session import start_session
from etl.table_contract import Difference, differences
from etl.table_lock import table_lock
from etl.warehouse import Warehouse, is_delta

log = logging.getLogger(__name__)

STAGE = "migrate"


class MigrateConfig(SparkConfig):
    """Settings of `labeller migrate`."""

    dry_run: bool = False
    """Only say what would be done; nothing is written."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What stands between a table and its contract."""

    table: Table
    path: str
    found: tuple[Difference, ...]

    @property
    def mended(self) -> list[Difference]:
        return [difference for difference in self.found if difference.statements]

    @property
    def refused(self) -> list[Difference]:
        return [difference for difference in self.found if not difference.statements]


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(MigrateConfig, "labeller migrate", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), MigrateConfig, run, argv)


def run(settings: MigrateConfig) -> Mapping[str, Any]:
    """Add to each table what its contract has more; those of which something else differs are left as they are.

    Raises:
        InputError: there are such tables; each difference is named, the others are migrated all the same.
    """
    warehouse = Warehouse.of(settings)
    plans = list(planned(warehouse))
    for plan in plans:
        for difference in plan.mended:
            log.info("%s at %s: %s", plan.table.name, plan.path, difference)
    good = [plan for plan in plans if not plan.refused]
    refused = [f"{plan.table.name} at {plan.path}: {difference}" for plan in plans for difference in plan.refused]
    if settings.dry_run:
        log.info("dry run: nothing was written")
    elif good:
        spark = start_session("labeller migrate", settings)
        refused += [problem for plan in good for problem in migrate(spark, plan)]
    if refused:
        heading = (
            "tables that rows would have to be written anew for (move each away, and run the stages that write it again):"
        )
        raise InputError.of(refused, heading=heading)
    return {"tables": len(good), "changes": sum(len(plan.mended) for plan in good)}


def planned(warehouse: Warehouse) -> Iterator[Plan]:
    """Tables that differ from their contracts, the live ones and those that are staged."""
    for table, path in warehouse.outputs().values():
        if is_delta(path) and (found := differences(path, table)):
            yield Plan(table, path, tuple(found))


def require_contracts(warehouse: Warehouse) -> None:
    """See that the jobs of a night can write their tables, by the tables' logs alone.

    Raises:
        InputError: some were made under another contract; everything that stands against it is named.
    """
    found = [
        f"{plan.table.name} at {plan.path}: {each}" for plan in planned(warehouse) for each in plan.found if each.blocks
    ]
    if found:
        heading = "tables made under another contract; run `labeller migrate` and it says what can be mended:"
        raise InputError.of(found, heading=heading)


def migrate(spark: SparkSession, plan: Plan) -> list[str]:
    """Do it; returns what could not be done, since rows stand against it: nothing of that table was changed then."""
    name = tables.sql_name(plan.path)
    with table_lock(spark, plan.path), tables.commit_metadata({"stage": STAGE}):
        rows = with_added(spark.read.format("delta").load(plan.path), plan.table)
        # As Delta has it, a constraint that comes out as null is not met.
        checked = [each for each in plan.mended if each.requires]
        against = {each: rows.where(~F.expr(f"coalesce({each.requires}, false)")).count() for each in checked}
        if problems := [f"{plan.table.name}: {each}; {n} rows do not meet it" for each, n in against.items() if n]:
            return problems
        for difference in plan.mended:
            for statement in difference.statements:
                spark.sql(statement.replace("{table}", name, 1))
    left = [str(difference) for difference in differences(plan.path, plan.table)]
    if left:
        raise tables.WriteError(f"{plan.table.name} at {plan.path} still differs: {'; '.join(left)}")
    return []


def with_added(rows: DataFrame, table: Table) -> DataFrame:
    """Rows with the columns that the table is to get, null as they will be there."""
    lacking = [column for column in table.columns if column.name not in rows.columns]
    return rows.withColumns({column.name: F.lit(None).cast(column.type) for column in lacking})


if __name__ == "__main__":
    sys.exit(main())
