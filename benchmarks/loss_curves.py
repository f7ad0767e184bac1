"""Loss curves of one training: on one host, on two, killed and started again, killed and gone on with fewer ranks.

`labeller train` on a made-up shop, each run in a directory of its own under --root, where its output stays too. The hosts
are network namespaces of this machine with an sshd each, so two hosts have no more cores than one: run it as root. Killed
is one of two ranks, by signal 9, between two checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
from rich.table import Table

from benchmarks.curves_figure import Run, draw
from benchmarks.namespaces import PORT, PROGRAMS, Cluster, cluster, is_rank
from benchmarks.speed.training_data import DS, WORDHASH, Pairs, write
from etl.errors import InputError
from etl.job import configure_logging
from etl.tokenizer import WordHashTokenizer
from etl.warehouse import Warehouse
from labeling.machine import hardware
from labeling.terminal import console
from model.bundle import METRICS_FILE, candidate
from model.deepspeed_settings import OURS

RANKS, BATCH, STEPS_PER_EPOCH = 2, 64, 20
SAVE_EVERY = 10
FEWEST_STEPS = 4 * SAVE_EVERY
LOG_FILE = "output.log"
THINGS, WORDS_OF_THING, OTHER_WORDS = 200, 4, 100


def made_up_shop() -> Pairs:
    """Queries of two words of a thing, titles of two or three of them among words that say nothing: learnt in few steps."""
    rng = np.random.default_rng(0)
    letters = rng.integers(ord("a"), ord("z") + 1, (THINGS * WORDS_OF_THING + OTHER_WORDS, 6))
    words = ["".join(map(chr, row)) for row in letters]
    other = words[THINGS * WORDS_OF_THING :]

    def click() -> tuple[str, str]:
        first = WORDS_OF_THING * rng.integers(THINGS)
        own = words[first : first + WORDS_OF_THING]
        title = [*rng.choice(own, rng.integers(2, 4), replace=False), *rng.choice(other, 4, replace=False)]
        return " ".join(rng.choice(own, 2, replace=False)), " ".join(title)

    clicks = [click() for _ in range(RANKS * BATCH * STEPS_PER_EPOCH)]
    return Pairs(clicks, [title for _, title in clicks])


class Training:
    """One run: its command, in a warehouse of its own."""

    def __init__(self, root: Path, steps: int, *flags: str) -> None:
        self.root, self.steps = root, steps
        write(root, made_up_shop(), WordHashTokenizer(WORDHASH))
        epochs = (steps + 0.5) / STEPS_PER_EPOCH  # rounded down to steps
        what = ["--root", str(root), "--ds", str(DS), "--preset", "tiny", "--device", "cpu", "--epochs", str(epochs)]
        often = ["--log-every", "1", "--save-every", str(SAVE_EVERY)]
        self.argv = [sys.executable, "-m", "labeling.cli", "train", *what, *often, *flags]

    def run(self, ranks: int = RANKS) -> str:
        """Train to the end on this host, from the newest checkpoint if there is one; returns all that it says."""
        return self._followed(self._start(ranks))

    def run_on(self, hosts: Cluster) -> str:
        """As :meth:`run` on two hosts, a rank each."""
        flags = ["--hostfile", str(hosts.hostfile(RANKS)), "--ssh-port", str(PORT), "--batch", str(BATCH)]
        return self._followed(hosts.start([*self.argv, *flags]))

    def run_killed(self, step: int) -> int:
        """Train on this host until that step, then kill a rank, with which all end; returns the last step that was taken.

        Raises:
            RuntimeError: it ended otherwise.
        """
        last, process = 0, self._start(RANKS)
        ranks: list[int] = []
        for line in self._said(process):
            last = _number(r"progress: step (\d+)/", line) or last
            if last and not ranks:
                ranks = ranks_of(process)  # looked up before: that takes as long as some steps
            if last >= step and ranks:
                os.kill(ranks[0], signal.SIGKILL)
                step = self.steps + 1
        if process.returncode == 0 or last >= self.steps or step <= self.steps:
            raise RuntimeError(f"{self.root} was to be killed, but ended with {process.returncode} after step {last}")
        return last

    def curve(self) -> dict[int, float]:
        """Mean loss of all ranks by step."""
        bundle = candidate(Warehouse.at(str(self.root)))
        assert bundle is not None  # the command has ended well
        return dict(json.loads((bundle / METRICS_FILE).read_text(encoding="utf-8"))["curve"])

    def _start(self, ranks: int) -> subprocess.Popen[str]:
        argv = [*self.argv, "--ranks", str(ranks), "--batch", str(RANKS * BATCH // ranks)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _followed(self, process: subprocess.Popen[str]) -> str:
        """To its end; a failure is an error."""
        said = "".join(self._said(process))
        if process.returncode:
            raise RuntimeError(f"training ended with {process.returncode}, see {self.root / LOG_FILE}")
        return said

    def _said(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """Its lines, which are kept too; it has ended with them, or ends where we are ended."""
        assert process.stdout is not None
        with process, (self.root / LOG_FILE).open("a", buffering=1, encoding="utf-8") as log:
            try:
                for line in process.stdout:
                    log.write(line)
                    yield line
            except BaseException:
                process.terminate()  # `with` would wait for it
                raise


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the training ranks under a command."""
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True) if is_rank(child.pid)]


