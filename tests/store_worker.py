"""Run stages of a night one after the other in one process, as `labeller STAGE` would; called by the tests of stores.

Writes exit codes, and what Spark then finds in each output table, as JSON to the file that is named last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from etl.contracts import OUTPUTS
from etl.warehouse import Warehouse, is_delta
from labeling import cli


def main(root: str, ds: str, stages: list[str], result: Path) -> None:
    codes: dict[str, int] = {}
    for stage in stages:
        name, *more = stage.split()
        codes[name] = cli.main([name, "--root", root, "--ds", ds, *more])
        if codes[name]:
            break
    spark, warehouse = SparkSession.active(), Warehouse.at(root)
    found = {table.name: warehouse.table(table) for table in OUTPUTS}
    rows = {name: spark.read.format("delta").load(path).count() for name, path in found.items() if is_delta(path)}
    result.write_text(json.dumps({"codes": codes, "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3].split(","), Path(sys.argv[4]))
