from __future__ import annotations

import polars as pl
import pytest

from benchmarks.speed.delta_writes import (
    DELTA_RS,
    DYNAMIC,
    EVERY_ROW,
    OURS,
    PARQUET,
    POLARS,
    Writer,
    compare,
    lineage,
    live_rows,
    run,
)
from etl.warehouse import Warehouse
from labeling.live_labels import merge
from tests.rows import DS


def writer(path, frame):
    return Writer(path, lambda: frame.write_delta(str(path), mode="overwrite"))


@pytest.mark.slow
def test_all_sides_write_the_same_day_and_make_the_same_labels_live(spark, tmp_path):
    found = run(spark, tmp_path, rows=60, live=400, turns=1)
    assert [one.peer for one in found] == [PARQUET, DYNAMIC, DELTA_RS, POLARS, EVERY_ROW, DELTA_RS]
    assert [one.goal for one in found] == [0.5, 0.9, None, None, None, None]
    assert [one.check.split(" ")[0] for one in found] == ["60"] * 4 + ["400"] * 2
    assert all(one.ours and one.theirs for one in found)


@pytest.mark.slow
def test_a_night_changes_three_percent_of_the_live_rows(spark, root):
    first, second = (live_rows(spark, night, 400) for night in (0, 1))
    warehouse = Warehouse.at(str(root))
    merge(first, spark, warehouse, lineage(DS))
    assert merge(second, spark, warehouse, lineage(DS)) == {"inserted": 2, "updated": 8, "deleted": 2}


@pytest.mark.parametrize(
    "others", [lambda rows: rows.with_columns(score=pl.col("score") + 1), lambda rows: rows.head(2)], ids=["changed", "lost"]
)
def test_a_side_whose_table_holds_other_rows_ends_the_measurement(tmp_path, others):
    rows = pl.DataFrame({"item_id": ["a", "b", "c"], "score": [1.0, 2.0, 3.0]})
    writers = {OURS: writer(tmp_path / "ours", rows), DYNAMIC: writer(tmp_path / "theirs", others(rows))}
    with pytest.raises(RuntimeError, match=r"Spark, dynamic overwrite: .* not those that were sent"):
        compare("a case", writers, rows, ["item_id"], 1, {})
