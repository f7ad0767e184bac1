"""The examples of docs/run_at_scale are what Spark, DeepSpeed, Kubernetes and our own jobs understand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deepspeed.launcher.runner import fetch_hostfile
from py4j.protocol import Py4JJavaError

from etl.warehouse import Warehouse
from labeling import cli
from model import launch, train
from model.bundle import candidate, load_bundle
from model.hosts import Hosts, read_hostfile
from tests.model_data import DS, small_shop, write_dataset

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = CHECKOUT / "docs" / "run_at_scale"
SETTINGS = {"ROOT": "/data/shop", "DS": "2024-05-07", "API": "https://api:6443", "IMAGE": "labeller:1"}
JARS = ["io.delta_delta-spark_2.13-4.0.1.jar", "io.delta_delta-storage-4.0.1.jar"]
STAGES = ("check", "pairs", "dataset", "mine", "calibrate", "embed", "predict", "audit", "publish", "relate")
"""Those that run on Spark."""


def words(script: str, base: Path, program: str, **settings: str) -> list[str]:
    """What a script hands to its program, which here says its arguments."""
    (base / ".venv" / "bin").mkdir(parents=True)
    (base / ".venv" / "jars").mkdir()
    for name in JARS:
        (base / ".venv" / "jars" / name).touch()
    stand_in = base / ".venv" / "bin" / program
    stand_in.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    stand_in.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "LABELLER": str(base), "HADOOP_CONF_DIR": "/etc/hadoop"} | SETTINGS | settings
    done = subprocess.run([EXAMPLES / script], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def submitted(spark: Any, given: list[str]) -> Any:
    """The arguments as spark-submit's own parser has them; it refuses what does not go together."""
    jvm = spark.sparkContext._jvm
    as_seq = jvm.PythonUtils.toSeq
    env = jvm.PythonUtils.toScalaMap({"HADOOP_CONF_DIR": "/etc/hadoop"})
    return jvm.org.apache.spark.deploy.SparkSubmitArguments(as_seq(given), env)


@pytest.mark.parametrize(
    ("script", "master", "mode"),
    [
        ("spark_standalone.sh", "spark://head:7077", "client"),
        ("spark_yarn.sh", "yarn", "client"),
        ("spark_kubernetes.sh", "k8s://https://api:6443", "cluster"),
    ],
)
def test_spark_submit_and_the_job_of_every_stage_understand_the_script(spark, tmp_path, script, master, mode):
    for stage in STAGES:
        found = submitted(spark, words(script, tmp_path / stage, "spark-submit", STAGE=stage))
        assert (found.master(), found.deployMode()) == (master, mode)
        assert Path(found.primaryResource()).name == "cli.py"
        command, *flags = [found.childArgs().apply(n) for n in range(found.childArgs().size())]
        assert command == stage
        parsed = cli.job_parser(stage).parse_args(flags)
        assert (parsed.root, parsed.ds, parsed.master) == (SETTINGS["ROOT"], SETTINGS["DS"], master)
        jars = found.jars().split(",")
        assert [Path(jar).name for jar in jars] == JARS
        assert all(jar.startswith("local:///opt/labeller/.venv/jars/") for jar in jars) == (mode == "cluster")


def test_a_setting_that_spark_submit_does_not_know_is_seen_by_that_parser(spark, tmp_path):
    given = words("spark_yarn.sh", tmp_path, "spark-submit")
    with pytest.raises(Py4JJavaError, match="SparkException"):
        submitted(spark, ["--deploy-mode", "somewhere", *given[4:]])


def test_the_hostfile_is_to_deepspeed_what_it_is_to_us():
    file = EXAMPLES / "hostfile"
    assert dict(fetch_hostfile(str(file))) == read_hostfile(file) == {"gpu-1": 8, "gpu-2": 8}


def test_the_training_by_ssh_is_understood_by_its_job(tmp_path):
    command, *flags = words("train_ssh.sh", tmp_path, "labeller")
    parsed = train.arg_parser().parse_args(flags)
    assert (command, parsed.root, parsed.ds) == ("train", SETTINGS["ROOT"], SETTINGS["DS"])
    assert Path(parsed.hostfile).relative_to(tmp_path) == (EXAMPLES / "hostfile").relative_to(CHECKOUT)


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict[str, Any]]:
    """Documents of the Kubernetes example by their kind."""
    documents = yaml.safe_load_all((EXAMPLES / "train_kubernetes.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def test_kubernetes_knows_every_field_of_the_training_job(manifest):
    assert set(manifest) == {"Service", "ConfigMap", "Job"}
    for document in manifest.values():
        kubernetes_validate.validate(document, "1.30", strict=True)
    wrong = {**manifest["Job"], "spec": {**manifest["Job"]["spec"], "completionsMode": "Indexed"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="completionsMode"):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


def test_pods_of_the_job_are_the_hosts_of_its_hostfile_and_find_rank_0_by_its_name(manifest, tmp_path):
    job, service = manifest["Job"], manifest["Service"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (tmp_path / "hostfile").write_text(manifest["ConfigMap"]["data"]["hostfile"])
    slots = read_hostfile(tmp_path / "hostfile")
    name, domain = job["metadata"]["name"], pod["subdomain"]
    assert list(slots) == [f"{name}-{place}.{domain}" for place in range(spec["completions"])]
    assert spec["completions"] == spec["parallelism"]
    assert (spec["completionMode"], spec["backoffLimit"], pod["restartPolicy"]) == ("Indexed", 0, "Never")
    assert set(slots.values()) == {container["resources"]["limits"]["nvidia.com/gpu"]}
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == (domain, "None")
    assert service["spec"]["selector"] == {"job-name": name}
    args = [arg.replace("$(JOB_COMPLETION_INDEX)", "1") for arg in container["args"]]
    parsed = vars(train.arg_parser().parse_args(args))
    assert (parsed["node_rank"], parsed["master_addr"]) == ("1", next(iter(slots)))
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(Path(parsed["hostfile"]).parent), str(Path(parsed["root"]).parent), "/dev/shm"} == mounts
    port = Hosts(file=Path("h"), slots=slots).master_port
    assert {port} == {p["port"] for p in service["spec"]["ports"]} == {p["containerPort"] for p in container["ports"]}


@pytest.mark.slow
def test_two_machines_that_are_started_alike_train_together_and_the_first_leaves_the_bundle(root):
    write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    (root / "hostfile").write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    flags = ["--root", str(root), "--ds", str(DS), "--preset", "tiny", "--device", "cpu", "--epochs", "1"]
    flags += ["--hostfile", str(root / "hostfile"), "--master-addr", "127.0.0.1", "--interface", "lo"]
    flags += ["--master-port", str(launch.free_port()), "--timeout-minutes", "2"]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "model.train", *flags, "--node-rank", node], stderr=subprocess.PIPE, text=True
        )
        for node in ("0", "1")
    ]
    said = [node.communicate(timeout=300)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "training 'tiny' on 2 ranks" in said[0]
    assert "labeller train done: node=1" in said[1]
    bundle = candidate(Warehouse.at(str(root)))
    assert load_bundle(bundle).metrics["settings"]["ranks"] == 2
    assert f"bundle={bundle.name}" in said[0]
