from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.dataset import DataFile, Manifest, decode_ids, encode_ids, load_token_table, schemas, verify
from etl.errors import InputError
from tests.model_data import SCHEMAS

_VALUES = {"int64": 1, "float": 0.0, "binary": b"", "string": "test", "list": [1]}


def dataset(directory: Path) -> Path:
    """A dataset of two files of pairs, one of each other part, and a token table, with its manifest."""
    rows = {"pairs": (3, 2), "titles": (1,), "corpus": (0,), "heldout": (1,), "known": (4,)}
    for part, counts in rows.items():
        (directory / part).mkdir(parents=True)
        for n, count in enumerate(counts):
            values = {f.name: pa.array([_VALUES[str(f.type).split("<")[0]]] * count, f.type) for f in SCHEMAS[part]}
            pq.write_table(pa.table(values, schema=SCHEMAS[part]), directory / part / f"part-{n:05d}.parquet")
    (directory / "pairs" / "_common_metadata").write_bytes(b"schema")
    features = [np.array(f, "<u4").tobytes() for f in ([5, 6], [], [7])]
    tokens = pa.table({"id": pa.array([-3, 0, 9], pa.int64()), "features": pa.array(features, pa.binary())})
    pq.write_table(tokens, directory / "tokens.parquet")
    manifest_of(directory).write(directory)
    return directory


def manifest_of(directory: Path) -> Manifest:
    """The manifest of what lies there."""
    parts = {
        part: tuple(DataFile.of(directory, path) for path in sorted((directory / part).iterdir())) for part in SCHEMAS
    } | {"tokens": (DataFile.of(directory, directory / "tokens.parquet"),), "tokenizer": ()}
    return Manifest(
        ds=dt.date(2024, 5, 7),
        token_dtype="int64",
        tokenizer="t",
        normaliser="n",
        spec={"kind": "wordhash"},
        inputs={"pairs": "delta:3"},
        parts=parts,
        schema=schemas(directory, parts),
        ranks=2,
    )


def test_a_whole_dataset_is_verified_and_counted(tmp_path):
    manifest = verify(dataset(tmp_path))
    assert manifest.rows("pairs") == 5
    assert [(file.path, file.rows) for file in manifest.files("pairs")] == [
        ("pairs/part-00000.parquet", 3),
        ("pairs/part-00001.parquet", 2),
    ]
    assert json.loads((tmp_path / "manifest.json").read_text())["totals"]["pairs"] == 5


def test_what_is_known_of_the_cleaning_comes_back_and_is_no_part_of_the_identity(tmp_path):
    before = verify(dataset(tmp_path))
    assert "cleaning" not in (tmp_path / "manifest.json").read_text()
    replace(before, cleaning={"settings": {"min_users": 10}}).write(tmp_path)
    after = verify(tmp_path)
    assert after.cleaning == {"settings": {"min_users": 10}}
    assert after.digest == before.digest


def test_a_dataset_without_manifest_is_refused(tmp_path):
    (dataset(tmp_path) / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"has no manifest.json.*labeller dataset"):
        verify(tmp_path)


@pytest.mark.parametrize("cut", [0, 100, -3])
def test_a_manifest_that_was_cut_is_refused_by_its_name_with_the_cure(tmp_path, cut):
    path = dataset(tmp_path) / "manifest.json"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"/manifest.json cannot be read as JSON.*: build it again with `labeller dataset`"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["ds", "parts", "sha256"])
def test_a_manifest_that_lacks_what_it_must_say_is_refused_by_its_name_with_the_cure(tmp_path, name):
    path = dataset(tmp_path) / "manifest.json"
    path.write_text(path.read_text().replace(f'"{name}"', '"other"', 1))
    with pytest.raises(InputError, match=r"/manifest.json is damaged \(.*\); build it again with `labeller dataset`"):
        Manifest.read(tmp_path)


