"""Files that really are damaged: named, counted, left out where that is allowed, and never in silence."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import check_inputs
from etl.contracts import CLICK_LOG
from etl.errors import EXIT_BAD_INPUT, InputError, UnreadableFiles
from etl.inputs import read_day, read_input, version_of
from etl.quarantine import bad_file, naming_bad_files, with_quarantine
from etl.sources import Source
from etl.warehouse import Warehouse
from tests.rows import DS, event, small_warehouse

pytestmark = pytest.mark.fault("parquet-damaged")

FILES, ROWS = 4, 400


@pytest.fixture
def damaged(spark: SparkSession, tmp_path: Path) -> Path:
    """A warehouse, in a directory with a space, whose click log has FILES files of ROWS events on DS; still good."""
    root = tmp_path / "ware house"
    small_warehouse(spark, root)
    day = root / "click_log" / f"ds={DS}"
    shutil.rmtree(day)
    rows = [event(f"query {n}", session_id=f"{n * 2654435761:x}", ds=DS) for n in range(FILES * ROWS)]
    frame = spark.createDataFrame([tuple(row[name] for name in CLICK_LOG.names) for row in rows], CLICK_LOG.ddl)
    frame.drop("ds").repartition(FILES).write.parquet(str(day))
    for checksum in day.glob(".*.crc"):
        checksum.unlink()  # with it Hadoop finds the damage before Parquet does
    return root


def files(root: Path) -> list[Path]:
    return sorted((root / "click_log" / f"ds={DS}").glob("*.parquet"))


def corrupt_page(file: Path, column: str = "session_id") -> Path:
    """Flip bytes within the compressed page of a column; the footer stays good."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunk = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == column)
    content = bytearray(file.read_bytes())
    start = chunk.data_page_offset + chunk.total_compressed_size // 3
    content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    file.write_bytes(content)
    assert pq.read_schema(file).names
    return file


