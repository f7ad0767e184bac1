"""E-mail addresses and telephone numbers in titles, and all the numbers of products that are neither."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl.build_pairs import run
from etl.catalogue import read_catalogue
from etl.config import WarehouseConfig, arg_parser, from_args
from etl.contracts import CATALOGUE
from etl.masking import MASK, masked, masked_column
from etl.pairs_config import PairsConfig
from etl.product_template import ProductTemplate
from etl.text import normalise, words
from etl.warehouse import Warehouse
from labeling import embed_catalogue, local_tables
from tests.labeling_data import write_small_bundle
from tests.planted import cells, texts
from tests.rows import DS, event, item, small_warehouse

pytestmark = pytest.mark.fault("personal-data")

PERSONAL = {
    "Steel kettle, ask zoe.geheim@mail.example.org": f"Steel kettle, ask {MASK}",
    "kettle zoe (at) example.org": f"kettle {MASK}",
    "新款水壶zoe99＠qq.com包邮": f"新款水壶{MASK}包邮",
    "Kettle +49 30 901820": f"Kettle {MASK}",
    "Kettle, Call now: 555 0123 99": f"Kettle, {MASK}",
    "Kettle whatsapp 98765 43210": f"Kettle {MASK}",
    "Kettle (212) 555-0142 new": f"Kettle {MASK} new",
    "Kettle 212-555-0142": f"Kettle {MASK}",
    "江浙沪洒水车出租13817979586绿化树苗洒水": f"江浙沪洒水车出租{MASK}绿化树苗洒水",
    "水壶 139 8765 4321": f"水壶 {MASK}",
    "烘干刨光杉木床板条,,电话021-54143212": f"烘干刨光杉木床板条,,{MASK}",
    "Wasserkocher 0171 2345678": f"Wasserkocher {MASK}",
    "Bouilloire 06 12 34 56 78": f"Bouilloire {MASK}",
    "Chaleira (11) 98765-4321": f"Chaleira {MASK}",
}

PRODUCTS = (
    "Air Zoom 39 black",
    "Steel kettle 1.7 l 4006381333931",
    "Filter 5901234123457 for V150, 12 x 500 ml",
    "ABC-13800138000 pump",
    "Bolt M8 x 40 13.800.138.000",
    "Bulbs 2700K 800lm 60-40-25 W (4-Pack)",
    "iPhone 14 128 256 512 GB",
    "Phone case for Galaxy S21 2021 5G",
    "Mobile 4G 10000 mAh",
    "Call of Duty 4 Modern Warfare 2007",
    "Belt 19/64 in. x 7-1/4 in. x 2500 RPM",
    "LEGO 10295 Porsche 911 1458 pieces",
    "T-shirt @home 2@ 4.99",
    "100+ 200 300 beads",
    "ISBN 978-3-16-148410-0",
    "大韩泡泡糖 72164-50029(ol) 2016冬",
    "连衣裙 2016 1700 码 20160901",
    None,
    "",
)


@pytest.mark.parametrize("title", PERSONAL)
def test_what_reaches_a_person_is_masked_and_nothing_else(title: str) -> None:
    assert masked(title) == PERSONAL[title]
    assert masked(masked(title)) == masked(title)


@pytest.mark.parametrize("title", filter(None, PRODUCTS))
def test_a_products_own_numbers_stay(title: str) -> None:
    assert masked(title) == title


def test_the_mask_is_no_word() -> None:
    assert words(normalise(MASK)) == []


def test_the_time_that_a_title_takes_grows_with_its_length_alone() -> None:
    for title in ("1" * 200_000, "a" * 200_000 + "@", "1 2" * 60_000, "tel " * 50_000 + "1234567", "a.b@" * 50_000):
        assert len(masked(title)) > 1000


def test_spark_masks_as_python_does(spark: SparkSession) -> None:
    titles = [*PERSONAL, *PRODUCTS]
    frame = spark.createDataFrame([(title,) for title in titles], "title string")
    found = frame.select("title", masked_column(F.col("title"))).collect()
    assert dict(map(tuple, found)) == {t: None if t is None else masked(t) for t in titles}


TITLES = ["Steel kettle zoe.geheim@mail.example.org", "Red dress, call 139 8765 4321", "Air Zoom 39 black"]
TRACES = ("zoe.geheim", "mail.example.org", "139 8765 4321", "hush-hush-0123")


def shop(spark: SparkSession, root: Path) -> None:
    catalogue = [item(f"i{n}", title) for n, title in enumerate(TITLES)]
    acts = [event("boil water", f"i{n % 2}", user_id=f"u{n}", session_id=f"s{n}") for n in range(24)]
    small_warehouse(spark, root, catalogue=catalogue, click_log=acts)


@pytest.mark.slow
def test_no_table_run_or_log_has_a_trace_of_a_title_that_was_masked_or_of_a_secret(
    spark: SparkSession, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_PASSWORD", "hush-hush-0123")
    shop(spark, root)
    write_small_bundle(root)
    with caplog.at_level("INFO"):
        figures = run(PairsConfig(root=str(root), ds=DS, spark_conf={"spark.sql.shuffle.partitions": "2"}))
        assert embed_catalogue.main(["--root", str(root), "--ds", str(DS)]) == 0
    assert figures["masked_titles"] == 2
    outputs = [text for file, text in texts(root) if file.relative_to(root).parts[0] != CATALOGUE.name]
    assert len(outputs) > 20
    assert [trace for trace in TRACES for text in outputs if trace in text] == []
    assert not [trace for trace in TRACES if trace in caplog.text]
    titles = {cell for file in (root / "pairs").rglob("*.parquet") for cell in cells(file) if isinstance(cell, str)}
    assert {f"Steel kettle {MASK}", f"Red dress, {MASK}"} <= titles


def test_jobs_with_and_without_spark_read_the_same_titles_and_texts_masked_unless_the_shop_says_otherwise(
    spark: SparkSession, root: Path
) -> None:
    shop(spark, root)
    for more, expected in (("", [masked(title) for title in TITLES]), ("mask = false", TITLES)):
        (root / "warehouse.toml").write_text(f"[warehouse.inputs.catalogue]\n{more}\n")
        args = arg_parser(WarehouseConfig, "x", "").parse_args(["--root", str(root)])
        warehouse = Warehouse.of(from_args(WarehouseConfig, args))
        rows = read_catalogue(spark, warehouse, DS, "{title} of {language}").orderBy("item_id").collect()
        assert [row["title"] for row in rows] == expected
        assert [row["text"] for row in rows] == [f"{title} of en" for title in expected]
        assert [row["masked"] for row in rows] == [title not in expected for title in TITLES]
        local = local_tables.catalogue_texts(warehouse, DS, ProductTemplate("{title} of {language}"))
        assert local == {row["item_id"]: row["text"] for row in rows}
        assert sorted(local_tables.read(warehouse, CATALOGUE, DS)["title"]) == sorted(expected)


def test_masking_is_a_setting_of_the_catalogue_alone() -> None:
    with pytest.raises(ValueError, match="mask is given for click_log"):
        WarehouseConfig(root="/x", inputs={"click_log": {"mask": False}})


def test_planted_texts_are_found_in_nested_cells_and_in_checkpoints_of_delta(tmp_path: Path) -> None:
    table = tmp_path / "table"
    rows = pl.DataFrame({"id": ["first-needle"], "terms": [[{"query": "second-needle", "n": 1}]]})
    rows.write_delta(str(table))
    DeltaTable(str(table)).create_checkpoint()
    first = {file.name for file, text in texts(tmp_path) if "first-needle" in text}
    second = {file.name for file, text in texts(tmp_path) if "second-needle" in text}
    assert any(name.endswith(".checkpoint.parquet") for name in first)
    assert any(name.endswith(".json") for name in first)
    assert [name.startswith("part-") for name in second] == [True]
