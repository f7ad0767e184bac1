"""Tables and files on a real object store, as every command sees them without Spark; and what it says when it cannot."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from etl import storage
from etl.contracts import CATALOGUE, RUNS
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_TRY_LATER, InputError, UnreadableFiles
from etl.files import check_files, data_files, files_version
from etl.sources import Source
from etl.storage import StoreError, StoreSilent
from etl.warehouse import Warehouse, is_delta
from labeling import doctor, local_tables, tables
from tests.rows import DS
from tests.store import BUCKET, KEY, SECRET, object_store, upload

ROOT = f"s3a://{BUCKET}/shop"
ITEMS = f"{ROOT}/catalogue"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a warehouse of a catalogue and a log of runs; gives its local directory."""
    local, made = tmp_path_factory.mktemp("local"), tmp_path_factory.mktemp("made")
    with object_store(tmp_path_factory.mktemp("store")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        storage._file_system.cache_clear()
        day = made / "catalogue" / f"ds={DS}"
        day.mkdir(parents=True)
        changed = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
        items = {"item_id": ["i1", "i2"], "name": ["kettle", "dress"], "updated_at": [changed] * 2}
        pl.DataFrame(items).write_parquet(day / "a.parquet")
        (day / "_SUCCESS").touch()
        inputs = '[warehouse.inputs.catalogue]\ncolumns = { title = "name" }\n'
        (made / "warehouse.toml").write_text(f'[warehouse]\nlocal_dir = "{local}"\n{inputs}')
        upload(made, ROOT)
        pl.DataFrame({"ds": [DS], "stage": ["pairs"]}).write_delta(f"{ROOT}/runs")
        yield local
        storage._file_system.cache_clear()


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """Clients are made from the variables as a test sets them, and again after it."""
    storage._file_system.cache_clear()
    yield
    storage._file_system.cache_clear()


def test_settings_of_a_warehouse_on_a_store_lie_beside_its_tables(store: Path) -> None:
    warehouse = Warehouse.at(ROOT)
    assert warehouse.files == store
    assert warehouse.source(CATALOGUE).theirs("title") == "name"
    assert warehouse.has(CATALOGUE)
    assert warehouse.has(RUNS)
    assert not warehouse.has(next(table for table in tables.OUTPUTS if table.name == "pairs"))


def test_plain_files_of_a_store_are_listed_as_spark_reads_them(store: Path) -> None:
    files = data_files(ITEMS, Source(), [DS])
    assert [(file.path, file.size > 0) for file in files] == [(f"{ITEMS}/ds={DS}/a.parquet", True)]
    held = check_files(ITEMS, CATALOGUE, Source(columns={"title": "name"}), [files[0].path])
    assert held[files[0].path]["name"] == "string"
    assert is_delta(f"{ROOT}/runs")
    assert not is_delta(ITEMS)


def test_a_file_written_again_on_a_store_is_another_version(store: Path, tmp_path: Path) -> None:
    place = f"s3a://{BUCKET}/again"
    versions = []
    for content in ("a", "ab"):
        (tmp_path / "x").write_text(content)
        upload(tmp_path, place)
        versions.append(files_version(place, storage.files_under(place)))
    assert versions[0] != versions[1]
    storage.remove(f"{place}/x")
    assert storage.entries(place) == []


def test_a_damaged_file_on_a_store_is_named_whole(store: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("no Parquet")
    upload(tmp_path, f"s3a://{BUCKET}/damaged")
    file = f"s3a://{BUCKET}/damaged/b"
    with pytest.raises(UnreadableFiles, match=f"{file}: 10 bytes") as error:
        check_files(f"s3a://{BUCKET}/damaged", CATALOGUE, Source(), [file])
    assert error.value.files == {file}


def test_a_table_on_a_store_is_read_without_spark(store: Path) -> None:
    found = local_tables.read(Warehouse.at(ROOT), CATALOGUE, DS, ("item_id", "title"))
    assert sorted(found.rows()) == [("i1", "kettle"), ("i2", "dress")]
    with pytest.raises(InputError, match=f"table vocabulary is not at {ROOT}/vocabulary"):
        local_tables.vocabulary(Warehouse.at(ROOT))


def test_tables_of_a_store_are_listed_by_the_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--root", ROOT, "--json"]) == EXIT_OK
    found = {row["table"]: row for row in json.loads(capsys.readouterr().out)}
    assert (found["runs"]["rows"], found["runs"]["last"]) == (1, str(DS))
    assert found["pairs"]["version"] is None


def test_the_doctor_looks_at_a_warehouse_on_a_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "store_jars", lambda _: [])
    found = {finding.what: finding for finding in doctor.check_root(ROOT)}
    assert found["warehouse"].found == f"{ROOT}: catalogue"
    assert str(store) in found["disk"].found
    monkeypatch.undo()
    assert [finding.status for finding in doctor.check_root(f"{ROOT}/nowhere")] == ["fail"]


def test_a_bucket_that_is_not_there_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--root", "s3a://no-such-bucket/shop"]) == EXIT_BAD_INPUT
    assert "s3a://no-such-bucket/shop/warehouse.toml cannot be read: NoSuchBucket" in capsys.readouterr().err


def test_a_root_on_a_store_without_settings_says_which_it_needs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--root", f"s3a://{BUCKET}/misspelt"]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert f"as local_dir under [warehouse] in s3a://{BUCKET}/misspelt/warehouse.toml" in said


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "hush-and-wrong", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "nobody-s-key", "InvalidAccessKeyId"),
    ],
)
def test_credentials_that_do_not_let_us_in_are_said_without_them(
    store: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StoreError, match=said) as error:
        Warehouse.at(ROOT)
    assert error.value.exit_code == EXIT_BAD_INPUT
    for secret in (SECRET, KEY, "hush-and-wrong", "nobody-s-key"):
        assert secret not in str(error.value)


@pytest.mark.usefixtures("asked_anew")
def test_a_store_where_nobody_answers_is_asked_again_later(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreSilent, match="Connection refused") as error:
        Warehouse.at(ROOT)
    assert error.value.exit_code == EXIT_TRY_LATER
    for secret in (SECRET, KEY):
        assert secret not in str(error.value)


@pytest.mark.usefixtures("asked_anew")
def test_keys_that_are_not_set_are_asked_for_and_not_waited_for(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # as off Amazon, where nobody is at the address of it
    with pytest.raises(StoreError, match="credentials for it"):
        Warehouse.at(ROOT)