def truncate(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def zero(file: Path) -> Path:
    file.write_bytes(b"")
    return file


def sessions(spark: SparkSession, root: Path):
    def work(without: frozenset[str]) -> int:
        frame = read_input(spark, Warehouse.at(str(root)), CLICK_LOG, days=[DS], without=without)
        return frame.select(F.xxhash64("session_id")).toArrow().num_rows

    return work


def test_a_file_whose_page_is_corrupt_is_found_in_each_way_that_spark_tells_it(spark, damaged, tmp_path):
    file = corrupt_page(files(damaged)[1])
    frame = read_day(spark, Warehouse.at(str(damaged)), CLICK_LOG, DS).select("session_id")
    ways = (
        frame.distinct().collect,
        frame.toArrow,
        frame.localCheckpoint,
        lambda: frame.mapInArrow(lambda batches: batches, "session_id string").toArrow(),
        lambda: frame.write.format("delta").save(str(tmp_path / "out")),
    )
    for way in ways:
        with pytest.raises(Exception, match="FAILED_READ_FILE") as error:
            way()
        assert bad_file(error.value) == str(file)


def test_an_error_that_is_no_files_fault_names_no_file(spark):
    with pytest.raises(AnalysisException) as error:
        spark.sql("SELECT nothing")
    assert bad_file(error.value) is None
    assert bad_file(ValueError("FAILED_READ_FILE")) is None


def test_all_files_with_bad_footers_are_told_at_once_an_empty_one_too(spark, damaged):
    # Spark itself reads a file of zero bytes as one without rows, and says nothing.
    bad = [truncate(files(damaged)[0]), zero(files(damaged)[2])]
    with pytest.raises(UnreadableFiles) as error:
        read_input(spark, Warehouse.at(str(damaged)), CLICK_LOG, days=[DS])
    assert error.value.files == {str(file) for file in bad}
    assert f"ds={DS}/{bad[1].name}: 0 bytes" in str(error.value)


def test_no_bad_file_is_tolerated_unless_that_is_said(spark, damaged):
    file = corrupt_page(files(damaged)[1])
    with pytest.raises(UnreadableFiles, match=r"1 input files cannot be read \(expected at most 0") as error:
        with_quarantine(sessions(spark, damaged), 0)
    assert str(file) in str(error.value)


def test_bad_files_up_to_the_limit_are_left_out_counted_and_named(spark, damaged, caplog):
    bad = {corrupt_page(files(damaged)[1]), truncate(files(damaged)[0]), zero(files(damaged)[2])}
    with caplog.at_level(logging.WARNING):
        rows, left_out = with_quarantine(sessions(spark, damaged), 3)
    assert left_out == {str(file) for file in bad}
    assert rows == ROWS
    assert "3 of at most 3 bad files are left out" in caplog.text
    assert all(file.name in caplog.text for file in bad)
    where = Warehouse.at(str(damaged))
    assert version_of(spark, where, CLICK_LOG, [DS], left_out) != version_of(spark, where, CLICK_LOG, [DS])


def test_a_bad_file_is_left_out_of_a_table_that_lies_elsewhere(spark, damaged):
    file = corrupt_page(files(damaged)[1])
    where = Warehouse(damaged, {"click_log": Source(path=f"../{damaged.name}/click_log")})
    rows, left_out = with_quarantine(
        lambda without: read_day(spark, where, CLICK_LOG, DS, without=without).toArrow().num_rows, 1
    )
    assert (rows, left_out) == ((FILES - 1) * ROWS, {str(file)})


def test_more_bad_files_than_the_limit_stop_the_run_and_all_are_listed(spark, damaged):
    bad = [corrupt_page(files(damaged)[1]), truncate(files(damaged)[0]), zero(files(damaged)[2])]
    with pytest.raises(UnreadableFiles, match=r"3 input files cannot be read \(expected at most 2") as error:
        with_quarantine(sessions(spark, damaged), 2)
    assert all(file.name in str(error.value) for file in bad)


def test_a_day_of_which_no_file_is_left_is_refused(spark, damaged):
    for file in files(damaged):
        zero(file)
    with pytest.raises(InputError, match=f"none of {FILES} files can be read"):
        with_quarantine(sessions(spark, damaged), FILES)


def test_a_readable_file_of_another_schema_is_refused_whatever_the_limit(spark, damaged):
    pq.write_table(pq.read_table(files(damaged)[1], partitioning=None).drop_columns(["event"]), files(damaged)[1])
    zero(files(damaged)[2])
    with pytest.raises(InputError, match="column event is missing") as error:
        with_quarantine(sessions(spark, damaged), FILES)
    assert not isinstance(error.value, UnreadableFiles)
    assert files(damaged)[2].name in str(error.value)


def test_a_readable_file_whose_column_is_of_another_type_than_the_table_s_is_no_damaged_one(spark, damaged, tmp_path):
    table = pq.read_table(files(damaged)[1], partitioning=None)
    place = table.column_names.index("session_id")
    pq.write_table(table.set_column(place, "session_id", pa.array(range(len(table)))), files(damaged)[1])
    frame = spark.read.schema("session_id string").parquet(str(files(damaged)[0].parent))
    with pytest.raises(InputError, match="column of another type than its table") as error, naming_bad_files():
        frame.select("session_id").distinct().collect()
    assert files(damaged)[1].name in str(error.value)
    assert not isinstance(error.value, UnreadableFiles)


def test_a_file_that_vanished_is_not_taken_for_a_bad_one(spark, damaged):
    def work(without: frozenset[str]) -> int:
        frame = read_input(spark, Warehouse.at(str(damaged)), CLICK_LOG, days=[DS], without=without)
        files(damaged)[1].unlink(missing_ok=True)
        return frame.select("session_id").toArrow().num_rows

    with pytest.raises(UnreadableFiles, match="does not exist"):
        with_quarantine(work, FILES)


def test_a_bad_file_that_comes_back_although_it_is_left_out_is_refused(spark, damaged):
    corrupt_page(files(damaged)[1])
    with pytest.raises(UnreadableFiles, match=files(damaged)[1].name):
        with_quarantine(lambda without: sessions(spark, damaged)(frozenset()), FILES)


def test_a_file_of_a_delta_table_is_named_and_never_left_out(spark, damaged):
    path = damaged / "click_log"
    frame = spark.read.parquet(str(path)).localCheckpoint()
    shutil.rmtree(path)
    frame.repartition(1).write.format("delta").partitionBy("ds").save(str(path))
    file = corrupt_page(next(path.rglob("part-*.parquet")))
    next(file.parent.glob(f".{file.name}.crc")).unlink()
    with pytest.raises(InputError, match="only files of a plain Parquet directory can be left out") as error:
        with_quarantine(sessions(spark, damaged), 1)
    assert str(file) in str(error.value)


def test_a_failed_task_is_told_once_by_the_exception_and_not_by_its_executor_too(spark):
    logger = spark._jvm.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.executor.Executor")
    assert str(logger.getLevel()) == "OFF"


def test_a_corrupt_page_ends_a_job_as_bad_input_that_names_the_file(spark, damaged, capsys):
    catalogue = damaged / "catalogue" / f"ds={DS}"
    for checksum in catalogue.glob(".*.crc"):
        checksum.unlink()
    file = corrupt_page(next(catalogue.glob("*.parquet")), "title")
    arguments = ["--root", str(damaged), "--ds", str(DS), "--master", "local[2]"]
    assert check_inputs.main(arguments) == EXIT_BAD_INPUT
    assert str(file) in capsys.readouterr().err
