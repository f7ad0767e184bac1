"""A sample is drawn, judged and taken back: overrides and a figure of quality. Real Spark and Delta."""

from __future__ import annotations

import csv
import datetime as dt
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import DataFrame, SparkSession

from etl.contracts import ANNOTATION_SAMPLE, ITEM_CATEGORIES, ITEM_TERMS, OVERRIDES
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import review
from labeling.annotation_sample import allocation, annotation_sample
from tests.delta_data import NOON, lay, lineage
from tests.labeling_data import NODES, TERMS
from tests.rows import DS

NEXT = DS + dt.timedelta(days=1)


def day_of(spark: SparkSession, ds: dt.date, partitions: int) -> tuple[DataFrame, dict]:
    """300 items: one in three without a term, probabilities all over, two branches of the tree."""
    items = [(ds, f"i{n:03}", f"title {n}") for n in range(300)]
    terms = [
        (i, 1, "t2", "kettle", (n % 100) / 100) if n % 3 else (i, 0, None, None, None) for n, (_, i, _) in enumerate(items)
    ]
    paths = [
        (i, "h1", ["Home", "Kettle"], 0.7, "Home") if n % 10 else (i, None, [], None, None)
        for n, (_, i, _) in enumerate(items)
    ]
    kinds = "item_id string, rank int, term_id string, term string, probability double"
    nodes = "item_id string, category_id string, path array<string>, probability double, level_1 string"
    catalogue = spark.createDataFrame(items, "ds date, item_id string, title string").repartition(partitions)
    return catalogue, {ITEM_TERMS: spark.createDataFrame(terms, kinds), ITEM_CATEGORIES: spark.createDataFrame(paths, nodes)}


def drawn(spark: SparkSession, ds: dt.date = DS, partitions: int = 1) -> list[dict]:
    rows = annotation_sample(*day_of(spark, ds, partitions), 60, 2).collect()
    return sorted((row.asDict() for row in rows), key=lambda row: row["item_id"])


def test_each_stratum_gives_its_share_and_each_row_knows_with_which_probability_it_was_drawn(spark):
    rows = drawn(spark)
    sizes = {row["stratum"]: row["stratum_items"] for row in rows}
    assert sum(sizes.values()) == 300
    assert {"no term | no category", "no term | Home", "0.5 to 0.7 | Home", "0.9 to 1 | no category"} <= sizes.keys()
    assert Counter(row["stratum"] for row in rows) == allocation(sizes, 60, 2)
    assert sum(1 / row["inclusion"] for row in rows) == pytest.approx(300)
    kettle = next(row for row in rows if row["stratum"] == "0.5 to 0.7 | Home")
    assert (kettle["term"], kettle["category_path"]) == ("kettle", "Home > Kettle")
    assert 0.5 <= kettle["term_probability"] < 0.7


