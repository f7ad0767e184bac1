"""`labeller train` as Airflow runs it: DeepSpeed's own launcher, two ranks on the CPU."""

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed as dist

from etl.dataset import verify
from etl.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_OK
from etl.warehouse import Warehouse
from model import launch, train, worker
from model.bundle import candidate, load_bundle
from model.checkpoints import Checkpoints
from model.hosts import KEEP_MEMORY
from model.ranks import Ranks
from model.train_config import TrainConfig
from tests.killed import each_death
from tests.model_data import DS, small_shop, write_dataset

NOTE_ENVIRONMENT = """
import os, sys
if "LOCAL_RANK" in os.environ and "model.worker" in sys.orig_argv:
    with open({file!r}, "a") as noted:
        noted.write(os.environ.get("MALLOC_TRIM_THRESHOLD_", "unset") + "\\n")
"""


@pytest.fixture
def shop_root(root):
    write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    return root


def run(root, *more: str) -> int:
    arguments = ["--root", str(root), "--ds", str(DS), "--preset", "tiny", "--epochs", "1", "--device", "cpu"]
    return train.main([*arguments, *more])


def test_two_ranks_under_the_launcher_leave_a_bundle_as_candidate(shop_root, monkeypatch):
    port = launch.free_port()
    monkeypatch.setattr(launch, "free_port", lambda: port)
    assert run(shop_root, "--layers-from", "0.5") == EXIT_OK
    path = candidate(Warehouse.at(str(shop_root)))
    bundle = load_bundle(path)
    assert bundle.metrics["settings"]["ranks"] == 2
    assert bundle.metrics["counts"] == {"pairs": 301, "titles": 160, "corpus": 0, "heldout": 8, "known": 301}
    assert set(bundle.metrics["heldout"]) == set(bundle.metrics["untrained"]) == {"valid", "test"}
    assert bundle.metrics["slices"]["test"]["all"]["recall@10"][0] == bundle.metrics["heldout"]["test"]["recall@10"]
    assert set(bundle.metrics["languages"]) == {"latin", "chinese", "mixed"}
    assert bundle.metrics["scripts"] == {"latin": 160}
    assert bundle.metrics["curve"][-1][0] == bundle.metrics["settings"]["steps"]
    assert bundle.manifest["lineage"]["inputs"] == {"pairs": "delta:0"}
    assert bundle.manifest["lineage"]["dataset_digest"] == verify(shop_root / "datasets" / f"ds={DS}").digest
    assert bundle.encoder.projection.weight.abs().max() > 0
    assert bundle.encode(["red kettle"], "query").shape == (1, bundle.dim)
    assert list((shop_root / "checkpoints").iterdir()) == []
    assert not list(Path("/dev/shm").glob(f"deepspeed*_{port}_*"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_plain_torch_leaves_a_bundle_and_figures_too(shop_root, ranks, tmp_path, monkeypatch):
    # Python runs it in every process at its start.
    (tmp_path / "sitecustomize.py").write_text(NOTE_ENVIRONMENT.format(file=str(tmp_path / "noted")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (shop_root / "checkpoints" / "ds=2024-05-06" / "step-00000500").mkdir(parents=True)  # of a night that broke
    assert run(shop_root, "--engine", "torch", "--ranks", str(ranks)) == EXIT_OK
    bundle = load_bundle(candidate(Warehouse.at(str(shop_root))))
    assert [bundle.metrics["settings"][name] for name in ("engine", "ranks")] == ["torch", ranks]
    assert list((shop_root / "checkpoints").iterdir()) == []
    written = EventAccumulator(str(Warehouse.at(str(shop_root)).training_figures(DS))).Reload()
    steps = [event.step for event in written.Scalars("loss")]
    assert steps == [step for step, _ in bundle.metrics["curve"]]
    assert (tmp_path / "noted").read_text().split() == [KEEP_MEMORY["MALLOC_TRIM_THRESHOLD_"]] * ranks
    (found,) = written.Scalars("heldout/valid/recall_at_10")
    assert found.value == pytest.approx(bundle.metrics["heldout"]["valid"]["recall@10"])


def test_a_dataset_that_does_not_match_its_manifest_is_refused_by_file(shop_root, capsys):
    file = shop_root / "datasets" / f"ds={DS}" / "pairs" / "part-1.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert run(shop_root) == EXIT_BAD_INPUT
    assert "pairs/part-1.parquet has" in capsys.readouterr().err


@pytest.mark.fault("killed-at-boundary")
def test_a_dataset_that_a_killed_job_took_out_of_its_place_is_back_before_it_is_trained_on(shop_root, capsys):
    dataset = shop_root / "datasets" / f"ds={DS}"
    dataset.rename(dataset.with_name(f".{dataset.name}.old"))
    assert run(shop_root, "--ranks", "9") == EXIT_BAD_INPUT  # the first check after it
    assert "pairs/ has 4 files with rows in them for 9 ranks" in capsys.readouterr().err
    assert verify(dataset).rows("pairs") == 301


@pytest.fixture
def ended(shop_root, tmp_path, monkeypatch) -> tuple[TrainConfig, str]:
    """Settings of a training of one rank that has done its work, in this process, and the id of the bundle it made."""
    settings = TrainConfig(
        root=str(shop_root), ds=DS, preset="tiny", epochs=1.0, save_every=3, engine="torch", device="cpu", ranks=1
    )
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch.free_port())}
    for name, value in {**place, "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)
    worker.run(settings, tmp_path)
    return settings, json.loads((tmp_path / worker.RESULT_FILE).read_text())["bundle"]


@pytest.mark.fault("killed-at-boundary")
def test_a_training_that_is_killed_after_its_ranks_have_ended_leaves_a_candidate_or_whole_checkpoints(
    ended, tmp_path, monkeypatch
):
    settings, made = ended
    warehouse = Warehouse.of(settings)
    monkeypatch.setattr(train, "_launch", lambda *_: made)  # the ranks have done theirs
    shutil.copytree(warehouse.checkpoints, tmp_path / "kept")
    alias, place = warehouse.bundles / "candidate.json", warehouse.training_checkpoints(DS)

    def lay_down() -> None:
        alias.unlink(missing_ok=True)
        shutil.rmtree(warehouse.checkpoints)
        shutil.copytree(tmp_path / "kept", warehouse.checkpoints)

    left = []
    for _ in each_death(lay_down, lambda _: train.run(settings)):
        named, found = candidate(warehouse), Checkpoints(place, Ranks()).newest()
        left.append((named is not None, found is not None))
        assert named is None or load_bundle(named).id == made
    assert list(dict.fromkeys(left)) == [(False, True), (True, True), (True, False)]
    assert list(warehouse.checkpoints.iterdir()) == []


def test_ranks_wait_for_one_that_hashes_for_longer_than_their_time_out():
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=dt.timedelta(seconds=0.5), wait_for_workers=False)
    first = threading.Thread(target=worker.wait_unhurried, args=(store, 2))
    first.start()
    first.join(1.5)
    assert first.is_alive()
    other = dist.TCPStore("127.0.0.1", store.port, is_master=False, timeout=dt.timedelta(seconds=30))
    worker.wait_unhurried(other, 2)
    first.join(10)
    assert not first.is_alive()


def two_ranks(shop_root: Path, verifying: str, minutes: float) -> list[subprocess.Popen[bytes]]:
    """Ranks of plain torch that no launcher watches; what is said to be verifying stands for ``verify`` of the first."""
    code = (
        "import os, signal, sys, time; from model import worker; verify = worker.verify; "
        f"worker.verify = lambda path: {verifying}; sys.exit(worker.main(sys.argv[1:]))"
    )
    settings = TrainConfig(
        root=str(shop_root), ds=DS, preset="tiny", epochs=1.0, engine="torch", device="cpu", timeout_minutes=minutes
    )
    (shop_root / "settings.json").write_text(settings.model_dump_json())
    variables = launch.environment(2, "cpu", local=True) | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch.free_port()), "WORLD_SIZE": "2",
    }  # fmt: skip
    argv = [sys.executable, "-c", code, "--settings", str(shop_root / "settings.json")]
    pipe = subprocess.PIPE
    return [
        subprocess.Popen(argv, env=variables | {"RANK": str(n), "LOCAL_RANK": str(n)}, stdin=pipe, stderr=pipe)
        for n in (0, 1)
    ]


