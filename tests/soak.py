"""Nights in a row on a small warehouse, with random faults between and inside them: `python -m tests.soak DIR`.

Each night is a process of its own; what must hold after it is looked at before the next. DIR/nights.jsonl gets a line a
night, and a run that was cut off goes on behind the last. At the end all files are made old, and upkeep must give the disk
back.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import psutil

from etl.contracts import CATALOGUE, CLICK_LOG, TAXONOMY, VOCABULARY, Table
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_TRY_LATER
from tests.labeling_data import NODES, TERMS, write_small_bundle
from tests.rows import event, item
from tests.small_disk import mounted

FIRST = dt.date(2024, 6, 1)
NIGHTS, ITEMS, CLICKS = 30, 60, 240
WINDOW = 3
CHAIN = ("pairs", "embed", "predict", "audit", "publish")
WORDS = ("kettle", "dress", "table lamp", "running shoes", "连衣裙")
POISON = "poisonous"
FAULTY = 0.6
"""Share of the nights that have a fault."""
DISK_MB = 600
CACHES = ("torchinductor_",)
"""What libraries keep in the temporary directory under one name, however often they run."""
POINTS = (
    ("pairs", "etl.tables:write_slice", "title_groups"),
    ("pairs", "etl.tables:write_slice", "pairs"),
    ("embed", "etl.tables:execute_merge", ""),
    ("predict", "etl.tables:write_slice", "item_terms"),
    ("predict", "etl.tables:write_slice", "item_categories"),
    ("audit", "etl.tables:write_slice", "quality"),
    ("publish", "labeling.publish:make_live", ""),
    ("publish", "labeling.label_changes:record_changes", ""),
    ("publish", "etl.runs:record_stage", ""),
)
TYPES = {
    "string": pl.String(),
    "timestamp": pl.Datetime("us", "UTC"),
    "int": pl.Int32(),
    "bigint": pl.Int64(),
    "date": pl.Date(),
    "array<string>": pl.List(pl.String()),
}


class Broken(AssertionError):
    """Something that must hold after a night does not."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a night was."""

    ds: str
    fault: str
    found: str
    """What the process under the fault came to."""
    items: int
    versions: int
    """Of labels_current."""
    disk_mb: float
    memory_mb: float
    """Most that one process of the undisturbed run held."""
    seconds: float


