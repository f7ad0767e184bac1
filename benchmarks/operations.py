"""A week of operating the tables, recorded: nights, a gate that refuses, a rollback, an override, a new word, a backfill.

`python -m benchmarks.operations --root DIR --out docs/operations.md` generates a sample shop under DIR and runs each
command as its user would. After each step DuckDB, which shares no code with the writer, says what the tables hold.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl

NIGHTS = tuple(dt.date(2024, 5, day) for day in (6, 7, 8))
TRAINING = ("dataset", "train", "calibrate", "promote")
LABELLING = ("embed", "predict", "audit", "publish", "relate", "report")
SHOWN = 14
"""Last lines of a command that are kept; whoever wants all of them runs it."""

_OF_SPARK = re.compile(r"WARNING: Using incubator|:: |Setting |\d\d/\d\d/\d\d ")

QUERIES = {
    "live": "SELECT count(*) AS items, count(term) AS with_term, count(*) FILTER (term_source = 'override') AS by_people "
    "FROM labels_current",
    "history": "SELECT ds, count(DISTINCT item_id) AS items, any_value(bundle) AS bundle, any_value(run_id) AS run "
    "FROM item_terms GROUP BY ds ORDER BY ds",
    "changes": "SELECT live_version, what, cause, count(*) AS rows FROM label_changes "
    "WHERE live_version = (SELECT max(live_version) FROM label_changes) GROUP BY ALL ORDER BY rows DESC, what, cause",
}


class Recorder:
    """Runs commands, and writes what they said and what the tables hold into a Markdown page."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out, self.last = root, out, dict.fromkeys(QUERIES, "")
        self.out.write_text(f"# {__doc__.splitlines()[0]}\n\n{HEAD}\n\n{machine()}\n", encoding="utf-8")

    def say(self, text: str) -> None:
        with self.out.open("a", encoding="utf-8") as page:
            page.write(text + "\n")

    def step(self, title: str, why: str) -> None:
        self.say(f"\n## {title}\n\n{why}\n")

    def run(self, *words: str, expected: int = 0, shown: int = 0) -> str:
        """Run `labeller WORDS`, note its exit code and seconds, and its last ``shown`` lines.

        Raises:
            RuntimeError: another exit code than ``expected``; with all that it said.
        """
        command = [words[0], *(words[1:2] if words[0] == "backfill" else ()), "--root", str(self.root)]
        command += words[2:] if words[0] == "backfill" else words[1:]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "labeling.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        print(f"{' '.join(words)}: {done.returncode}, {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode != expected:
            raise RuntimeError(f"{command} ended with {done.returncode} (expected {expected}):\n{done.stdout[-6000:]}")
        told = " ".join(command).replace(str(self.root), "ROOT")
        self.say(f"`labeller {told}` → {done.returncode}, {time.monotonic() - started:.0f} s\n")
        if shown:
            self.say("```\n" + "\n".join(self.readable(done.stdout)[-shown:]) + "\n```\n")
        return done.stdout

    def readable(self, output: str) -> list[str]:
        """Lines without Spark's own, and without where this machine keeps things."""
        lines = [line.rstrip().replace(str(self.root), "ROOT") for line in output.splitlines()]
        return [line for line in lines if line and not _OF_SPARK.match(line)]

    def tables(self) -> None:
        """What DuckDB finds; of what did not change since the last look nothing is said."""
        con = duckdb.connect()
        for table in ("labels_current", "item_terms", "label_changes"):
            con.register(table, pl.read_delta(str(self.root / table)).to_arrow())
        for name, query in QUERIES.items():
            found = as_markdown(con.sql(query))
            if found != self.last[name]:
                self.say(f"DuckDB, {name}:\n\n{found}\n")
            self.last[name] = found

    def night(self, ds: dt.date, stages: Sequence[str]) -> None:
        for stage in stages:
            self.run(stage, "--ds", str(ds))


def as_markdown(found: duckdb.DuckDBPyRelation) -> str:
    rows = [found.columns, ["---"] * len(found.columns), *found.fetchall()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


HEAD = """Made by `python -m benchmarks.operations`, on the generated sample shop; after each step DuckDB reads the tables
through delta-rs. Of a command the exit code, the seconds and, where they tell something, the last lines are shown."""


def machine() -> str:
    """The processor and how busy it was, without which seconds say nothing."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.+)", info)
    processor = found[1] if found else "an unknown processor"
    return f"Recorded on {os.cpu_count()} cores of {processor}, load {os.getloadavg()[0]:.1f} at the start."


@contextmanager
def rewritten(path: Path, change: pl.Expr) -> Iterator[None]:
    """A Parquet file whose rows are filtered meanwhile."""
    aside = path.with_name(f".{path.name}")
    shutil.copy2(path, aside)
    pl.read_parquet(aside).filter(change).write_parquet(path)
    try:
        yield
    finally:
        aside.replace(path)


def record(root: Path, out: Path, clicks: int) -> None:
    """Go through the sequence; any exit code but the one that is meant ends it."""
    page = Recorder(root, out)
    root.mkdir(parents=True, exist_ok=True)
    page.run("sample", "--ds", str(NIGHTS[-1]), "--clicks", str(clicks))
    nights(page)
    rollback(page)
    corrections(page)
    another_bundle(page)


def nights(page: Recorder) -> None:
    """Three of them, the last refused by its gate, mended and made."""
    first, second, third = NIGHTS
    page.step(
        "The first night",
        "No bundle yet: it trains, promotes, labels.",
    )
    page.night(first, ("check", "pairs", *TRAINING, *LABELLING))
    page.tables()

    page.step(
        "The second night",
        "The champion is a day old: nothing to train (99), and only changed titles are encoded.",
    )
    page.night(second, ("check", "pairs"))
    page.run("train-due", "--ds", str(second), expected=99)
    page.night(second, LABELLING)
    page.tables()

    page.step(
        "The third night: the gate refuses",
        "Two thirds of the catalogue's export are missing. The audit stops the night (3), yesterday stays live.",
    )
    with rewritten(page.root / "catalogue" / f"ds={third}" / "part-0.parquet", pl.col("item_id").hash(seed=0) % 3 == 0):
        page.night(third, ("check", "pairs", "embed", "predict"))
        page.run("audit", "--ds", str(third), expected=3, shown=SHOWN)
        page.run("publish", "--ds", str(third), expected=3, shown=1)
    page.tables()

    page.step(
        "The export is whole again",
        "The same commands; what was encoded is not encoded again.",
    )
    page.night(third, ("pairs", *LABELLING))
    page.tables()


def rollback(page: Recorder) -> None:
    """To the second night, and back to the third."""
    _, second, third = NIGHTS
    page.step(
        "A rollback, and back",
        "Somebody doubts the third night: a look first, then what the second left is live again, by one commit.",
    )
    page.run("rollback", "--to", str(second), "--dry-run", shown=SHOWN)
    page.run("rollback", "--to", str(second))
    page.run("status", "--now", str(third + dt.timedelta(days=1)), shown=8)
    page.tables()
    page.run("publish", "--ds", str(third), "--undo-rollback")
    page.tables()


def corrections(page: Recorder) -> None:
    """What people say of a label, and of the vocabulary."""
    third = NIGHTS[-1]
    page.step(
        "An override",
        "A person judged the day's sample: one term was wrong, and what they say wins.",
    )
    judge(page, third)
    page.run("publish", "--ds", str(third))
    page.tables()

    page.step(
        "A vocabulary change",
        "The merchandisers retire one term. Nothing is encoded; items that had it get another one, or none.",
    )
    retired = retire(page.root)
    page.say(f"Retired: {retired}.\n")
    page.night(third, ("predict", "audit", "publish"))
    page.tables()
    explain(page, third)


def another_bundle(page: Recorder) -> None:
    """The three days under a second bundle: looked at, made, and made again."""
    first, _, third = NIGHTS
    page.step(
        "Another bundle, and what it would change",
        "Trained from another seed, calibrated, not promoted. The three days are staged with it; nothing is live.",
    )
    page.run("dataset", "--ds", str(third))
    page.run("train", "--ds", str(third), "--seed", "1")
    page.run("calibrate", "--ds", str(third))
    bundle = json.loads((page.root / "bundles" / "candidate.json").read_text(encoding="utf-8"))["bundle"]
    days = ("--from", str(first), "--to", str(third), "--bundle", bundle)
    page.run("backfill", "plan", *days, shown=SHOWN)
    page.run("backfill", "run", *days, "--no-publish", shown=8)
    page.run("backfill", "diff", *days, "--examples", "2", shown=40)
    page.tables()

    page.step(
        "The backfill",
        "The three days again under that bundle: older ones into the history, the newest live too. Run again, "
        "it finds nothing to do.",
    )
    page.run("backfill", "run", *days, shown=8)
    page.tables()
    page.run("backfill", "run", *days, shown=4)
    page.run("report", "--ds", str(third))


def judge(page: Recorder, ds: dt.date) -> None:
    """Fill in the sheet of the day as a person would: what the truth says of each item's term, with one correction."""
    sheet = page.root / "judged.csv"
    page.run("review", "--ds", str(ds), "--export", str(sheet))
    names = dict(vocabulary(page.root).select("term_id", "term").iter_rows())
    truth = pl.read_parquet(page.root / "truth" / "item_terms" / "*.parquet").group_by("item_id").agg("term_id")
    true = {item: sorted(ids) for item, ids in truth.iter_rows()}
    rows = pl.read_csv(sheet, infer_schema=False)
    right = [row["term"] in {names[i] for i in true.get(row["item_id"], ())} for row in rows.iter_rows(named=True)]
    wrong = next(n for n, is_right in enumerate(right) if not is_right)
    instead = [true[item][0] if n == wrong else None for n, item in enumerate(rows["item_id"])]
    filled = rows.with_columns(
        pl.Series("term_right", ["yes" if is_right else "no" for is_right in right]),
        pl.Series("right_term", instead, dtype=pl.String),
        pl.lit("ann").alias("author"),
        pl.lit(f"{ds}T20:00:00").alias("at"),
    )
    filled.write_csv(sheet)
    page.run("review", "--ds", str(ds), "--file", str(sheet), shown=4)


def vocabulary(root: Path) -> pl.DataFrame:
    return pl.read_parquet(root / "vocabulary" / "part-0.parquet")


def retire(root: Path) -> str:
    """Make the third most frequent term inactive; returns its name."""
    labels = pl.read_delta(str(root / "labels_current")).filter(pl.col("term_source") == "model")
    name = labels["term"].drop_nulls().value_counts(sort=True)["term"][2]
    status = pl.when(pl.col("term") == name).then(pl.lit("retired")).otherwise("status").alias("status")
    vocabulary(root).with_columns(status).write_parquet(root / "vocabulary" / "part-0.parquet")
    return str(name)


def explain(page: Recorder, ds: dt.date) -> None:
    changes = pl.read_delta(str(page.root / "label_changes")).filter(
        (pl.col("ds") == ds) & (pl.col("cause") == "vocabulary")
    )
    newest = changes.filter(pl.col("live_version") == pl.col("live_version").max(), pl.col("new").is_not_null())
    page.run("explain", "--item", newest.sort("item_id")["item_id"][0], shown=30)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operations", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="directory for the sample shop; must not exist")
    parser.add_argument("--out", type=Path, required=True, help="Markdown page to write")
    parser.add_argument("--clicks", type=int, default=320_000, help="of the sample (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.root.exists():
        parser.error(f"{args.root} is there already: name a new directory")
    record(args.root.resolve(), args.out, args.clicks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
