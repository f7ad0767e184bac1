"""Parquet files with a flipped bit, cut short or gone: Spark names the file, and gives no other rows."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import CLICK_LOG, RUNS
from etl.errors import UnreadableFiles
from etl.inputs import read_input
from etl.quarantine import naming_bad_files, with_quarantine
from etl.warehouse import Warehouse
from tests.rows import DS, event, small_warehouse

FLIPS = 25
"""Without checksums four of five give other rows and no error."""


def page_bytes(file: Path) -> list[int]:
    """Where the pages of a file lie, headers and dictionaries with them."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [min(filter(None, (c.dictionary_page_offset, c.data_page_offset))) for c in columns]
    return [
        place for start, c in zip(starts, columns, strict=True) for place in range(start, start + c.total_compressed_size)
    ]


def flip(file: Path, at: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)


def without_hadoop_s_checksums(place: Path) -> None:
    """On a store and after a copy there are none; with them Hadoop finds the damage before Parquet does."""
    for checksum in place.rglob(".*.crc"):
        checksum.unlink()


@pytest.fixture(scope="module")
def written(spark, tmp_path_factory) -> Path:
    """RUNS of one file with forty rows."""
    path = tmp_path_factory.mktemp("written") / "runs"
    rows = [(DS, f"stage {n}", f"r{n}", "b", "c", "{}", "{}", n / 7, dt.datetime(2024, 6, 1), None) for n in range(40)]
    tables.write_slice(spark.createDataFrame(rows, RUNS.ddl).coalesce(1), str(path), RUNS, {"ds": DS})
    without_hadoop_s_checksums(path)
    return path


@pytest.fixture
def table(written, root) -> Path:
    return Path(shutil.copytree(written, root / "runs"))


def part(table: Path) -> Path:
    return next(table.rglob("part-*.parquet"))


def rows_of(spark, table: Path):
    return tables.read(spark, str(table), RUNS).orderBy("stage").toArrow()


@pytest.mark.fault("parquet-damaged")
def test_each_flipped_bit_in_a_page_of_a_table_of_ours_names_the_file(spark, table):
    file = part(table)
    whole, pages, chance = rows_of(spark, table), page_bytes(file), random.Random(7)
    for _ in range(FLIPS):
        at, bit = chance.choice(pages), chance.randrange(8)
        flip(file, at, bit)
        with pytest.raises(UnreadableFiles, match=file.name), naming_bad_files():
            rows_of(spark, table)
        flip(file, at, bit)
    assert rows_of(spark, table) == whole


@pytest.mark.fault("parquet-damaged")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.unlink(), id="gone"),
        pytest.param(lambda file: file.write_bytes(b""), id="of no bytes"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-1]), id="a byte short"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]), id="cut to its half"),
    ],
)
def test_a_part_of_a_table_of_ours_that_is_cut_or_gone_is_named(damage, spark, table):
    file = part(table)
    damage(file)
    with pytest.raises(UnreadableFiles, match=file.name), naming_bad_files():
        rows_of(spark, table)


@pytest.mark.fault("parquet-damaged")
def test_an_input_s_file_with_a_flipped_bit_is_left_out_where_that_is_allowed(spark, root):
    small_warehouse(spark, root)
    day = root / "click_log" / f"ds={DS}"
    shutil.rmtree(day)
    rows = [event(f"query {n}", session_id=f"{n * 2654435761:x}", ds=DS) for n in range(200)]
    frame = spark.createDataFrame([tuple(row[name] for name in CLICK_LOG.names) for row in rows], CLICK_LOG.ddl)
    frame.drop("ds").repartition(2).write.parquet(str(day))
    without_hadoop_s_checksums(day)
    file = sorted(day.glob("*.parquet"))[0]
    group = pq.ParquetFile(file).metadata.row_group(0)
    sessions = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "session_id")
    flip(file, sessions.data_page_offset + sessions.total_compressed_size - 3, 0)  # in the letters of a value

    def work(without: frozenset[str]) -> int:
        frame = read_input(spark, Warehouse.at(str(root)), CLICK_LOG, days=[DS], without=without)
        return frame.select(F.xxhash64("session_id")).toArrow().num_rows

    assert with_quarantine(work, 1) == (100, frozenset([str(file)]))