class Soak:
    """The warehouse of a soak, and the faults that it is put to."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.root = directory / "warehouse"
        self.temporary = directory / "tmp"
        self.log = directory / "nights.jsonl"
        self.seed = seed

    def prepare(self) -> None:
        """Lay down what does not change from night to night."""
        self.temporary.mkdir(exist_ok=True)
        if (self.root / "bundles").exists():
            return
        self.root.mkdir(exist_ok=True)
        self._write(VOCABULARY, TERMS)
        self._write(TAXONOMY, NODES)
        for days in range(1, WINDOW):
            self._write_clicks(FIRST - dt.timedelta(days=days))
        write_small_bundle(self.root, poison=POISON)

    def lay_down(self, night: int) -> None:
        """The inputs of a night: a third of the titles changed, some items gone, some back."""
        ds = day(night)
        titles = titles_of(night)
        self._write(CATALOGUE, [item(name, title, ds=ds) for name, title in titles.items()], ds)
        self._write_clicks(ds)

    def _write_clicks(self, ds: dt.date) -> None:
        noon = dt.datetime.combine(ds, dt.time(12), dt.UTC)
        rows = [
            event(WORDS[n % 5], f"i{n % ITEMS:02}", ds=ds, event_time=noon + dt.timedelta(seconds=n), user_id=f"u{n // 5}",
                  session_id=f"s{n}")
            for n in range(CLICKS)
        ]  # fmt: skip
        self._write(CLICK_LOG, rows, ds)

    def _write(self, table: Table, rows: Sequence[dict], ds: dt.date | None = None) -> None:
        columns = [column for column in table.columns if ds is None or column.name != "ds"]
        frame = pl.DataFrame(
            {column.name: [row.get(column.name) for row in rows] for column in columns},
            schema={column.name: TYPES[column.type] for column in columns},
        )
        directory = self.root / table.name / (f"ds={ds}" if ds else "")
        directory.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(directory / "part-0.parquet")

    # ------------------------------------------------------------ a night

    def start(self, ds: dt.date, *fault: str) -> subprocess.Popen[str]:
        """The night's commands, one after the other in one process, with a fault if one is given."""
        flags = ["--root", str(self.root), "--ds", str(ds), "--master", "local[2,4]"]
        commands = [word for stage in CHAIN for word in ("--", stage, *flags, *FLAGS.get(stage, ()))]
        argv = [sys.executable, "-m", "tests.fault_worker", *fault, *commands]
        env = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, ds: dt.date, *fault: str) -> tuple[int, str]:
        """Exit code and output of a night."""
        started = self.start(ds, *fault)
        said, _ = started.communicate()
        return started.returncode, said

    def quiet(self, ds: dt.date) -> float:
        """An undisturbed night; returns the most that a process of it held, MB."""
        started = self.start(ds)
        with peak_of(started.pid) as peak:
            said, _ = started.communicate()
        expect(started.returncode == EXIT_OK, f"{ds}: the undisturbed night ended with {started.returncode}", said)
        return peak[0] / 1e6

    # ------------------------------------------------------------ faults

    def killed_driver(self, ds: dt.date, chance: random.Random) -> str:
        """The driver dies at a boundary."""
        _, at, table = chance.choice(POINTS)
        when = chance.choice(("before", "after"))
        code, said = self.run(ds, "--at", at, "--when", when, *(["--table", table] if table else []))
        expect(code == -signal.SIGKILL, f"{ds}: it was to die {when} {at} {table}, and ended with {code}", said)
        return f"died {when} {at.split(':')[1]} {table}".strip()

    def killed_worker(self, ds: dt.date, chance: random.Random) -> str:
        """Python workers die while they encode; the night goes on."""
        deaths = self.temporary.parent / f"deaths-{ds}"
        where = "labeling.embed_catalogue:encode_texts"
        code, said = self.run(ds, "--at", where, "--kill", "worker", "--times", "2", "--deaths", str(deaths))
        expect(code == EXIT_OK, f"{ds}: with two workers killed it ended with {code}", said)
        return f"{len(deaths.read_text().splitlines())} workers died, and the night went on"

    def damaged_part(self, ds: dt.date, chance: random.Random) -> str:
        """The day's catalogue is cut short; whoever wrote it puts it there again."""
        file = self.root / f"catalogue/ds={ds}/part-0.parquet"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        code, said = self.run(ds)
        expect(code == EXIT_BAD_INPUT and file.name in said, f"{ds}: half a catalogue gave {code}", said)
        file.write_bytes(whole)
        return "refused, and the file named"

    def damaged_log(self, ds: dt.date, chance: random.Random) -> str:
        """The newest entry of a table's log is emptied; it is put back from a copy."""
        logs = sorted((self.root / "item_embeddings/_delta_log").glob("*.json"))
        if not logs:
            return "no table yet"
        whole = logs[-1].read_bytes()
        logs[-1].write_bytes(b"")
        code, said = self.run(ds)
        expect(code == EXIT_BAD_INPUT and "item_embeddings" in said, f"{ds}: an empty log entry gave {code}", said)
        logs[-1].write_bytes(whole)
        return "refused, and the table named"

    def twice_at_once(self, ds: dt.date, chance: random.Random) -> str:
        """The night is started twice."""
        both = [self.start(ds) for _ in range(2)]
        said = [one.communicate()[0] for one in both]
        codes = sorted(one.returncode for one in both)
        expect(codes in ([EXIT_OK, EXIT_TRY_LATER], [EXIT_OK, EXIT_OK]), f"{ds}: two at once gave {codes}", "\n".join(said))
        return f"ended with {codes[0]} and {codes[1]}"

    def full_disk(self, ds: dt.date, chance: random.Random) -> str:
        """The warehouse lies on a disk that is full, then has room."""
        if os.geteuid():
            return "not root: not tried"
        kept = self.root.with_name("kept")
        self.root.rename(kept)
        with mounted(self.root, DISK_MB) as disk:
            shutil.copytree(kept, self.root, dirs_exist_ok=True)
            disk.fill(leaving=chance.choice((0, 16_384, 131_072)))
            code, said = self.run(ds)
            expect(code == EXIT_TRY_LATER and "full" in said, f"{ds}: a full disk gave {code}", said)
            disk.free()
            self.quiet(ds)
            after = self.root.with_name("after")
            shutil.copytree(self.root, after, ignore=shutil.ignore_patterns("ballast"))
        self.root.rmdir()
        shutil.rmtree(kept)
        after.rename(self.root)
        return "one clear error; with room it went through"

    def poison(self, ds: dt.date, chance: random.Random) -> str:
        """One title makes the encoder fail: the night goes on without it."""
        file = self.root / f"catalogue/ds={ds}/part-0.parquet"
        frame = pl.read_parquet(file)
        at = chance.randrange(frame.height)
        frame.with_columns(
            title=pl.when(pl.int_range(pl.len()) == at).then(pl.lit(f"{POISON} {ds}")).otherwise("title")
        ).write_parquet(file)
        code, said = self.run(ds)
        expect(code == EXIT_OK, f"{ds}: one poison title gave {code}", said)
        rows = pl.read_delta(str(self.root / "item_terms")).filter(pl.col("ds") == ds)
        left_out = rows.filter(pl.col("reason") == "not_encodable").height
        expect(left_out == 1, f"{ds}: {left_out} items are not encodable, expected 1", "")
        return "one item without labels, with the reason"

    # ------------------------------------------------------------ what must hold

    def look(self, night: int) -> tuple[int, int]:
        """See that the newest day is live, once, with every item; returns items and versions of labels_current."""
        ds, items = day(night), len(titles_of(night))
        current = pl.read_delta(str(self.root / "labels_current"))
        expect(current["item_id"].n_unique() == current.height == items, f"{ds}: {current.height} live rows of {items}", "")
        expect(set(current["ds"]) == {ds}, f"{ds}: live are days {sorted(set(current['ds']))}", "")
        for n in range(night + 1):
            for table, key in (("item_terms", ["item_id", "rank"]), ("item_categories", ["item_id"])):
                rows = pl.scan_delta(str(self.root / table)).filter(pl.col("ds") == day(n)).collect()
                expect(rows["item_id"].n_unique() == len(titles_of(n)), f"{ds}: {table} of {day(n)} lacks items", "")
                expect(rows.select(key).is_unique().all(), f"{ds}: {table} of {day(n)} has rows twice", "")
        runs = pl.read_delta(str(self.root / "runs")).filter(pl.col("ds") == ds)
        expect(runs.select("stage", "run_id").is_unique().all(), f"{ds}: a stage is on record twice", "")
        expect(not psutil.Process().children(recursive=True), f"{ds}: processes are left", "")
        left = [path.name for path in self.temporary.iterdir() if not path.name.startswith(CACHES)]
        expect(not left, f"{ds}: files are left in the temporary directory: {left}", "")
        return current.height, len(list((self.root / "labels_current/_delta_log").glob("*.json")))

    def night(self, number: int) -> Line:
        """A night with or without a fault, and its rerun."""
        started, ds = time.monotonic(), day(number)
        chance = random.Random(f"{self.seed} {number}")
        self.lay_down(number)
        fault, found = "", ""
        if chance.random() < FAULTY:
            work: Callable[[dt.date, random.Random], str] = chance.choice(
                [self.killed_driver, self.killed_worker, self.damaged_part, self.damaged_log, self.twice_at_once,
                 self.full_disk, self.poison]
            )  # fmt: skip
            fault = work.__name__
            found = work(ds, chance)
        memory = self.quiet(ds)
        items, versions = self.look(number)
        line = Line(str(ds), fault, found, items, versions, round(size_mb(self.root), 1), round(memory),
                    round(time.monotonic() - started, 1))  # fmt: skip
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")
        make_older(self.root, days=1)
        return line

    def give_back(self, nights: int) -> tuple[float, float]:
        """MB before and after upkeep, a year later."""
        before = size_mb(self.root)
        make_older(self.root, days=365)
        flags = ["--root", str(self.root), "--ds", str(day(nights - 1)), "--master", "local[2,4]"]
        subprocess.run([sys.executable, "-m", "labeling.cli", "maintain", *flags], check=True)
        return before, size_mb(self.root)


