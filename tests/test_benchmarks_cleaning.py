from __future__ import annotations

import pytest

from benchmarks.speed import cleaning_duckdb
from benchmarks.speed.cleaning import CleaningConfig, pairs_config, spark_clean
from benchmarks.speed.click_log import LogShape, write_log


@pytest.mark.slow
def test_spark_and_duckdb_clean_one_log_to_the_same_pairs(spark, tmp_path):
    config = CleaningConfig(root=str(tmp_path), clicks=20_000)
    log, pairs = write_log(tmp_path, LogShape(clicks=config.clicks), config.ds), pairs_config(config)
    ours, theirs = spark_clean(spark, log, pairs), cleaning_duckdb.clean(log, pairs, threads=1)
    assert {name: ours[name] for name in ("pairs", "clicks", "users")} == {
        n: theirs[n] for n in ("pairs", "clicks", "users")
    }
    assert {rule: n for rule, n in ours["rules"].items() if n} == theirs["rules"]
    assert set(theirs["rules"]) == {"short_dwell", "repeat_in_session", "few_users"}
