"""Logs of Delta tables that were damaged or cut off: refused with the table, the version and the cure."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from etl import log_history, tables
from etl.contracts import LABELS_CURRENT, RUNS
from etl.errors import InputError
from etl.polars_scan import scan
from etl.table_contract import differences
from etl.table_log import opened, require_entries
from etl.warehouse import Warehouse, is_delta
from labeling.live_log import history_versions, live_commits
from tests.delta_data import lay, live_row
from tests.rows import DS

LAST = 3
"""Version of the table that is damaged."""


def entry(table: Path, version: int, kind: str = "json") -> Path:
    return table / "_delta_log" / f"{version:020}.{kind}"


def lay_down(table: Path) -> Path:
    """LABELS_CURRENT of one commit an item, with what Spark's writer lays beside each."""
    for version in range(LAST + 1):
        lay(table, LABELS_CURRENT, [live_row(f"i{version}")], userMetadata="{}")
        written = DeltaTable(str(table))
        sizes = pl.DataFrame(written.get_add_actions())["size_bytes"]
        said = {"numFiles": len(sizes), "tableSizeBytes": sizes.sum()}
        said["metadata"] = {"configuration": written.metadata().configuration}
        entry(table, version, "crc").write_text(json.dumps(said))
    return table


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return lay_down(tmp_path_factory.mktemp("whole") / "labels_current")


@pytest.fixture
def table(whole, root) -> Path:
    """A copy of it to damage, in a warehouse."""
    return Path(shutil.copytree(whole, root / "labels_current"))


