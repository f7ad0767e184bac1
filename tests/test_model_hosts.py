"""Hostfiles, what of them is refused before the launch, and what ranks on other hosts are told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etl.errors import EXIT_BAD_INPUT, InputError
from model import launch, train
from model.hosts import ENVIRONMENT_FILE, Hosts, interface_towards, read_hostfile
from tests.model_data import DS, small_shop, write_dataset
from tests.needs import require_or_skip


@pytest.fixture
def hostfile(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "hostfile"
        file.write_text(text)
        return file

    return write


def test_a_hostfile_says_how_many_ranks_run_where(hostfile):
    file = hostfile("# two machines\n\nworker-0 slots=4\nme@10.0.0.2   slots=2  # half a machine\n")
    slots = read_hostfile(file)
    assert list(slots.items()) == [("worker-0", 4), ("me@10.0.0.2", 2)]
    assert Hosts(file=file, slots=slots).ranks == 6


def test_all_that_is_wrong_with_a_hostfile_is_said_at_once(hostfile):
    file = hostfile("one slots=1\ntwo\none slots=2\nthree slots=0\n-oProxyCommand=evil slots=1\na[1-3] slots=1\n")
    with pytest.raises(InputError, match="refused") as caught:
        read_hostfile(file)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"line {n}" for n in (2, 3, 4, 5, 6)]
    assert "one is there already" in caught.value.problems[1]


def test_a_hostfile_without_hosts_and_a_missing_one_are_refused(hostfile, tmp_path):
    with pytest.raises(InputError, match="names no host"):
        read_hostfile(hostfile("# nobody\n"))
    with pytest.raises(InputError, match=r"cannot be read: .*No such file"):
        read_hostfile(tmp_path / "nowhere")


def run(root: Path, *more: str) -> int:
    write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    return train.main(["--root", str(root), "--ds", str(DS), "--preset", "tiny", "--device", "cpu", *more])


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("one slots=1\n", ["--ranks", "2"], "ranks is 2, but the hostfile says"),
        ("one slots=4\ntwo slots=5\n", [], "pairs/ has 4 files with rows in them for 9 ranks"),
        ("one slots=1\ntwo slots=1\n", ["--batch", "200"], "each of 2 ranks has 150"),
        ("one slots\n", [], "expected NAME slots=N"),
    ],
)
def test_settings_that_hosts_cannot_work_with_are_refused(root, hostfile, capsys, text, more, message):
    assert run(root, "--hostfile", str(hostfile(text)), *more) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_missing_pdsh_is_named_with_its_cure(root, hostfile, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(root, "--hostfile", str(hostfile("one slots=1\n"))) == EXIT_BAD_INPUT
    assert "pdsh is not on PATH" in capsys.readouterr().err


def test_a_host_that_cannot_be_reached_is_named(root, hostfile, capsys):
    require_or_skip("pdsh", "ssh")
    assert run(root, "--hostfile", str(hostfile("127.0.0.1 slots=1\n")), "--ssh-port", "1") == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "not every host of" in said
    assert "127.0.0.1: ssh: connect to host 127.0.0.1 port 1: Connection refused" in said


def test_a_path_that_a_remote_shell_would_read_is_refused(hostfile, tmp_path):
    require_or_skip("pdsh", "ssh")
    hosts = Hosts(file=hostfile(""), slots={"one": 1})
    with pytest.raises(InputError, match=r"do not:\n  - .*shop of 2024"):
        hosts.meet([tmp_path, tmp_path / "shop of 2024"])


def test_other_hosts_are_told_what_ranks_need_and_nothing_else(hostfile, tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5")
    monkeypatch.setenv("SECRET", "s3cret")
    hosts = Hosts(file=hostfile(""), slots={"one": 1}, interface="eth1")
    hosts.write_environment(tmp_path, launch.environment(os.cpu_count() or 1, "cpu", local=False))
    told = dict(line.split("=", 1) for line in (tmp_path / ENVIRONMENT_FILE).read_text().splitlines())
    assert told.pop("PATH") == f"{Path(sys.executable).parent}:$PATH"
    for name, value in {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "NCCL_IB_HCA": "mlx5"}.items():
        assert told[name] == value
    assert told["GLOO_SOCKET_IFNAME"] == told["NCCL_SOCKET_IFNAME"] == "eth1"
    assert "SECRET" not in told


def test_this_machine_is_reached_by_its_loopback():
    assert interface_towards("127.0.0.1").startswith("lo")


def test_what_a_rank_has_against_its_input_is_said_by_the_command(root, tmp_path):
    write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    config = train.TrainConfig(root=str(root), ds=DS, preset="tiny", device="cpu")
    file = config.dataset / "pairs" / "part-1.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a training rank refused its input: .*\n.*pairs/part-1.parquet has"):
        train._launch(config, tmp_path, 1, None)


def test_deepspeeds_own_groups_have_the_time_out_of_the_settings():
    script = (
        "import torch; from model.worker import join; join('cpu', 0.5); from deepspeed.utils import groups; "
        "print(groups._clone_world_group()._get_backend(torch.device('cpu')).options._timeout)"
    )
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    env = launch.environment(1, "cpu", local=True) | alone | {"MASTER_PORT": str(launch.free_port())}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0:00:30"


@pytest.mark.slow
def test_a_build_lock_that_a_killed_rank_left_ends_the_next_training_instead_of_stopping_it(
    root, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "deepspeed_shm_comm").mkdir()
    (tmp_path / "deepspeed_shm_comm" / "lock").touch()
    with pytest.raises(train.TrainingFailed, match="exit code 1"):
        run(root, "--ranks", "1", "--timeout-minutes", "0.25")
    assert "were not met in 0.5 minutes" in capfd.readouterr().err