def test_a_day_draws_the_same_items_again_and_another_day_others(spark):
    assert drawn(spark, partitions=5) == drawn(spark)
    assert {row["item_id"] for row in drawn(spark, NEXT)} != {row["item_id"] for row in drawn(spark)}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the sample of a day: ten sure items of 1,000, ten doubtful ones of 100, two that abstain of 10."""
    root = tmp_path_factory.mktemp("sampled")
    for name, rows in (("vocabulary", TERMS), ("taxonomy", NODES)):
        (root / name).mkdir()
        pl.DataFrame(rows, schema_overrides={"synonyms": pl.List(pl.String)}).write_parquet(root / name / "part.parquet")
    strata = {"0.9 to 1 | Home": (1_000, 10, 0.95), "0 to 0.5 | Home": (100, 10, 0.4), "no term | Home": (10, 2, None)}
    rows = [
        {"ds": DS, "item_id": f"{stratum[:3]}{n}", "stratum": stratum, "stratum_items": size, "inclusion": count / size}
        | {"title": "Steel", "category_id": "h1", "category_path": "Home > Kettle", "category_probability": 0.7}
        | ({"term_id": "t2", "term": "kettle", "term_probability": stated} if stated else {})
        | lineage()
        for stratum, (size, count, stated) in strata.items()
        for n in range(count)
    ]
    lay(root / "annotation_sample", ANNOTATION_SAMPLE, rows)
    old = {"item_id": "0.90", "what": "term", "value": "t9", "author": "bob", "at": NOON, "until": None}
    lay(root / "overrides", OVERRIDES, [old])
    return root


@pytest.fixture
def shop(sampled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sampled, tmp_path / "warehouse"))


def argv(root: Path, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(DS), *more]


def judge(root: Path, wrong: str = "t3") -> Path:
    """Export the sheet and fill it in: of the doubtful half is wrong, everything else is right."""
    sheet = root / "sheet.csv"
    assert review.main(argv(root, "--export", str(sheet))) == EXIT_OK
    with sheet.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row |= {"author": "ann", "at": "2024-05-09", "term_right": "yes", "category_right": "yes"}
        if row["item_id"].startswith("0 t") and row["item_id"] < "0 t5":
            row |= {"term_right": "no", "right_term": wrong}
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return sheet


def overrides(root: Path) -> set[tuple[str, ...]]:
    return set(pl.read_delta(str(root / "overrides")).select("item_id", "what", "value", "author").iter_rows())


def test_corrections_become_overrides_once_and_those_that_are_there_stay(spark, shop):
    sheet = judge(shop)
    assert review.main(argv(shop, "--file", str(sheet))) == EXIT_OK
    expected = {(f"0 t{n}", "term", "t3", "ann") for n in range(5)} | {("0.90", "term", "t9", "bob")}
    assert overrides(shop) == expected
    assert review.main(argv(shop, "--file", str(sheet))) == EXIT_OK
    assert overrides(shop) == expected
    assert len(pl.read_delta(str(shop / "overrides"))) == len(expected)

    # Of 1,100 items with a term 1,000 are right and half of 100: a share that no plain mean of 15 in 20 would give.
    found = {row["check"]: row for row in pl.read_delta(str(shop / "quality")).to_dicts()}
    assert found["review.term_right"]["value"] == pytest.approx(1_050 / 1_100, abs=1e-6)
    assert found["review.term_right.low"]["value"] < 1_050 / 1_100 < found["review.term_right.high"]["value"] < 1
    assert found["review.category_right"]["value"] == 1.0
    assert {row["run_id"] for row in found.values()} == {f"{DS}-r1.review"}


def test_a_sheet_with_one_bad_line_writes_nothing(spark, shop, capsys):
    sheet = judge(shop, wrong="no-such-term")
    assert review.main(argv(shop, "--file", str(sheet))) == EXIT_BAD_INPUT
    assert "right_term 'no-such-term' is no id of an active term" in capsys.readouterr().err
    assert overrides(shop) == {("0.90", "term", "t9", "bob")}
    assert not (shop / "quality").exists()


def test_overrides_that_the_shop_keeps_in_its_own_way_are_not_written_to(spark, shop, capsys):
    shutil.rmtree(shop / "overrides")
    (shop / "overrides").mkdir()
    rows = pl.DataFrame({"item_id": ["i1"], "what": ["term"], "value": ["t1"], "author": ["bob"], "at": [NOON]})
    rows.write_parquet(shop / "overrides" / "part.parquet")
    assert review.main(argv(shop, "--file", str(judge(shop)))) == EXIT_BAD_INPUT
    assert "are no Delta table with our own columns" in capsys.readouterr().err
    assert not (shop / "quality").exists()


@pytest.mark.parametrize("flags", [[], ["--file", "a.csv", "--export", "b.csv"]])
def test_either_a_sheet_is_written_or_judged_ones_are_read(shop, capsys, flags: list[str]):
    assert review.main(argv(shop, *flags)) == EXIT_BAD_INPUT
    assert "give either --file with judged samples, or --export" in capsys.readouterr().err