def _number(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    return int(match[1]) if match else None


def runs(root: Path, steps: int) -> Iterator[Run]:
    """All four, the first the one that the others are compared with."""
    one = Training(root / "one-host", steps)
    one.run()
    yield Run("one host, two ranks", one.curve())
    two = Training(root / "two-hosts", steps)
    (root / "hosts").mkdir()
    with cluster(root / "hosts", RANKS) as hosts:
        two.run_on(hosts)
    yield Run("two hosts, one rank each", two.curve())
    yield killed(Training(root / "killed", steps), "killed, started again", RANKS)
    # Going on with another number of ranks, ZeRO 1 to 3 put their parts together in DeepSpeed's universal format.
    zero = json.loads(OURS.read_text(encoding="utf-8"))
    zero["zero_optimization"]["stage"] = 1
    (root / "zero1.json").write_text(json.dumps(zero), encoding="utf-8")
    fewer = Training(root / "fewer-ranks", steps, "--deepspeed-config", str(root / "zero1.json"))
    yield killed(fewer, "killed (ZeRO 1), gone on with one rank", 1)


def killed(training: Training, name: str, ranks: int) -> Run:
    """A run that is killed between two checkpoints past its middle, and gone on with so many ranks."""
    # Soon after a checkpoint: until the signal arrives some more steps are taken.
    last = training.run_killed(training.steps // 2 + SAVE_EVERY // 5)
    resumed = _number(r"going on after step (\d+) from", training.run(ranks))
    if resumed is None:
        raise RuntimeError(f"{training.root} did not go on from a checkpoint, see its {LOG_FILE}")
    return Run(name, training.curve(), last, resumed)


def compared(found: Sequence[Run]) -> Table:
    """Greatest difference of each run's loss from the first one's, before and after it was gone on with."""
    title = f"{len(found[0].curve)} steps, two ranks of {BATCH} pairs, on {hardware()}"
    columns = ("run", "killed after", "gone on after", "greatest difference", "up to there")
    table = Table(*columns, title=title)
    for run in found:
        apart = run.differences(found[0])
        before = [value for step, value in apart.items() if run.resumed is not None and step <= run.resumed]
        kill = [f"step {step}" if step is not None else "" for step in (run.killed, run.resumed)]
        table.add_row(run.name, *kill, f"{max(apart.values()):.1e}", f"{max(before):.1e}" if before else "")
    return table


def require_able(variables: Mapping[str, str] = os.environ) -> None:
    """Refuse a machine on which no hosts can be made.

    Raises:
        InputError: not root, or programs are missing: all of them, by name.
    """
    lacking = [f"{name} on PATH" for name in PROGRAMS if shutil.which(name, path=variables.get("PATH")) is None]
    lacking += ["to be root"] * (os.geteuid() != 0)
    if lacking:
        raise InputError(f"two hosts need {', '.join(lacking)}: `make system-packages` as root installs what Debian has")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss_curves", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="directory for the runs, empty or not there yet")
    parser.add_argument("--steps", type=int, default=80, help="of each training, at least 40 (default: %(default)s)")
    parser.add_argument("--figure", type=Path, default=Path("docs/loss_curves.png"), help="(default: %(default)s)")
    args = parser.parse_args(argv)
    root = args.root.expanduser().resolve()
    configure_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # hosts would stay
    if args.steps < FEWEST_STEPS:
        parser.error(f"--steps {args.steps} are too few (expected >= {FEWEST_STEPS}: some checkpoints before the kill)")
    if root.exists() and any(root.iterdir()):
        parser.error(f"{root} is not empty: a training in it would go on from what is there; give another --root")
    try:
        require_able()
    except InputError as error:
        parser.error(str(error))
    root.mkdir(parents=True, exist_ok=True)
    found = list(runs(root, args.steps))
    draw(found, args.figure)
    console().print(compared(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
