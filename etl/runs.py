"""The log of runs: which stage read what, wrote how much and took how long."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from etl.contracts import RUNS
from etl.tables import write_slice
from etl.warehouse import Warehouse

PACKAGES = ("etl", "model", "labeling")


def record_stage(
    spark: SparkSession,
    warehouse: Warehouse,
    ds: dt.date,
    stage: str,
    *,
    inputs: Mapping[str, str],
    counts: Mapping[str, int | str],
    seconds: float,
    run_id: str | None = None,
    bundle: str | None = None,
) -> None:
    """Write the row of RUNS of one finished stage; it replaces the row of an earlier attempt.

    Args:
        spark: The session.
        warehouse: Where the table lies.
        ds: Day that the stage worked for.
        stage: Its name, as in the contract.
        inputs: Versions of what was read, by table.
        counts: Rows read, written, dropped; days, where a stage names some.
        seconds: Wall time.
        run_id: The labelling run it belongs to.
        bundle: The encoder it used or made.
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
    }
    frame = spark.createDataFrame([tuple(row[name] for name in RUNS.names)], RUNS.ddl)
    write_slice(frame, warehouse.table(RUNS), RUNS, {"ds": ds, "stage": stage}, _without_times(row))


@cache
def code_version() -> str:
    """Version of this package with a hash of its source: what labels depend on, wherever it is installed."""
    packages = Path(__file__).resolve().parents[1]
    source = hashlib.sha256()
    for file in sorted(
        path for name in PACKAGES for path in (packages / name).rglob("*") if path.suffix in (".py", ".json")
    ):
        source.update(file.relative_to(packages).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{metadata.version('nightly-product-labeller')}+{source.hexdigest()[:8]}"


def revision() -> str:
    """The git revision of the checkout that the package runs from; empty if it is none, or git cannot say."""
    checkout = Path(__file__).resolve().parents[1]
    # An installed copy can lie inside somebody else's repository; only a checkout has .git beside the package.
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return ""
    found = subprocess.run(
        ["git", "-C", str(checkout), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def _without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("seconds", "finished_at")}
