"""Pairs of which one key has nine tenths, on executors of 512 MB: prints their peak, and how many keys came out."""

from __future__ import annotations

import sys
import threading

import psutil

from etl.config import SparkConfig
from etl.session import start_session
from labeling.copy_keywords import clicked_phrases
from labeling.predict import evidence
from labeling.term_candidates import supported_queries
from tests.test_labeling_hot_keys import hot_item, hot_query

PAIRS = 3_000_000


class Peak(threading.Thread):
    """The largest resident memory of any executor below this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                try:
                    if any("CoarseGrainedExecutorBackend" in part for part in child.cmdline()):
                        self.bytes = max(self.bytes, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def main() -> None:
    conf = {"spark.executor.memory": "512m", "spark.sql.shuffle.partitions": "4", "spark.local.dir": sys.argv[1]}
    config = SparkConfig(root=sys.argv[1], master="local-cluster[2,1,512]", driver_memory="1g", spark_conf=conf)
    spark = start_session("hot keys", config)
    peak = Peak()
    peak.start()
    items = evidence(hot_item(spark, PAIRS), 3).count()
    assert clicked_phrases(hot_item(spark, PAIRS), 2).count() == items
    live = spark.createDataFrame([], "item_id string, terms array<struct<term_id: string>>")
    found = supported_queries(hot_query(spark, PAIRS), live, min_clicks=1, min_users=1, min_items=1)
    queries = len(found.select("query_group", "clicked").collect())
    peak.over.set()
    peak.join()
    assert peak.bytes, "no executor was seen"
    print(peak.bytes, items, queries)
    spark.stop()


if __name__ == "__main__":
    main()
