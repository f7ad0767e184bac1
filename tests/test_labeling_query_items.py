from __future__ import annotations

from typing import Any

import pytest

from etl.contracts import PAIRS
from labeling.query_items import head_queries, query_items
from tests.labeling_data import index_titles, pair, write_small_bundle

TITLES = {"i1": "steel kettle", "i2": "red dress", "i3": "kettle for camping", "i4": "table lamp", "i5": "wool dress"}


def pairs(spark, *rows: dict[str, Any]):
    return spark.createDataFrame([tuple(row[name] for name in PAIRS.names) for row in rows], PAIRS.ddl)


def clicked(query: str, clicks: int, item: str = "i1") -> dict[str, Any]:
    return pair(query, item, TITLES[item]) | {"clicks": clicks}


@pytest.mark.parametrize(
    ("share", "most", "expected"),
    [
        (0.4, 9, ["kettle"]),  # 10 of 20 clicks are two fifths and more
        (0.5, 9, ["kettle"]),
        (0.6, 9, ["kettle", "dress", "lamp"]),  # of equally many clicks: both or neither
        (1.0, 9, ["kettle", "dress", "lamp", "mat"]),
        (1.0, 2, ["kettle", "dress"]),
    ],
)
def test_the_head_is_the_most_clicked_queries_up_to_a_share_of_all_clicks(spark, share, most, expected):
    rows = [clicked("kettle", 6), clicked("kettle", 4, "i3"), clicked("lamp", 4, "i4"), clicked("dress", 4, "i2")]
    rows.append(clicked("mat", 2, "i5"))
    found = head_queries(pairs(spark, *rows), share, most).collect()
    assert {row["query"] for row in found} == set(expected)
    assert max(row["clicks"] for row in found) == 10


def lists(spark, root, *queries: str, partitions: int = 2, poison: str | None = None) -> list[tuple]:
    bundle = write_small_bundle(root, poison=poison)
    index = index_titles(spark, root, bundle, TITLES)
    log = pairs(spark, *(clicked(query, 3) for query in queries))
    found = query_items(head_queries(log, 1.0, 99), log, index, bundle, 2, partitions)
    return sorted(tuple(row) for row in found.select("query", "rank", "item_id", "clicks", "score").collect())


def test_each_head_query_gets_its_nearest_items_and_how_often_each_was_clicked_for_it(spark, root):
    found = lists(spark, root, "kettle", "dress")
    assert [row[:2] for row in found] == [("dress", 1), ("dress", 2), ("kettle", 1), ("kettle", 2)]
    assert {row[2] for row in found[:2]} == {"i2", "i5"}
    assert {row[2]: row[3] for row in found[2:]} == {"i1": 3, "i3": 0}
    assert found[2][4] >= found[3][4] > 0.3


def test_recall_lists_are_the_same_at_any_partitioning(spark, root):
    queries = [f"{noun} {n}" for n in range(30) for noun in ("kettle", "lamp")]
    found = lists(spark, root, *queries, partitions=1)
    assert found == lists(spark, root, *queries, partitions=7)
    assert len(found) == 120


def test_a_query_that_the_encoder_fails_on_gets_no_list_and_spoils_no_other(spark, root):
    assert {row[0] for row in lists(spark, root, "kettle", "poison", poison="poison")} == {"kettle"}