@pytest.mark.slow
def test_a_dataset_that_is_hashed_for_longer_than_the_time_out_is_trained_on(shop_root):
    ranks = two_ranks(shop_root, "time.sleep(30) or verify(path)", minutes=1 / 3)
    said = [rank.communicate(timeout=200)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [EXIT_OK, EXIT_OK], said


@pytest.mark.slow
@pytest.mark.fault("killed-rank")
@pytest.mark.fault("link-cut")
@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL"])
def test_a_rank_that_waits_for_one_that_is_gone_or_out_of_reach_while_it_hashes_ends_in_bounded_time(shop_root, number):
    gone, waiting = two_ranks(shop_root, f"os.kill(os.getpid(), signal.{number})", minutes=1 / 3)
    try:
        _, said = waiting.communicate(timeout=120)
    finally:
        gone.kill()
    assert waiting.returncode == EXIT_BUG
    assert number == "SIGKILL" or b"not every rank has verified the dataset in 0.7 minutes" in said


def test_a_missing_dataset_and_one_without_manifest_are_refused(root, shop_root, capsys):
    (shop_root / "datasets" / f"ds={DS}" / "manifest.json").unlink()
    assert run(shop_root) == EXIT_BAD_INPUT
    assert "has no manifest.json" in capsys.readouterr().err
    assert run(shop_root, "--ds", "2024-05-08") == EXIT_BAD_INPUT
    assert "labeller dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--preset", "nope"], "preset: Input should be 'published'"),
        (["--preset", "published"], "needs wordpiece tokens"),
        (["--matryoshka", "16", "32"], "vectors are 32 wide, by the preset or by dim"),
        (["--matryoshka", "64"], "the whole is always trained): give 16, or a larger dim"),
        (["--ranks", "9"], "pairs/ has 4 files with rows in them for 9 ranks"),
        (["--epochs", "0"], "epochs"),
        (["--deepspeed-config", "/nowhere.json"], "cannot be read"),
        (["--batch", "1000"], "batch is 1000 pairs a rank, and each of 2 ranks has"),
        (["--engine", "torch", "--hostfile", "hosts"], "hostfile is for --engine deepspeed"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_launch(shop_root, capsys, more, message):
    assert run(shop_root, *more) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


@pytest.mark.fault("uneven-shards")
def test_files_that_ranks_share_unequally_are_a_warning_with_the_cure(root, caplog):
    write_dataset(root / "datasets" / f"ds={DS}", small_shop(), files=3)
    assert run(root, "--ranks", "2", "--batch", "1000") == EXIT_BAD_INPUT  # the first check after it
    assert "pairs: 3 files on 2 ranks leave 34% of the rows out of each epoch" in caplog.text
    assert "build the dataset with --ranks a multiple of these" in caplog.text


def test_the_exit_code_of_a_command_comes_back():
    variables = dict(os.environ)
    assert launch.run_watched([sys.executable, "-c", "import sys; sys.exit(7)"], variables) == 7
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert launch.run_watched([sys.executable, "-c", killed], variables) == 128 + 9


def test_termination_takes_the_children_along(tmp_path):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    watched = f"launch.run_watched([sys.executable, '-c', {child!r}], os.environ)"
    parent = f"import os, sys; from model import launch; sys.exit({watched})"
    process = subprocess.Popen([sys.executable, "-c", parent])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.slow
def test_storage_that_hangs_ends_the_training_of_all_ranks_with_the_files_it_waits_for(root):
    # Four files a rank, the last of which is opened a hundred steps after the first line of the log at the earliest.
    write_dataset(root / "datasets" / f"ds={DS}", small_shop(titles=6000, clicks=20_000), files=8)
    flags = "--preset tiny --epochs 2 --device cpu --crops 0 --batch 8 --read-ahead 1 --shuffle-rows 8 --reader-timeout-s 2"
    argv = [sys.executable, "-m", "model.train", "--root", str(root), "--ds", str(DS), *flags.split()]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if "progress: step" in line:
                    break
            for path in (root / "datasets" / f"ds={DS}" / "pairs").glob("part-*.parquet"):
                os.mkfifo(root / "pipe")  # to open it blocks until somebody writes to it
                (root / "pipe").rename(path)
            said += process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == EXIT_BUG, "".join(said)
    assert "no row group came within 2 s (pairs, epoch" in "".join(said), "".join(said)[-6000:]


@pytest.mark.slow
def test_ranks_of_a_command_that_was_killed_end(shop_root):
    flags = "--preset tiny --epochs 4000 --device cpu --log-every 1 --save-every 0"
    argv = [sys.executable, "-m", "model.train", "--root", str(shop_root), "--ds", str(DS), *flags.split()]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert any("progress: step" in line for line in process.stderr)
        ranks = [
            child for child in psutil.Process(process.pid).children(recursive=True) if "model.worker" in child.cmdline()
        ]
        assert len(ranks) >= 2
        process.kill()
        _, alive = psutil.wait_procs(ranks, timeout=30)
        assert not alive


def test_ranks_share_the_cores_and_stay_on_the_loopback():
    variables = launch.environment(2, "cpu", local=True)
    assert int(variables["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)
    assert variables["DS_ACCELERATOR"] == "cpu"
    assert variables["GLOO_SOCKET_IFNAME"].startswith("lo")


def test_ranks_on_gpus_get_nothing_that_is_for_those_on_the_cpu(monkeypatch):
    for name in (*KEEP_MEMORY, "DS_ACCELERATOR", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    only_cpu = launch.environment(1, "cpu", local=True).keys() - launch.environment(1, "cuda", local=True).keys()
    assert only_cpu == {*KEEP_MEMORY, "DS_ACCELERATOR", "GLOO_SOCKET_IFNAME"}


def test_ranks_on_the_cpu_keep_their_memory_unless_somebody_set_it_otherwise(monkeypatch):
    for name in launch.KEEP_MEMORY:
        monkeypatch.delenv(name, raising=False)
    assert launch.KEEP_MEMORY.items() <= launch.environment(2, "cpu", local=True).items()
    assert not launch.KEEP_MEMORY.keys() & launch.environment(2, "cuda", local=True).keys()
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    assert launch.environment(2, "cpu", local=True)["MALLOC_MMAP_MAX_"] == "65536"


def test_the_launcher_is_deepspeeds_own():
    argv = launch.command("model.worker", ["--settings", "x.json"], ranks=3)
    assert argv[0].endswith("/bin/deepspeed")
    assert argv[argv.index("--num_accelerators") + 1] == "3"
    assert json.dumps(argv[-3:]) == '["model.worker", "--settings", "x.json"]'
