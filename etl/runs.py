"""The log of runs: which stage read what, wrote how much and took how long; and what that says of one more run."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from etl.code import code_version, revision
from etl.contracts import RUNS
from etl.tables import read, write_slice
from etl.warehouse import Warehouse, is_delta


def record_stage(
    spark: SparkSession,
    warehouse: Warehouse,
    ds: dt.date,
    stage: str,
    *,
    inputs: Mapping[str, str],
    counts: Mapping[str, int | float | str],
    seconds: float,
    run_id: str | None = None,
    bundle: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the row of RUNS of one finished stage; it replaces the row of an earlier attempt.

    Args:
        spark: The session.
        warehouse: Where the table lies.
        ds: Day that the stage worked for.
        stage: Its name, as in the contract.
        inputs: Versions of what was read, by table.
        counts: Rows read, written, dropped; days, where a stage names some; seconds of its work proper.
        seconds: Wall time.
        run_id: The labelling run it belongs to.
        bundle: The encoder it used or made.
        settings: Settings that its rows depend on, as JSON knows them.
    """
    row = {
        "ds": ds,
        "stage": stage,
        "run_id": run_id,
        "bundle": bundle,
        "code": f"{code_version()} {revision()}".strip(),
        "inputs": json.dumps(dict(inputs), sort_keys=True),
        "counts": json.dumps(dict(counts), sort_keys=True),
        "seconds": round(seconds, 3),
        "finished_at": dt.datetime.now(dt.UTC),
        "settings": None if settings is None else json.dumps(dict(settings), sort_keys=True),
    }
    frame = spark.createDataFrame([tuple(row[name] for name in RUNS.names)], RUNS.ddl)
    write_slice(frame, warehouse.table(RUNS), RUNS, {"ds": ds, "stage": stage}, _without_times(row))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run would take, by the runs of before."""

    seconds: float
    rate: float
    """Units a second of the work proper."""
    ds: dt.date
    """Day of the run that measured the rate."""
    bundle: str
    """Its bundle."""

    def __str__(self) -> str:
        return f"about {self.seconds:.0f} s ({self.rate:,.0f} a second, measured for {self.ds} with bundle {self.bundle})"


def expected_cost(
    spark: SparkSession, warehouse: Warehouse, stage: str, bundle: str, *, done: str, timed: str, units: int
) -> Cost | None:
    """What ``units`` of work would take, by the runs of ``stage``; None if none of them measured a rate.

    The rate is that of the run with the most units, since of few the fixed cost of a job's tasks is most; of ``bundle``
    where it has run, else of any. What such a run took beside its work is added as it is.

    Args:
        spark: The session.
        warehouse: Where the runs are.
        stage: Whose.
        bundle: The one to work with.
        done: Key of ``counts`` with the units of a run.
        timed: Key of ``counts`` with their seconds.
        units: To do.
    """
    if not is_delta(warehouse.table(RUNS)):
        return None
    rows = read(spark, warehouse.table(RUNS), RUNS, stage=stage).orderBy("ds").collect()
    runs = [(row, json.loads(row["counts"])) for row in rows]
    measured = [(row, counts) for row, counts in runs if counts.get(done) and counts.get(timed)]
    own = [(row, counts) for row, counts in measured if row["bundle"] == bundle]
    if not measured:
        return None
    row, counts = max(own or measured, key=lambda run: run[1][done])
    rate = counts[done] / counts[timed]
    return Cost(row["seconds"] - counts[timed] + units / rate, rate, row["ds"], row["bundle"])


def _without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("seconds", "finished_at")}
