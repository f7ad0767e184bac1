from __future__ import annotations

import pytest

from labeling.category_mismatch import compared, mismatches, parting, seller_names
from tests.labeling_data import taxonomy
from tests.rows import node


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [("hab", "hab", None), ("hab", "ha", None), ("h", "hab", None), ("hab", "hcb", 2), ("hab", "x", 1), ("", "h", None)],
)
def test_two_paths_part_on_the_first_level_that_differs_and_a_beginning_contradicts_nothing(ours, theirs, expected):
    assert parting(list(ours), list(theirs)) == expected


def test_a_seller_may_give_an_id_a_path_or_a_name_that_no_other_node_has():
    tree = taxonomy([node("1", None, "Home"), node("2", "1", "Lamps"), node("3", None, "Garden"), node("4", "3", "Lamps")])
    names = seller_names(tree)
    assert [names.get(text) for text in ("4", "home", "garden > lamps", "lamps")] == ["4", "1", "4", None]


def test_a_value_that_is_an_id_means_that_node_even_where_another_has_it_for_a_name():
    names = seller_names(taxonomy([node("a", None, "B"), node("b", None, "C")]))
    assert (names["b"], names["c"]) == ("b", "b")


def rows(spark, given: dict[str, str | None], probabilities: list[float]):
    catalogue = spark.createDataFrame(
        [(item, f"title of {item}", value) for item, value in given.items()],
        "item_id string, title string, seller_category string",
    )
    ours = [(item, "h21", ["h", "h2", "h21"], ["Home", "Lamps", "Table lamp"], probabilities) for item in given]
    ours.append(("i99", None, [], [], []))
    categories = spark.createDataFrame(
        ours, "item_id string, category_id string, path_ids array<string>, path array<string>, probabilities array<double>"
    )
    return compared(catalogue, categories, taxonomy())


def test_only_contradictions_that_are_probable_enough_on_the_level_where_paths_part_are_mismatches(spark):
    given = {"i1": "h22", "i2": "Fashion > Dress", "i3": "h2", "i4": None, "i5": "no such", "i6": "KETTLE"}
    found = rows(spark, given, [0.99, 0.95, 0.5])
    assert {row["item_id"] for row in found.where("seller_category_id IS NULL").collect()} == {"i5"}
    kept = {row["item_id"]: row for row in mismatches(found, 0.9).collect()}
    assert {item: (row["level"], row["probability"]) for item, row in kept.items()} == {"i2": (1, 0.99), "i6": (2, 0.95)}
    assert (kept["i2"]["seller_category_id"], kept["i2"]["seller_path"]) == ("f2", "Fashion > Dress")
    assert kept["i2"]["category_path"] == "Home > Lamps > Table lamp"
    assert "i1" in {row["item_id"] for row in mismatches(found, 0.5).collect()}
