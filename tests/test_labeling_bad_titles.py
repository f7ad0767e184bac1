"""Whatever stands in a title, its item has one outcome: labels, or none with a reason that is counted."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from etl.contracts import CATALOGUE, TAXONOMY, VOCABULARY
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import embed_catalogue, predict
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
from tests.rows import DS, item, lay_down

TITLES: dict[str, bytes | None] = {
    "null": None,
    "empty": b"",
    "blank": " \t\u00a0\u200b".encode(),
    "emoji": "👟🔥".encode(),
    "megabyte": b"shoe " * 200_000,
    "right to left": "حذاء رياضي kettle".encode(),
    "with NUL": b"steel\x00kettle",
    "lone surrogate": b"\xed\xa0\x80 kettle",
    "half a character": b"kettle \xe8\xbf",
    "marks": ("k" + "\u0301" * 500 + "ettle").encode(),
    "number": b"4711",
}
NONE = {"null": "no_text", "empty": "no_text", "blank": "no_text", "emoji": "no_text", "megabyte": "too_long"}


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad") / "warehouse"
    root.mkdir()
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    write_pairs(spark, root, [pair("kettle", "number", "4711")])
    day = root / CATALOGUE.name / f"ds={DS}"
    day.mkdir(parents=True)
    # As other writers lay them down: Spark and pyarrow would refuse to make some of these strings.
    titles = pa.array(TITLES.values(), pa.binary()).view(pa.string())
    updated = pa.array([dt.datetime(2024, 5, 1)] * len(TITLES), pa.timestamp("us"))
    pq.write_table(pa.table({"item_id": list(TITLES), "title": titles, "updated_at": updated}), day / "part.parquet")
    write_small_bundle(root)
    return root


def argv(root: Path) -> list[str]:
    return ["--root", str(root), "--ds", str(DS)]


@pytest.mark.fault("poison")
def test_every_item_has_one_outcome_and_each_is_counted(shop):
    assert [job.main(argv(shop)) for job in (embed_catalogue, predict)] == [EXIT_OK, EXIT_OK]
    rows = pl.read_delta(str(shop / "staging" / "item_terms")).filter(pl.col("rank") <= 1).to_dicts()
    assert sorted(row["item_id"] for row in rows) == sorted(TITLES)
    reasons = {row["item_id"]: row["reason"] for row in rows}
    assert {name: reasons[name] for name in NONE} == NONE
    assert reasons["number"] == "too_short"
    assert [reasons[name] for name in ("right to left", "with NUL", "lone surrogate", "half a character")] == [None] * 4
    counts = json.loads(pl.read_delta(str(shop / "runs")).filter(pl.col("stage") == "predict")["counts"][0])
    assert sum(value for name, value in counts.items() if name.startswith("terms_")) == len(TITLES)


def test_an_item_that_is_listed_twice_stops_the_labelling_with_its_id(spark, shop, tmp_path, capsys):
    root = tmp_path / "twice"
    root.mkdir()
    for table in ("vocabulary", "taxonomy", "bundles", "pairs"):
        shutil.copytree(shop / table, root / table)
    lay_down(spark, root, CATALOGUE, [item("i1", "kettle"), item("i1", "dress"), item("i2", "lamp")])
    assert embed_catalogue.main(argv(root)) == EXIT_BAD_INPUT
    assert "item_id holds 'i1' 2 times" in capsys.readouterr().err
