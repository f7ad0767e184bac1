"""On one machine everything listens on the loopback: the ranks of a training, their launcher, Spark's driver and its UI."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from model import launch
from model.rendezvous import on_one_machine
from tests.listening import LOOPBACK

SPARK = """
import sys, psutil
from etl.config import SparkConfig
from etl.session import start_session
from tests.listening import listeners
spark = start_session("t", SparkConfig(root=sys.argv[1], master="local[1]", spark_conf={"spark.ui.enabled": "true"}))
assert spark.sparkContext.uiWebUrl.startswith("http://127.0.0.1:") or "localhost" in spark.sparkContext.uiWebUrl
assert spark.sparkContext.parallelize([1]).map(lambda x: x + 1).collect() == [2]
me = psutil.Process()
print(" ".join(listeners([me, *me.children(recursive=True)])))
"""


@pytest.mark.fault("loopback")
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_ranks_on_one_machine_and_their_launcher_listen_on_the_loopback_alone(tmp_path, engine):
    if engine == "torch":
        argv = launch.torch_command("tests.listening_worker", [str(tmp_path), engine], ranks=2, directory=tmp_path)
    else:
        argv = launch.command("tests.listening_worker", [str(tmp_path), engine], ranks=2)
    assert launch.run_watched(argv, launch.environment(2, "cpu", local=True)) == 0
    assert json.loads((tmp_path / "listeners.json").read_text()) == ["127.0.0.1"]


@pytest.mark.fault("loopback")
def test_a_local_spark_and_its_ui_listen_on_the_loopback_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    done = subprocess.run([sys.executable, "-c", SPARK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= LOOPBACK
    assert done.stdout.split()


@pytest.mark.parametrize(
    ("said", "alone"),
    [({"LOCAL_SIZE": "2"}, True), ({"LOCAL_WORLD_SIZE": "1"}, False), ({"LOCAL_SIZE": "1"}, False), ({}, True)],
)
def test_ranks_of_several_machines_are_told_by_their_launcher(said, alone):
    assert on_one_machine({"WORLD_SIZE": "2"} | said) == alone
