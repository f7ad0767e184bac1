"""`labeller train --hostfile` on hosts that are network namespaces, by DeepSpeed's own ssh launcher over gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.namespaces import PORT, PROGRAMS, Cluster, cluster, gone_within
from etl.errors import EXIT_BUG, EXIT_OK
from etl.warehouse import Warehouse
from model.bundle import candidate, load_bundle
from model.precision import has_amx
from tests.model_data import DS, small_shop, write_dataset
from tests.needs import require_or_skip

LABELLER = str(Path(sys.executable).with_name("labeller"))
ENDLESS = ("--epochs", "4000", "--save-every", "0")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Cluster]:
    require_or_skip(*PROGRAMS, root=True)
    (tmp_path / "hosts").mkdir()
    with cluster(tmp_path / "hosts", 3) as made:
        yield made


@pytest.fixture
def shop_root(root: Path) -> Path:
    write_dataset(root / "datasets" / f"ds={DS}", small_shop(), files=6)
    return root


def train(root: Path, *more: str) -> list[str]:
    flags = ["--root", str(root), "--ds", str(DS), "--preset", "tiny", "--device", "cpu", "--log-every", "1"]
    return [LABELLER, "train", *flags, *more]


def on(hosts: Cluster, number: int, *more: str) -> list[str]:
    return ["--hostfile", str(hosts.hostfile(number)), "--ssh-port", str(PORT), *more]


def curve(root: Path) -> dict[int, float]:
    """Mean loss of all ranks by step, of the newest training."""
    return dict(load_bundle(candidate(Warehouse.at(str(root)))).metrics["curve"])


def until(process: subprocess.Popen[str], text: str) -> str:
    """What a process says up to a line with ``text``."""
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never said:\n{said}")


def ending(process: subprocess.Popen[str], seconds: float) -> str:
    """What a process says until it ends by itself, which must be within ``seconds``."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"still there after {seconds} s:\n{process.communicate()[0]}") from None


def same_curve_as_one_host(hosts: Cluster, number: int, root: Path, *more: str) -> None:
    process = hosts.start(train(root, *on(hosts, number, *more)))
    said = ending(process, 300)
    assert process.returncode == EXIT_OK, said
    assert f"training 'tiny' on {number} ranks (cpu) of {number} hosts" in said
    many = curve(root)
    subprocess.run(train(root, "--ranks", str(number)), check=True)
    assert list(many) == list(range(1, 17))
    assert curve(root) == {step: pytest.approx(loss, rel=2e-6) for step, loss in many.items()}


@pytest.mark.slow
def test_two_hosts_have_the_loss_curve_of_one(hosts, shop_root):
    same_curve_as_one_host(hosts, 2, shop_root)


@pytest.mark.slow
def test_three_hosts_that_are_told_their_interface_have_the_loss_curve_of_one(hosts, shop_root):
    same_curve_as_one_host(hosts, 3, shop_root, "--interface", "eth0", "--master-addr", "10.0.0.2", "--master-port", "29511")


@pytest.mark.slow
@pytest.mark.fault("killed-rank")
def test_a_rank_that_dies_before_it_met_the_others_ends_them_long_before_their_time_out(hosts, shop_root):
    process = hosts.start(train(shop_root, *on(hosts, 2, "--timeout-minutes", "60")))
    until(process, "one: ")  # its launcher has started
    deadline = time.monotonic() + 60
    while not hosts.ranks("two") and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(hosts.ranks("two")[0], signal.SIGKILL)
    said = ending(process, 60)
    assert process.returncode == EXIT_BUG, said
    assert "host two failed" in said
    assert gone_within(10, hosts)


@pytest.mark.slow
@pytest.mark.fault("killed-rank")
def test_a_rank_that_is_killed_ends_all(hosts, shop_root):
    process = hosts.start(train(shop_root, *on(hosts, 3, *ENDLESS)))
    until(process, "progress: step 3/")
    os.kill(hosts.ranks("three")[0], signal.SIGKILL)
    said = ending(process, 60)
    assert process.returncode == EXIT_BUG, said
    assert "host three failed" in said
    assert gone_within(10, hosts)


@pytest.mark.slow
@pytest.mark.fault("link-cut")
def test_a_cut_cable_ends_the_ranks_on_both_sides(hosts, shop_root):
    process = hosts.start(train(shop_root, *on(hosts, 3, *ENDLESS, "--timeout-minutes", "0.5")))
    until(process, "progress: step 3/")
    hosts.cut("two")
    cut = time.monotonic()
    said = ending(process, 90)
    assert process.returncode == EXIT_BUG, said
    assert "host two failed" in said
    assert gone_within(cut + 90 - time.monotonic(), hosts)
    assert not list(Warehouse.at(str(shop_root)).bundles.glob("*/manifest.json"))


@pytest.mark.slow
@pytest.mark.fault("link-cut")
def test_a_cable_that_is_cut_for_five_seconds_changes_no_loss(hosts, shop_root):
    process = hosts.start(train(shop_root, *on(hosts, 2)))
    until(process, "progress: step 3/")
    hosts.cut("two")
    time.sleep(5)
    hosts.mend("two")
    said = ending(process, 300)
    assert process.returncode == EXIT_OK, said
    cut = curve(shop_root)
    subprocess.run(train(shop_root, "--ranks", "2"), check=True)
    assert list(cut) == list(range(1, 17))
    assert curve(shop_root) == {step: pytest.approx(loss, rel=2e-6) for step, loss in cut.items()}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_the_command_all_ranks_end(hosts, shop_root, number):
    process = hosts.start(train(shop_root, *on(hosts, 2, *ENDLESS)))
    until(process, "progress: step 3/")
    assert len(hosts.ranks()) == 2
    process.send_signal(number)
    assert gone_within(30, hosts)
    ending(process, 30)
    assert process.returncode == (128 + number if number == signal.SIGTERM else -number)


def meet(hosts: Cluster, number: int, paths: str) -> list[str]:
    """A command that prints what is decided after hosts were reached."""
    code = (
        "import sys; from pathlib import Path; from model.hosts import Hosts, read_hostfile; file = Path(sys.argv[1]); "
        f"found = Hosts(file=file, slots=read_hostfile(file), ssh_port={PORT}).meet({paths}, 'auto'); "
        "print(found.hosts.master_addr, found.device, found.amx, found.threads)"
    )
    return [sys.executable, "-c", code, str(hosts.hostfile(number))]


def test_hosts_say_what_they_are(hosts):
    said = ending(hosts.start(meet(hosts, 2, "[Path('/bin')]")), 120)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert said.splitlines()[-1] == f"10.0.0.2 {device} {has_amx()} {len(os.sched_getaffinity(0))}"


@pytest.mark.fault("link-cut")
def test_a_host_that_lacks_a_path_or_is_not_there_is_named_before_the_launch(hosts):
    hosts.cut("three")
    process = hosts.start(meet(hosts, 3, "[Path('/bin'), Path('/nowhere')]"))
    said = ending(process, 60)
    assert process.returncode == EXIT_BUG
    assert "needed: ssh without a password, and the same paths" in said
    assert "two: reached by ssh, where it says \"ls: cannot access '/nowhere'" in said
    assert "three: `ssh -p 2222 three` says 'ssh: connect to host 10.0.0.4 port 2222" in said
