"""Hostfiles, what of them is refused before the launch, and what ranks on other hosts are told."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from etl.errors import EXIT_BAD_INPUT, InputError
from model import hosts as hosts_module
from model import launch, train
from model.hosts import (
    ENVIRONMENT_FILE,
    KEEP_MEMORY,
    Hosts,
    ReachedHosts,
    interface_towards,
    labels,
    name_interface,
    read_hostfile,
)
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
        ("one slots=1\n", ["--node-rank", "0"], "node_rank is given without master_addr"),
        ("one slots=1\n", ["--node-rank", "1", "--master-addr", "one"], "names 1 hosts (expected 0 to one less)"),
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
    assert (
        "127.0.0.1: `ssh -p 1 127.0.0.1` says 'ssh: connect to host 127.0.0.1 port 1: Connection refused': see that" in said
    )
    assert "pdsh@" not in said


@pytest.mark.fault("malicious")
def test_a_path_that_a_remote_shell_would_read_is_refused(hostfile, tmp_path):
    require_or_skip("pdsh", "ssh")
    hosts = Hosts(file=hostfile(""), slots={"one": 1})
    with pytest.raises(InputError, match=r"do not:\n  - .*shop of 2024"):
        hosts.meet([tmp_path, tmp_path / "shop of 2024"], "cpu")


@pytest.mark.fault("malicious")
def test_other_hosts_are_told_what_ranks_need_and_nothing_else(hostfile, tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5")
    monkeypatch.setenv("SECRET", "s3cret")
    hosts = Hosts(file=hostfile(""), slots={"one": 1}, interface="eth1")
    hosts.write_environment(tmp_path, launch.environment(os.cpu_count() or 1, "cpu", local=False))
    told = dict(line.split("=", 1) for line in (tmp_path / ENVIRONMENT_FILE).read_text().splitlines())
    assert told.pop("PATH") == f"{Path(sys.executable).parent}:$PATH"
    for name, value in {
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "NCCL_IB_HCA": "mlx5",
    }.items():
        assert told[name] == value
    assert told["GLOO_SOCKET_IFNAME"] == told["NCCL_SOCKET_IFNAME"] == "eth1"
    assert "SECRET" not in told
    assert KEEP_MEMORY.items() <= told.items()


def test_waiting_threads_of_ranks_sleep_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert launch.environment(1, "cpu", local=True)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert launch.environment(1, "cpu", local=True)["OMP_WAIT_POLICY"] == "ACTIVE"


def reached(said: str, device: str = "auto", **settings) -> ReachedHosts:
    """From what pdsh would print of two hosts."""
    hosts = Hosts(file=Path("hostfile"), slots={"me@gpu-1.lan": 2, "gpu-2.lan": 4}, **settings)
    return hosts._reached(said, device)


def answers(host: str, gpus: int, amx: int = 1, cores: int = 16) -> str:
    return f"{host}: address 10.0.0.7 fd00::7\n{host}: cores {cores}\n{host}: amx {amx}\n{host}: gpus {gpus}\n"


def test_the_hosts_decide_where_and_how_all_ranks_train_and_not_the_machine_of_the_command():
    found = reached(answers("gpu-1", 8) + answers("gpu-2", 2))
    assert (found.device, found.threads, found.hosts.master_addr) == ("cuda", 4, "10.0.0.7")
    config = train.TrainConfig(root=".", ds=DS)
    for said, precision in [((0, 1), "bf16"), ((0, 0), "fp32")]:
        found = reached(answers("gpu-1", *said) + answers("gpu-2", 0))
        assert {"device": "cpu", "precision": precision}.items() <= train._pinned(config, found).items()
    assert train._pinned(config, reached(answers("gpu-1", 1) + answers("gpu-2", 1)))["device"] == "cuda"


def test_hosts_of_which_some_have_gpus_and_some_none_are_refused_by_name_unless_the_device_is_said():
    said = answers("gpu-1", 8) + answers("gpu-2", 0)
    with pytest.raises(InputError, match=r"GPUs on me@gpu-1.lan and none on gpu-2.lan .*: leave some out, .*--device cpu"):
        reached(said)
    assert reached(said, "cpu").device == "cpu"


def test_a_first_host_without_an_address_is_refused_unless_one_is_said():
    said = answers("gpu-1", 0).replace(" 10.0.0.7 fd00::7", "") + answers("gpu-2", 0)
    with pytest.raises(InputError, match=r"me@gpu-1.lan names no address of its own .*: give --master-addr"):
        reached(said)
    assert reached(said, master_addr="10.0.0.9").hosts.master_addr == "10.0.0.9"


def test_pdsh_calls_hosts_by_one_of_their_labels():
    require_or_skip("pdsh")
    for slots in (["me@a.lan", "b.lan"], ["a.lan", "b.net"], ["10.0.0.1", "10.0.0.2"], ["a.lan"]):
        argv = ["pdsh", "-R", "exec", "-w", ",".join(slots), "echo", "hello"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        found = {line.partition(": ")[0] for line in said.splitlines()}
        assert len(found) == len(slots)
        assert all(found & set(labels(host)) for host in slots)


def test_a_host_that_does_not_answer_in_time_is_refused(hostfile, tmp_path, monkeypatch):
    require_or_skip("pdsh", "ssh")
    monkeypatch.setattr(hosts_module, "MEETING_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its backlog
        hosts = Hosts(file=hostfile(""), slots={"127.0.0.1": 1}, ssh_port=silent.getsockname()[1])
        with pytest.raises(InputError, match="did not all answer in 1 s"):
            hosts.meet([tmp_path], "cpu")


def test_this_machine_is_reached_by_its_loopback_which_ranks_on_several_machines_refuse(monkeypatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert interface_towards("127.0.0.1").startswith("lo")
    with pytest.raises(InputError, match=r"rank 0 at 127.0.1.1 is lo.*give --master-addr"):
        name_interface("127.0.1.1", alone=False)
    name_interface("127.0.1.1", alone=True)
    assert os.environ["GLOO_SOCKET_IFNAME"].startswith("lo")


def test_ranks_that_are_told_their_interface_do_not_look_for_one(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    name_interface("127.0.1.1", alone=False)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


@pytest.mark.parametrize("address", ["fe80::1", "gpu-1.invalid"])
def test_an_address_without_a_way_by_ipv4_is_refused(address):
    with pytest.raises(InputError, match=rf"no way by IPv4 to rank 0 at {address} .*: give --master-addr an IPv4 address"):
        interface_towards(address)


def test_a_way_that_starts_at_an_address_of_no_interface_is_refused():
    require_or_skip("ip", "unshare", root=True)
    code = "from model.hosts import interface_towards; interface_towards('192.0.2.7')"
    script = f'ip link set lo up && ip route add local 192.0.2.0/24 dev lo && exec "{sys.executable}" -c "{code}"'
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert "rank 0 at 192.0.2.7 starts at 192.0.2.7, which no interface has (expected one of lo)" in done.stderr


def test_what_a_rank_has_against_its_input_is_said_by_the_command(root, tmp_path):
    write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    config = train.TrainConfig(root=str(root), ds=DS, preset="tiny", device="cpu")
    file = config.dataset / "pairs" / "part-1.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a training rank refused its input: .*\n.*pairs/part-1.parquet has"):
        train._launch(config, tmp_path, 1, None)


def alone(script: str) -> subprocess.CompletedProcess[str]:
    """Runs in a rank without others."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    env = launch.environment(1, "cpu", local=True) | place | {"MASTER_PORT": str(launch.free_port())}
    script += "\nfrom model.worker import leave; leave(0)"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_a_rank_that_is_done_leaves_with_all_that_it_said_and_no_teardown():
    said = alone("import atexit; atexit.register(print, 'torn down'); print('done', end='')").stdout
    assert said == "done"


def test_ranks_are_silent_about_deepspeeds_calls_of_what_torch_renamed_and_make_none_themselves():
    said = alone(
        "import torch, warnings; from model.worker import join; from model.ranks import _Gather; ranks = join('cpu', 0.5)\n"
        "for name in ('deepspeed.comm.torch', 'some.library'):\n"
        "    warnings.warn_explicit('`torch.distributed.x` is deprecated', FutureWarning, name, 1, name)\n"
        "_Gather.apply(torch.ones(2, dtype=torch.int64), ranks)\n"
        "_Gather.apply(torch.ones(2, dtype=torch.float64, requires_grad=True), ranks).sum().backward()\n"
    ).stderr
    assert "some.library:1: FutureWarning" in said
    assert said.count("FutureWarning") == 1, said


def test_deepspeeds_own_groups_have_the_time_out_of_the_settings():
    said = alone(
        "import torch; from model.worker import join; join('cpu', 0.5); from deepspeed.utils import groups; "
        "print(groups._clone_world_group()._get_backend(torch.device('cpu')).options._timeout)"
    ).stdout
    assert said.splitlines()[-1] == "0:00:30"


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
