"""The Spark session as a person at the terminal meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etl import class_archive
from etl.class_archive import ARCHIVE, SIZE
from etl.spark_stores import jars_directory

CHECKOUT = Path(__file__).resolve().parents[1]
START = """
from etl.config import SparkJobConfig
from etl.session import start_session
start_session("quiet", SparkJobConfig(root=".", ds="2024-05-07", master="local[1]", driver_memory="1g")).stop()
"""


def test_a_session_starts_without_a_word_but_java_s_own(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines() == ["WARNING: Using incubator modules: jdk.incubator.vector"]


DELTA = """
import sys
from etl.config import SparkConfig
from etl.session import start_session
conf = dict(word.split("=", 1) for word in sys.argv[2:])
spark = start_session("delta", SparkConfig(root=sys.argv[1], master="local[1]", driver_memory="1g", spark_conf=conf))
java = spark.sparkContext._jvm.java.lang
loaded = java.Thread.currentThread().getContextClassLoader().loadClass("io.delta.tables.DeltaTable").getSimpleName()
options = spark.sparkContext.getConf().get("spark.driver.extraJavaOptions")
print("archive" if "SharedArchiveFile" in options else "jars", loaded)
"""


def loads_delta(root: Path, prefix: Path, *conf: str) -> subprocess.CompletedProcess[str]:
    """A session of the environment ``prefix`` that loads a class of Delta's."""
    program = f"import sys; sys.prefix = {str(prefix)!r}\n{DELTA}"
    return subprocess.run(
        [sys.executable, "-c", program, str(root), *conf],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """An environment's jars, without an archive."""
    (tmp_path / "jars").mkdir()
    for jar in jars_directory().glob("*.jar"):
        (tmp_path / "jars" / jar.name).symlink_to(jar)
    return tmp_path / "jars"


def test_a_class_archive_that_was_cut_short_is_left_alone(tmp_path, jars):
    (jars / ARCHIVE).write_bytes(b"\0" * 4096)
    (jars / SIZE).write_text(json.dumps({"bytes": 4097}))
    done = loads_delta(tmp_path, tmp_path)
    assert done.stdout.split() == ["jars", "DeltaTable"], done.stderr


def test_a_class_archive_of_another_java_is_left_alone_without_a_word(tmp_path, jars):
    (jars / ARCHIVE).write_bytes(b"\0" * 4096)
    (jars / SIZE).write_text(json.dumps({"bytes": 4096}))
    done = loads_delta(tmp_path, tmp_path)
    assert done.stdout.split() == ["archive", "DeltaTable"], done.stderr
    assert done.stderr.splitlines() == ["WARNING: Using incubator modules: jdk.incubator.vector"]


def test_a_class_path_of_one_s_own_does_not_lose_delta(tmp_path):
    done = loads_delta(tmp_path, Path(sys.prefix), f"spark.driver.extraClassPath={tmp_path}")
    assert done.stdout.split()[1:] == ["DeltaTable"], done.stderr


def test_set_up_makes_the_archive_and_java_takes_its_classes_from_it():
    assert class_archive.archive() is not None, "set-up has made none: `python -m etl.class_archive` says why"
    done = subprocess.run(
        ["java", *class_archive.java_options(class_archive.archive()), "-Xlog:class+load", "-version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "source: shared objects file" in done.stdout
