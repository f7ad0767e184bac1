"""A catalogue that was labelled night after night has the labels of one that is labelled for the first time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl.contracts import CATALOGUE, TAXONOMY, VOCABULARY
from etl.errors import EXIT_OK
from labeling import embed_catalogue, predict
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down

pytestmark = pytest.mark.slow

DAYS = [DS + dt.timedelta(days=n) for n in range(3)]
WORDS = ("kettle", "dress", "table lamp", "running shoes", "连衣裙")


def titles(day: int) -> dict[str, str]:
    """60 items, of which a third changes every day, and some come and go."""
    kept = {f"i{n:02}": f"{WORDS[n % 5]} {n * 37 % 101 + (day if n % 3 == 0 else 0)} cm" for n in range(60)}
    return {name: title for name, title in kept.items() if (int(name[1:]) + day) % 7}


def labelled(spark: SparkSession, root: Path, days: list[int], *settings: str) -> dict[str, list[tuple]]:
    """Label these days one after the other; returns the staged rows of the last, but for what differs by design."""
    root.mkdir()
    lay_down(spark, root, CATALOGUE, [item(i, t, ds=DAYS[n]) for n in days for i, t in titles(n).items()])
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    write_small_bundle(root)
    for day in days:
        write_pairs(spark, root, [pair("kettle", "i00", "kettle 0 cm", ds=DAYS[day])])
        argv = ["--root", str(root), "--ds", str(DAYS[day])]
        assert embed_catalogue.main([*argv, *settings]) == EXIT_OK
        assert predict.main([*argv, *settings]) == EXIT_OK
    found = {}
    for table in ("item_terms", "item_categories"):
        rows = pl.read_delta(str(root / "staging" / table)).filter(pl.col("ds") == DAYS[days[-1]])
        found[table] = sorted(map(repr, rows.drop("run_id", "inputs").to_dicts()))
    return found


def test_after_two_earlier_nights_the_third_has_the_rows_of_a_first_one_at_any_partitioning(spark, tmp_path):
    history = labelled(spark, tmp_path / "history", [0, 1, 2])
    assert len(history["item_categories"]) == len(titles(2))
    for partitions in ("1", "7", "64"):
        assert labelled(spark, tmp_path / f"alone-{partitions}", [2], "--partitions", partitions) == history
