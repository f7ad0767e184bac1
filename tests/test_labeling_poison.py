"""Titles that the encoder fails on, by the job: one costs itself alone, a twentieth is let through, more ends the run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl.contracts import CATALOGUE, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import embed_catalogue
from labeling.product_text import NOT_ENCODABLE
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down
from tests.small_night import argv, live, night

pytestmark = pytest.mark.fault("poison")

ITEMS = 200
KINDS = ("Steel kettle", "Red dress", "Running shoes", "Table lamp", "Floor lamp")


def lay_down_titles(spark: SparkSession, root: Path, poisonous: int) -> None:
    """ITEMS titles, all different, on so many of which the encoder of the champion fails."""
    names = [f"{KINDS[n % len(KINDS)]} no {n}" for n in range(ITEMS)]
    titles = [f"poisonous {name}" if n < poisonous else name for n, name in enumerate(names)]
    lay_down(spark, root, CATALOGUE, [item(f"i{n:03d}", title) for n, title in enumerate(titles)])
    write_small_bundle(root, poison="poisonous")


def stored(root: Path) -> dict[str | None, int]:
    """Reason -> texts of the table of vectors, None for those with one."""
    frame = pl.read_delta(str(root / "item_embeddings"))
    assert frame.filter(pl.col("vector").is_null() != pl.col("reason").is_not_null()).is_empty()
    return dict(frame.group_by("reason").len().iter_rows())


def test_one_poisonous_title_costs_its_own_vector_only(spark: SparkSession, root: Path) -> None:
    lay_down_titles(spark, root, poisonous=1)
    assert embed_catalogue.main(argv(root, DS, "--min-poison-items", "0")) == EXIT_OK
    assert stored(root) == {None: ITEMS - 1, NOT_ENCODABLE: 1}


def test_a_fifth_of_poisonous_titles_ends_the_run_with_a_sample_and_stores_nothing(
    spark: SparkSession, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_down_titles(spark, root, poisonous=40)
    assert embed_catalogue.main(argv(root, DS, "--min-poison-items", "0")) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert f"40 of {ITEMS} items cannot be encoded ({{'{NOT_ENCODABLE}': 40}}; expected at most 5.0%" in said
    assert f"- item_id 'i000': {NOT_ENCODABLE}, title 'poisonous Steel kettle no 0'" in said
    assert said.count("- item_id") == 5
    assert stored(root) == {}


@pytest.mark.slow
def test_a_fiftieth_of_poisonous_titles_is_published_with_its_reason(spark: SparkSession, root: Path) -> None:
    lay_down_titles(spark, root, poisonous=4)
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    write_pairs(spark, root, [pair("boil water", "i005", "Steel kettle no 5")])
    assert night(root) == [EXIT_OK] * 4
    assert stored(root) == {None: ITEMS - 4, NOT_ENCODABLE: 4}
    rows = live(root)
    assert len(rows) == ITEMS
    assert {item_id for item_id, row in rows.items() if row["term_reason"] == NOT_ENCODABLE} == {
        f"i{n:03d}" for n in range(4)
    }
