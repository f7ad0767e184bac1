"""Inputs that are tables of a Hive metastore, in a process of its own with a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rows import DS

SETTINGS = """
[warehouse.inputs.click_log]
table = "shop.clicks"
columns = { user_id = "userId", ds = "dt" }
day_format = "yyyyMMdd"

[warehouse.inputs.catalogue]
table = "shop.items"

[warehouse.inputs.vocabulary]
table = "shop.words"
columns = { term = "word" }

[warehouse.inputs.taxonomy]
table = "shop.tree"

[spark]
master = "local[2]"
driver_memory = "1g"

[spark.spark_conf]
"spark.sql.shuffle.partitions" = "2"
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("hive")
    (base / "root").mkdir()
    places = {
        "spark.sql.warehouse.dir": f"{base}/managed",
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={base}/metastore;create=true",
        "spark.local.dir": str(base),
    }
    lines = "".join(f'"{key}" = "{value}"\n' for key, value in places.items())
    (base / "root" / "warehouse.toml").write_text(SETTINGS + lines)
    checkout = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.hive_worker", str(base / "root")],
        cwd=base, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_managed_and_external_tables_are_read_by_day_under_our_names_and_types(found):
    assert found["external"] == {"2024-05-07": 7, "2024-05-06": 6}
    assert found["managed"] == {str(DS): 7}
    assert found["types"][:3] == [["ds", "date"], ["event_time", "timestamp"], ["user_id", "string"]]


def test_check_covers_a_warehouse_that_is_all_in_the_metastore(found):
    figures = found["figures"]
    assert (figures["events"], figures["items"], figures["terms"], figures["categories"]) == (7, 2, 2, 3)


def test_a_table_that_is_not_there_is_refused_with_the_cure(found):
    assert "input table click_log: shop.gone cannot be read from Spark's catalogue" in found["gone"]
    assert "spark.hadoop.hive.metastore.uris" in found["gone"]
    assert found["no name"].startswith("InputError: input table click_log: a b; DROP cannot be read")


def test_versions_are_of_delta_or_of_the_files_of_the_days(found):
    kinds = {name: version.partition(":")[0] for name, version in found["versions"].items()}
    assert kinds == {"click_log": "hive", "catalogue": "delta", "vocabulary": "hive", "taxonomy": "hive"}
    assert found["version of the same files"] == found["versions"]["click_log"]
    assert found["version of another day"] != found["versions"]["click_log"]


def test_a_file_of_a_partition_that_lacks_a_column_is_refused_by_name(found):
    assert found["lacking"].startswith("InputError: input table click_log at shop.clicks does not fit")
    assert f"{found['file']}: column user_id (theirs: userId) is missing" in found["lacking"]


def test_a_cut_file_and_a_corrupt_page_are_named_and_never_left_out(found):
    assert found["cut"].startswith("UnreadableFiles")
    assert f"{found['file']}: " in found["cut"]
    assert "only files of a plain Parquet directory can be left out" in found["corrupt"]
    assert found["file"] in found["corrupt"]