def test_a_link_in_the_place_of_a_manifest_s_draft_is_not_written_through(tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "dataset" / ".manifest.json").symlink_to(tmp_path / "outside")
    dataset(tmp_path / "dataset")
    assert (tmp_path / "outside").read_text() == "untouched"


def test_a_dataset_of_another_format_is_refused(tmp_path):
    path = dataset(tmp_path) / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 3', '"format_version": 99'))
    with pytest.raises(InputError, match=r"format_version 99 \(expected 3\)"):
        verify(tmp_path)


def test_columns_that_the_format_needs_and_a_part_lacks_are_all_named_before_any_file_is_hashed(tmp_path):
    directory = dataset(tmp_path)
    old = pa.table({"query_id": [1], "item_group": pa.array([1], pa.int32())})
    pq.write_table(old, directory / "known" / "part-00000.parquet")
    (directory / "corpus" / "part-00000.parquet").unlink()
    manifest_of(directory).write(directory)
    (directory / "tokens.parquet").write_bytes(b"short")
    with pytest.raises(InputError) as error:
        verify(directory)
    assert error.value.problems == (
        "corpus/ has no column title_id (expected int64, found no file)",
        "corpus/ has no column title (expected binary, found no file)",
        "known/ has no column query_group (expected int64, found ['item_group', 'query_id'])",
        "known/ has item_group as int32 (expected int64)",
    )


def test_files_of_a_part_that_differ_in_columns_are_refused(tmp_path):
    directory = dataset(tmp_path)
    pq.write_table(pa.table({"pair_id": [1]}), directory / "pairs" / "part-00001.parquet")
    with pytest.raises(InputError, match=r"part-00001.parquet has \{'pair_id': 'int64'\}, pairs/part-00000.parquet has"):
        manifest_of(directory)


def test_the_manifest_comes_back_and_its_digest_changes_with_any_byte_of_the_data(tmp_path):
    directory = dataset(tmp_path)
    before = manifest_of(directory)
    assert verify(directory).digest == before.digest
    assert replace(before, inputs={"pairs": "delta:9"}).digest == before.digest
    assert verify(directory).ranks == 2
    pq.write_table(
        pq.read_table(directory / "pairs" / "part-00001.parquet"),
        directory / "pairs" / "part-00001.parquet",
        compression="none",
    )
    assert manifest_of(directory).digest != before.digest


def test_files_that_are_missing_changed_truncated_or_unknown_are_all_named(tmp_path):
    pairs = dataset(tmp_path) / "pairs"
    (pairs / "part-00001.parquet").unlink()
    (pairs / "_common_metadata").write_bytes(b"scheme")
    (tmp_path / "tokens.parquet").write_bytes(b"short")
    (pairs / "part-00009.parquet").write_bytes(b"more")
    with pytest.raises(InputError) as error:
        verify(tmp_path)
    for part in (
        "pairs/part-00001.parquet is missing",
        "pairs/part-00009.parquet is not in the manifest",
        "pairs/_common_metadata has another SHA-256",
        "tokens.parquet has 5 bytes",
    ):
        assert part in str(error.value)


def test_the_token_table_comes_back_as_it_was(tmp_path):
    table = load_token_table(dataset(tmp_path))
    assert table.ids.tolist() == [-3, 0, 9]
    assert table.offsets.tolist() == [0, 2, 2, 3]
    assert table.features.tolist() == [5, 6, 7]
    assert table.features.dtype == table.ids.dtype == np.int64


@pytest.mark.parametrize(("token_dtype", "width"), [("int64", 8), ("uint32", 4)])
def test_token_ids_are_little_endian_and_joined_texts_are_joined_ids(token_dtype, width):
    ids = np.array([1, 2**31 + 1, 7], dtype=np.int64)
    value = encode_ids(ids, token_dtype)
    assert value[:width] == bytes([1]) + bytes(width - 1)
    assert decode_ids(value + value, token_dtype).tolist() == [*ids, *ids]
    assert decode_ids(b"", token_dtype).size == 0
