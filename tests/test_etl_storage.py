"""Roots and inputs on a store, as far as they can be judged without one: what is refused, and what lies where."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import pyspark
import pytest

from etl import spark_stores
from etl.config import SparkConfig, from_args
from etl.contracts import CATALOGUE, CLICK_LOG, PAIRS
from etl.errors import EXIT_BAD_INPUT, InputError
from etl.jars import HADOOP, leave_out
from etl.lease import lock_directory
from etl.sample import __main__ as sample
from etl.spark_stores import schemes_of, store_jars, store_settings
from etl.warehouse import Warehouse
from tests.rows import DS

ROOT = "s3a://bucket/shop/"


def settings(tmp_path: Path, root: str = ROOT, text: str = "") -> SparkConfig:
    """Settings of a job by a file of their own, so that no store is asked for one."""
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return from_args(SparkConfig, argparse.Namespace(config=file, root=root))


def local(tmp_path: Path) -> str:
    return f'[warehouse]\nlocal_dir = "{tmp_path}"\n'


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("gs://bucket/shop", "gs:// is no store that is known .expected a path, or s3a, abfs, abfss, hdfs://"),
        ("s3://bucket/shop", "Spark writes it s3a://"),
        ("s3a:///shop", "names no bucket"),
        ("s3a://key:hush@bucket/shop", "has a password or a query in it"),
    ],
)
def test_a_root_that_not_all_engines_can_open_is_refused(tmp_path: Path, root: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        settings(tmp_path, root, local(tmp_path))
    assert "hush" not in str(error.value)


def test_an_input_on_an_unknown_store_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"catalogue: gs:// is no store"):
        settings(tmp_path, str(tmp_path), '[warehouse.inputs.catalogue]\npath = "gs://bucket/items"\n')


def test_a_root_on_a_store_wants_a_local_directory(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"name a mounted directory .* as local_dir under \[warehouse\] in s3a://bucket/shop/"
    ):
        settings(tmp_path)


@pytest.mark.parametrize("name", ["local_dir", "lock_dir"])
def test_bundles_and_locks_do_not_lie_on_a_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: s3a://b/x is on a store, which has no locks"):
        settings(tmp_path, str(tmp_path), f'[warehouse]\n{name} = "s3a://b/x"\n')


def test_a_local_directory_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, text=f'[warehouse]\nlocal_dir = "{tmp_path}/nowhere"\n')
    with pytest.raises(InputError, match=r"local_dir .*nowhere' is no directory"):
        Warehouse.of(config)


def test_tables_lie_on_the_store_and_all_else_in_the_local_directory(tmp_path: Path) -> None:
    config = settings(tmp_path, text=local(tmp_path))
    warehouse = Warehouse.of(config)
    assert warehouse.table(PAIRS) == "s3a://bucket/shop/pairs"
    assert warehouse.staged(PAIRS) == "s3a://bucket/shop/staging/pairs"
    kept = (warehouse.bundles, warehouse.dataset(DS), warehouse.checkpoints, warehouse.report(DS), warehouse.item_indexes)
    assert {path.relative_to(tmp_path).parts[0] for path in kept} == {
        "bundles", "datasets", "checkpoints", "reports", "item_index",
    }  # fmt: skip
    assert lock_directory(config) == tmp_path / "locks"


def test_a_mounted_warehouse_may_read_inputs_from_a_store(tmp_path: Path) -> None:
    items = "abfss://items@lake.dfs.core.windows.net/all"
    text = f'[warehouse.inputs]\ncatalogue.path = "{items}/"\nclick_log.path = "clicks/../log"\n'
    config = settings(tmp_path, str(tmp_path), text)
    warehouse = Warehouse.of(config)
    assert warehouse.table(CATALOGUE) == items
    assert warehouse.table(CLICK_LOG) == str(tmp_path / "log")
    assert warehouse.table(PAIRS) == str(tmp_path / "pairs")
    assert warehouse.bundles == tmp_path / "bundles"
    assert schemes_of(config) == {"abfs"}


def test_jars_that_were_not_fetched_are_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_stores, "jars_directory", lambda: tmp_path)
    with pytest.raises(InputError, match=r"no jars of s3a:// under .*: run `.* -m etl.jars s3a`"):
        store_jars({"s3a"})
    assert store_jars({"hdfs"}) == store_jars(()) == []


def test_a_store_s_jars_are_those_of_the_hadoop_that_spark_brings() -> None:
    found = (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-api-*.jar")
    assert [jar.name for jar in found] == [f"hadoop-client-api-{HADOOP}.jar"]


def test_an_endpoint_s_variables_reach_spark_and_keys_do_not_become_settings() -> None:
    variables = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "eu-west-1", "AWS_SECRET_ACCESS_KEY": "hush"}
    assert store_settings({"s3a"}, variables) == {
        "spark.hadoop.fs.s3a.endpoint": "http://127.0.0.1:1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1",
    }
    assert store_settings({"hdfs"}, variables) == store_settings({"s3a"}, {}) == {}


def test_services_that_nothing_calls_are_left_out_of_a_jar(tmp_path: Path) -> None:
    jar = tmp_path / "bundle.jar"
    with zipfile.ZipFile(jar, "w") as file:
        for name in (
            "software/amazon/awssdk/services/s3/A.class",
            "software/amazon/awssdk/services/ec2/B.class",
            "core/C.class",
        ):
            file.writestr(name, name)
    leave_out(r"software/amazon/awssdk/services/(?!(s3)/)", jar)
    with zipfile.ZipFile(jar) as file:
        assert file.namelist() == ["software/amazon/awssdk/services/s3/A.class", "core/C.class"]
        assert file.read("core/C.class") == b"core/C.class"


def test_a_sample_is_not_generated_on_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--root", ROOT, "--local-dir", str(tmp_path), "--config", str(tmp_path / "empty.toml")]
    (tmp_path / "empty.toml").touch()
    assert sample.main(given) == EXIT_BAD_INPUT
    assert "a sample is generated on a mounted path" in capsys.readouterr().err