def cut(file: Path, lines: int) -> None:
    """At the end of a line, as the page of a disk may."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))


def shorten(file: Path, by: int) -> None:
    file.write_bytes(file.read_bytes()[:-by])


DAMAGE: dict[str, tuple[int, Callable[[Path], object]]] = {
    "the newest entry emptied": (LAST, lambda table: entry(table, LAST).write_text("")),
    "an entry emptied": (1, lambda table: entry(table, 1).write_text("")),
    "the newest entry gone": (LAST, lambda table: entry(table, LAST).unlink()),
    "an entry gone": (1, lambda table: entry(table, 1).unlink()),
    "the first entry gone": (0, lambda table: entry(table, 0).unlink()),
    "all entries gone": (0, lambda table: [file.unlink() for file in table.glob("_delta_log/*.json")]),
    "the newest entry cut at the end of a line": (LAST, lambda table: cut(entry(table, LAST), 1)),
    "an entry cut at the end of a line": (1, lambda table: cut(entry(table, 1), 1)),
    "the first entry cut at the end of a line": (0, lambda table: cut(entry(table, 0), 3)),
    "an entry cut within a line": (1, lambda table: shorten(entry(table, 1), 9)),
}

READERS = {
    "polars": lambda root: scan(f"{root}/labels_current").collect(),
    "what is live": lambda root: live_commits(Warehouse.at(str(root))),
    "a writer": lambda root: differences(f"{root}/labels_current", LABELS_CURRENT),
    "a version that is recorded": lambda root: history_versions(Warehouse.at(str(root)), {LABELS_CURRENT: None}),
}


@pytest.mark.fault("delta-log-damaged")
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_log_is_refused_by_each_reader_with_the_table_the_version_and_the_cure(what, table, root):
    version, damage = DAMAGE[what]
    damage(table)
    said = rf"table labels_current at {table}: its log is damaged from version {version} on.*restore these files from a copy"
    for read in READERS.values():
        with pytest.raises(InputError, match=said) as error:
            read(root)
        assert f"_delta_log/{version:020}.json" in str(error.value)


@pytest.mark.fault("delta-log-damaged")
def test_a_checkpoint_that_is_cut_is_refused_with_the_table(table, root):
    DeltaTable(str(table)).create_checkpoint()
    checkpoint = next(table.glob("_delta_log/*.checkpoint.parquet"))
    shorten(checkpoint, 9)
    with pytest.raises(InputError, match=f"table labels_current at {table} cannot be read.* checkpoint may be moved away"):
        scan(str(table))


@pytest.mark.fault("delta-log-damaged")
@pytest.mark.parametrize("what", DAMAGE)
def test_without_a_copy_the_versions_before_the_damage_are_had_as_the_message_says(what, table):
    version, damage = DAMAGE[what]
    damage(table)
    for file in table.glob("_delta_log/*"):
        if int(file.name[:20]) >= version:
            file.unlink()
    if version:
        assert sorted(scan(str(table)).collect()["item_id"]) == [f"i{n}" for n in range(version)]
    else:
        assert not is_delta(str(table))


@pytest.mark.fault("delta-log-damaged")
@pytest.mark.parametrize("what", [what for what in DAMAGE if "line" not in what and "newest entry gone" not in what])
def test_without_checksums_beside_the_log_what_the_entries_themselves_show_is_refused(what, table):
    DAMAGE[what][1](table)
    for file in table.glob("_delta_log/*.crc"):
        file.unlink()
    if what == "all entries gone":
        assert not is_delta(str(table))
        return
    with pytest.raises(InputError, match="its log is damaged from version"):
        require_entries(str(table))


def without_entries_before(table: Path, version: int, kinds: str) -> None:
    for file in table.glob(f"_delta_log/*.{kinds}"):
        if int(file.name[:20]) < version:
            file.unlink()


@pytest.mark.parametrize(
    "usual",
    [
        pytest.param(lambda table: [file.unlink() for file in table.glob("_delta_log/*.crc")], id="another writer's"),
        pytest.param(lambda table: entry(table, LAST, "crc").unlink(), id="killed before the checksum"),
        pytest.param(lambda table: without_entries_before(table, LAST, "*"), id="entries too old"),
        pytest.param(lambda table: without_entries_before(table, LAST, "json"), id="checksums outlive entries too old"),
        pytest.param(lambda table: (table / "_delta_log" / f".{4:020}.json.9f.tmp").write_text("{"), id="a killed commit"),
        pytest.param(lambda table: entry(table, LAST, "crc").write_text('{"num'), id="a checksum cut"),
    ],
)
def test_logs_as_writers_leave_them_are_read(usual, table):
    DeltaTable(str(table)).create_checkpoint()
    usual(table)
    assert opened(str(table)).version() == LAST
    assert scan(str(table)).collect().height == LAST + 1


def test_a_property_that_an_entry_lost_is_missed(table):
    said = json.loads(entry(table, LAST, "crc").read_text())
    said["metadata"]["configuration"] = {"delta.constraints.named": "term <> ''"}
    entry(table, LAST, "crc").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"gives properties \{\} \(expected \{'delta.constraints.named'"):
        opened(str(table))


# ---------------------------------------------------------------- killed before the first version


@pytest.fixture
def begun(root) -> str:
    """A table whose writer was killed before its first version was there."""
    log = root / "labels_current" / "_delta_log"
    (log / "_staged_commits").mkdir(parents=True)
    (log / f".{0:020}.json.9f.tmp").write_text("{")
    return str(root / "labels_current")


@pytest.mark.fault("killed-at-boundary")
def test_a_table_of_which_no_version_was_written_is_not_there(begun, root):
    warehouse = Warehouse.at(str(root))
    assert not is_delta(begun)
    assert not warehouse.has(LABELS_CURRENT)
    assert live_commits(warehouse) == []


@pytest.mark.fault("killed-at-boundary")
def test_a_table_of_which_no_version_was_written_is_made_by_the_next_write(spark, begun, root):
    path = str(Path(begun).rename(root / "runs"))
    write(spark, path)
    assert scan(path).collect().height == 1


# ---------------------------------------------------------------- as Spark writes and reads


def write(spark, path: str, stage: str = "pairs", seconds: float = 1.0, **metadata: str) -> int:
    rows = [(DS, stage, "r", "b", "c", "{}", "{}", seconds, dt.datetime(2024, 6, 1), None)]
    frame = spark.createDataFrame(rows, RUNS.ddl)
    return tables.write_slice(frame, path, RUNS, {"ds": DS, "stage": stage}, metadata)


@pytest.fixture(scope="module")
def written(spark, tmp_path_factory) -> Path:
    """RUNS of three stages, by our own write path: versions 1 to 3."""
    path = tmp_path_factory.mktemp("written") / "runs"
    for stage in ("pairs", "embed", "predict"):
        write(spark, str(path), stage)
    return path


@pytest.mark.fault("delta-log-damaged")
@pytest.mark.parametrize("what", [what for what in DAMAGE if what != "the first entry cut at the end of a line"])
def test_a_damaged_log_of_a_table_that_spark_wrote_is_refused_before_spark_reads_it(what, spark, written, root):
    table = Path(shutil.copytree(written, root / "runs"))
    for file in table.glob("_delta_log/.*.crc"):
        file.unlink()  # on a store and after a copy there are none
    version, damage = DAMAGE[what]
    damage(table)
    for read in (
        lambda: tables.read(spark, str(table), RUNS),
        lambda: write(spark, str(table), "audit"),
    ):
        with pytest.raises(InputError, match=f"table runs at {table}: its log is damaged from version {version} on"):
            read()


def test_whatever_our_jobs_do_to_a_table_its_log_and_checksums_agree(spark, written, root):
    path = shutil.copytree(written, root / "runs")
    spark.sql(f"ALTER TABLE {tables.sql_name(str(path))} SET TBLPROPERTIES ('a.b' = 'c')")
    tables.delete_rows(spark, str(path), F.col("stage") == "embed", {})
    for stage in ("a", "b", "c", "d", "e", "f", "g"):  # beyond a checkpoint
        write(spark, str(path), stage)
    log_history.drop_history(spark, str(path), {})
    write(spark, str(path), "h")
    assert tables.read(spark, str(path), RUNS).count() == scan(str(path)).collect().height == 10
    assert entry(Path(path), opened(str(path)).version(), "crc").exists()
