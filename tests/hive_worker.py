"""A job of its own process with a Hive metastore: lays tables into it, reads them as inputs, prints what it found.

Usage: ``python -m tests.hive_worker ROOT``, where ROOT/warehouse.toml names the tables. A session has a metastore from its
start on or never, so this cannot run in the session of the other tests.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import check_inputs
from etl.check_inputs import CheckConfig
from etl.config import from_args
from etl.contracts import CATALOGUE, CLICK_LOG, TAXONOMY, VOCABULARY
from etl.errors import InputError
from etl.inputs import read_day, read_input, version_of
from etl.quarantine import with_quarantine
from etl.session import start_session
from etl.sources import Source
from etl.warehouse import Warehouse
from tests.rows import DS, event, small_warehouse

EARLIER = DS - dt.timedelta(days=1)
CLICKS = [event(user_id=f"u{n}", ds=day) for day, count in ((DS, 7), (EARLIER, 6)) for n in range(count)]


def lay_tables(spark: SparkSession, plain: Path, external: Path) -> None:
    """The click log managed and external by ``dt``, the catalogue as Delta, the vocabulary as a view, the tree as ORC."""
    plain.mkdir()
    small_warehouse(spark, plain, click_log=CLICKS)
    clicks, items, terms, tree = (
        spark.read.parquet(str(plain / table.name)) for table in (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY)
    )
    renamed = clicks.withColumnRenamed("user_id", "userId").withColumn("dt", F.date_format("ds", "yyyyMMdd")).drop("ds")
    spark.sql("CREATE DATABASE shop")
    renamed.write.partitionBy("dt").saveAsTable("shop.managed")
    renamed.write.partitionBy("dt").parquet(str(external))
    columns = ", ".join(f"{name} {kind}" for name, kind in renamed.drop("dt").dtypes)
    spark.sql(
        f"CREATE EXTERNAL TABLE shop.clicks ({columns}) PARTITIONED BY (dt string) STORED AS PARQUET LOCATION '{external}'"
    )
    spark.sql("MSCK REPAIR TABLE shop.clicks")
    items.write.format("delta").saveAsTable("shop.items")
    terms.write.saveAsTable("shop.all_words")
    spark.sql("CREATE VIEW shop.words AS SELECT term_id, term AS word, synonyms, language, status FROM shop.all_words")
    spark.sql("CREATE TABLE shop.tree (category_id string, parent_id string, name string) STORED AS ORC")
    tree.write.insertInto("shop.tree")


def message(work: Callable[[], Any]) -> str:
    try:
        return f"no error: {work()}"
    except InputError as error:
        return f"{type(error).__name__}: {error}"


def days(frame: DataFrame) -> dict[str, int]:
    return {str(row["ds"]): row["count"] for row in frame.groupBy("ds").count().collect()}


def damage(spark: SparkSession, warehouse: Warehouse, external: Path, found: dict[str, Any]) -> None:
    """Files of the external table: one that lacks a column, one that is cut, and one whose page is corrupt."""
    file = next((external / f"dt={DS:%Y%m%d}").glob("*.parquet"))
    file.with_name(f".{file.name}.crc").unlink()
    good = file.read_bytes()

    def read(without: frozenset[str] = frozenset()) -> int:
        spark.catalog.refreshTable("shop.clicks")
        return read_day(spark, warehouse, CLICK_LOG, DS, without=without).select("query").distinct().count()

    spark.read.parquet(str(file)).drop("userId").toPandas().to_parquet(file, coerce_timestamps="us")
    found["lacking"] = message(read)
    file.write_bytes(good[: len(good) // 2])
    found["cut"] = message(read)
    content = bytearray(good)
    at = content.find(b"sneakers")
    content[at - 30 : at + 4] = bytes(byte ^ 0xFF for byte in content[at - 30 : at + 4])
    file.write_bytes(content)
    found["corrupt"] = message(lambda: with_quarantine(read, 1))
    file.write_bytes(good)
    spark.catalog.refreshTable("shop.clicks")
    found["file"] = str(file)


def main(root: Path) -> None:
    config = from_args(CheckConfig, argparse.Namespace(config=None, root=str(root), ds=DS))
    spark = start_session("hive", config)
    external = root.parent / "external"
    lay_tables(spark, root.parent / "plain", external)
    warehouse = Warehouse.of(config)
    managed = Warehouse(
        root, {"click_log": Source(table="shop.managed", columns={"user_id": "userId", "ds": "dt"}, day_format="yyyyMMdd")}
    )
    found: dict[str, Any] = {
        "external": days(read_input(spark, warehouse, CLICK_LOG)),
        "managed": days(read_input(spark, managed, CLICK_LOG, days=[DS])),
        "types": read_input(spark, warehouse, CLICK_LOG, days=[DS]).dtypes,
        "figures": check_inputs.run(config),
        "gone": message(lambda: read_input(spark, Warehouse(root, {"click_log": Source(table="shop.gone")}), CLICK_LOG)),
        "no name": message(lambda: read_input(spark, Warehouse(root, {"click_log": Source(table="a b; DROP")}), CLICK_LOG)),
        "versions": {
            table.name: version_of(spark, warehouse, table, [DS]) for table in (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY)
        },
    }
    found["version of the same files"] = version_of(spark, warehouse, CLICK_LOG, [DS])
    damage(spark, warehouse, external, found)
    found["version of another day"] = version_of(spark, warehouse, CLICK_LOG, [EARLIER])
    print(json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