FLAGS = {"pairs": ("--window-days", str(WINDOW)), "embed": ("--min-poison-items", "5")}


def day(night: int) -> dt.date:
    return FIRST + dt.timedelta(days=night)


def titles_of(night: int) -> dict[str, str]:
    kept = {f"i{n:02}": f"{WORDS[n % 5]} {n * 37 % 101 + (night if n % 3 == 0 else 0)} cm" for n in range(ITEMS)}
    return {name: title for name, title in kept.items() if (int(name[1:]) + night) % 7}


def expect(holds: bool, what: str, said: str) -> None:
    if not holds:
        raise Broken(f"{what}\n{said[-4000:]}")


def size_mb(root: Path) -> float:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e6


def make_older(root: Path, days: int) -> None:
    """Let every file seem so much older: vacuum goes by their times."""
    for path in root.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * 86_400
            os.utime(path, (then, then))


@contextlib.contextmanager
def peak_of(pid: int) -> Iterator[list[int]]:
    """Most bytes that one process of a tree is seen to hold resident, by a look each half second."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(pid)
                for process in (parent, *parent.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__, allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="of the warehouse and the log; one that is there is gone on with")
    parser.add_argument("--nights", type=int, default=NIGHTS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: %(default)s)")
    args = parser.parse_args(argv)
    args.directory.mkdir(parents=True, exist_ok=True)
    soak = Soak(args.directory, args.seed)
    soak.prepare()
    done = len(soak.log.read_text(encoding="utf-8").splitlines()) if soak.log.is_file() else 0
    for number in range(done, args.nights):
        print(json.dumps(asdict(soak.night(number))), flush=True)
    before, after = soak.give_back(args.nights)
    print(f"{args.nights} nights; upkeep a year later: {before:.0f} MB to {after:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
