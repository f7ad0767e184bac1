"""The encoding on a real standalone cluster: two workers outside the checkout, which get code and Python from the driver.

Each worker has one stand-in GPU, by a discovery script, so the encoder is told to stay on the CPU.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyspark
import pytest

from etl.errors import EXIT_OK
from etl.text import normalise
from labeling.product_text import product_text
from tests.labeling_data import write_small_bundle
from tests.rows import DS

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[1]
SPARK_HOME = Path(pyspark.__file__).parent
WORDS = ("kettle", "dress", "table lamp", "sofa")
PATIENCE = 300.0
"""Seconds for a Java process to start, on a machine that does much else."""

# What the tasks of a job see; runs as a driver.
LOOK = """
import json, os, sys
import pyarrow as pa
from etl.config import SparkJobConfig
from etl.session import start_session

def look(batches):
    import labeling
    from labeling.encoding import task_gpu
    sum(map(len, batches))
    where = {"code": os.path.abspath(labeling.__file__), "python": os.path.abspath(sys.executable), "path": sys.path}
    seen = {"gpu": task_gpu(), **where}
    yield pa.RecordBatch.from_pydict({"seen": [json.dumps(seen)]})

conf = json.loads(sys.argv[2])
config = SparkJobConfig(root=".", ds="2024-05-07", master=sys.argv[1], driver_memory="512m", spark_conf=conf)
spark = start_session("look", config)
print(json.dumps([json.loads(row[0]) for row in spark.range(0, 8, 1, 4).mapInArrow(look, "seen string").collect()]))
"""


@dataclass(frozen=True)
class Cluster:
    master: str
    base: Path
    conf: dict[str, str]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A driver of this checkout, whose executors run the Python of the archive."""
        env = {k: v for k, v in os.environ.items() if k != "PYSPARK_DRIVER_PYTHON"}
        env |= {"PYTHONPATH": str(CHECKOUT), "PYSPARK_PYTHON": "./environment/bin/python", "SPARK_LOCAL_IP": "127.0.0.1"}
        command = [sys.executable, *argv]
        return subprocess.run(command, cwd=self.base, env=env, capture_output=True, text=True, check=False)


def code_as_zip(base: Path) -> Path:
    """What `make wheel` makes, of a copy: other tests may build here too."""
    source = base / "source"
    for name in ("etl", "model", "labeling"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, source)
    build = "import setuptools.build_meta as b; b.build_wheel('build')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    return next((source / "build").glob("*.whl")).rename(base / "labeller.zip")


def environment_as_archive(base: Path) -> Path:
    """A Python that finds the libraries of this one, but none of what is installed from a checkout."""
    venv.create(base / "environment", symlinks=True)
    libraries = next((base / "environment" / "lib").glob("python*/site-packages"))
    # A directory that a .pth file names has its own .pth files left unread, that of an editable install among them.
    (libraries / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    with tarfile.open(base / "environment.tar.gz", "w:gz") as archive:
        archive.add(base / "environment", ".")
    shutil.rmtree(base / "environment")
    return base / "environment.tar.gz"


def start(base: Path, name: str, said: str, *argv: str, **variables: str) -> subprocess.Popen[bytes]:
    """A daemon of Spark's, once its log says ``said``."""
    log = base / f"{name}.log"
    env = {key: os.environ[key] for key in ("PATH", "HOME", "JAVA_HOME") if key in os.environ}
    env |= {"SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"} | variables
    with log.open("wb") as out:
        process = subprocess.Popen([SPARK_HOME / "bin" / "spark-class", *argv], cwd=base, env=env, stdout=out, stderr=out)
    deadline = time.monotonic() + PATIENCE
    while said not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{name} did not say {said!r}: {log.read_text()[-2000:]}")
        time.sleep(0.2)
    return process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("cluster")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    master, where = f"spark://127.0.0.1:{port}", ("--host", "127.0.0.1", "--webui-port", "0")
    conf = {
        "spark.submit.pyFiles": str(code_as_zip(base)),
        "spark.archives": f"{environment_as_archive(base)}#environment",
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
        "spark.executor.memory": "512m",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": f"{PATIENCE:.0f}s",
    }
    with ExitStack() as running:
        argv = ("org.apache.spark.deploy.master.Master", *where, "--port", port)
        running.callback(start(base, "master", "I have been elected leader", *argv).kill)
        for address in ("0", "1"):
            script = base / f"gpus-{address}"
            script.write_text(f"""#!/bin/sh\necho '{{"name": "gpu", "addresses": ["{address}"]}}'\n""")
            script.chmod(0o755)
            resource = "-Dspark.worker.resource.gpu"
            options = f"{resource}.amount=1 {resource}.discoveryScript={script}"
            argv = ("org.apache.spark.deploy.worker.Worker", *where, "--cores", "1", "--memory", "1g")
            argv += ("--work-dir", str(base / f"work-{address}"), master)
            worker = start(base, f"worker-{address}", "Successfully registered", *argv, SPARK_WORKER_OPTS=options)
            running.callback(worker.wait)
            running.callback(worker.terminate)  # which takes its executors along
        yield Cluster(master, base, conf)


def test_tasks_on_both_workers_have_their_gpu_s_address_and_the_code_and_python_that_the_driver_sent(cluster):
    done = cluster.run("-c", LOOK, cluster.master, json.dumps(cluster.conf))
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert {task["gpu"] for task in seen} == {"0", "1"}
    for task in seen:
        work = str(cluster.base / f"work-{task['gpu']}")
        assert task["code"].startswith(work)
        assert "/labeller.zip/labeling/" in task["code"]
        assert task["python"].startswith(work)
        assert str(CHECKOUT) not in task["path"]


def test_the_catalogue_is_encoded_there_to_the_vectors_of_this_process(cluster, root):
    titles = {f"i{n:02}": f"{WORDS[n % 4]} {n} cm" for n in range(60)}
    day = root / "catalogue" / f"ds={DS}"
    day.mkdir(parents=True)
    rows = {"item_id": list(titles), "title": list(titles.values()), "updated_at": [dt.datetime(2024, 5, 1)] * len(titles)}
    pl.DataFrame(rows).write_parquet(day / "items.parquet")
    bundle = write_small_bundle(root)
    flags = [flag for entry in cluster.conf.items() for flag in ("--spark-conf", "=".join(entry))]
    where = ("--master", cluster.master, "--driver-memory", "512m", "--device", "cpu", *flags)
    done = cluster.run("-m", "labeling.cli", "embed", "--root", str(root), "--ds", str(DS), *where)
    assert done.returncode == EXIT_OK, done.stderr[-3000:]
    found = {row["text_hash"]: row["vector"] for row in pl.read_delta(str(root / "item_embeddings")).to_dicts()}
    vectors = bundle.encode([normalise(title) for title in titles.values()], "title").astype("<f2")
    hashes = [product_text(title, normalise).text_hash for title in titles.values()]
    assert set(found) == set(hashes)
    for text_hash, expected in zip(hashes, vectors, strict=True):
        assert np.array_equal(np.frombuffer(found[text_hash], "<f2"), expected)
