"""Nights of the real DAG on a small generated shop: Airflow's own runner, every stage, every table."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl.contracts import INPUTS, OUTPUTS, TERM_CANDIDATES
from etl.text import normalise, words
from etl.tokenizer import token_id
from tests.airflow_env import airflow, program, run_dag
from tests.listening import LOOPBACK, Seen, watched

CHECKOUT = Path(__file__).resolve().parent.parent
LABELLER = str(CHECKOUT / ".venv" / "bin" / "labeller")
# What the generator types, by its looks alone, and what the fixture adds to the log, asked by as many users as any query.
PERSONAL = re.compile(
    r"user\d{6}@example|(?<![\d.])13\d{9}(?!\d)|212 555 \d{4}|(?<![\d.])4\d{15}(?!\d)|(?<!\d)110101\d{11}[\dX]"
)
SEEDED = ("zoe.geheim@mail.example.org", "call 139 8765 4321", "5500 0055 5555 5559", "DE89 3704 0044 0532 0130 00")
USERS = [f"u999900{n}" for n in range(6)]
SETTINGS = """
[spark]
checkpoint_dir = "CHECKPOINTS"
[pairs]
min_users = 2
window_days = 7
valid_share = 0.1
test_share = 0.1
[dataset]
rows = 4096
[train]
preset = "tiny"
epochs = 20
query_word_dropout = 0.1
"""


class Ran(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str
    processes: Mapping[int, Seen]
    """It and what it started, by their ids."""


def make(root: Path, target: str, **variables: str) -> Ran:
    """Run a target of the Makefile as a person would, with Airflow's state beside the warehouse."""
    given = [f"{name}={value}" for name, value in ({"ROOT": str(root)} | variables).items()]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(["make", target, *given], cwd=CHECKOUT, env=env, stdout=pipe, stderr=pipe, text=True) as process,
        watched(process.pid) as seen,
    ):
        out, err = process.communicate()
    return Ran(process.returncode, out, err, seen)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The warehouse after its first night, with what that printed."""
    root = tmp_path_factory.mktemp("shop")
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    (root / "warehouse.toml").write_text(SETTINGS.replace("CHECKPOINTS", str(checkpoints)))
    subprocess.run([LABELLER, "sample", "--root", str(root), "--clicks", "6000"], check=True, capture_output=True, text=True)
    seed_personal_data(root / "click_log" / "ds=2024-05-07")
    return {"root": root, "ran": [make(root, "nightly", DS="2024-05-07")], "checkpoints": checkpoints}


@pytest.fixture(scope="module")
def nights(night: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A copy of that warehouse after a second night."""
    root = tmp_path_factory.mktemp("copies") / "shop"
    shutil.copytree(night["root"], root)
    return night | {"root": root, "ran": [*night["ran"], make(root, "nightly", DS="2024-05-08")]}


def seed_personal_data(day: Path) -> None:
    """Add a file in which each of USERS clicks an item after typing each of SEEDED."""
    log = pl.read_parquet(next(day.glob("*.parquet")), hive_partitioning=False)
    click = log.filter((pl.col("event") == "click") & pl.col("dwell_ms").is_not_null()).head(1)
    rows = [
        click.with_columns(user_id=pl.lit(user), session_id=pl.lit(f"s{user[1:]}000000"), query=pl.lit(query))
        for user in USERS
        for query in SEEDED
    ]
    pl.concat(rows).write_parquet(day / "seeded.parquet")


def test_the_first_night_trains_labels_and_publishes_every_item(night: dict) -> None:
    assert night["ran"][0].returncode == 0, night["ran"][0].stdout[-4000:]
    items = pl.read_parquet(night["root"] / "catalogue" / "ds=2024-05-07" / "*.parquet")
    for table in ("item_terms", "item_categories"):
        rows = pl.read_delta(str(night["root"] / table)).filter(pl.col("ds") == pl.date(2024, 5, 7))
        assert set(rows["item_id"]) == set(items["item_id"])


def test_every_output_table_is_there_for_an_independent_reader(night: dict) -> None:
    for table in OUTPUTS:
        frame = pl.read_delta(str(night["root"] / table.name))
        assert frame.columns == list(table.names)
        # A shop of 6,000 clicks may well have no query that behaves like a term.
        assert frame.height >= 1 or table is TERM_CANDIDATES
        assert frame.select(table.keys).is_duplicated().sum() == 0


def test_the_night_ends_with_labels_figures_and_the_next_query(night: dict) -> None:
    printed = night["ran"][0].stdout
    for expected in ("recall@10", "hit@1", "lacks", "BM25", "dictionary", "oracle", "labels_current", "pl.read_delta"):
        assert expected.lower() in printed.lower(), expected


@pytest.mark.fault("loopback")
@pytest.mark.parametrize("upto", ["night", pytest.param("nights", marks=pytest.mark.slow)])
def test_nothing_of_a_night_listens_beyond_the_loopback(request: pytest.FixtureRequest, upto: str) -> None:
    seen = [process for ran in request.getfixturevalue(upto)["ran"] for process in ran.processes.values()]
    assert any("model.worker" in process.command for process in seen), "ranks of the training"
    assert sum(process.name == "java" and bool(process.listens) for process in seen) > 5, "Spark of each stage"
    for process in seen:
        assert process.listens <= LOOPBACK, process


@pytest.mark.slow
def test_the_next_night_uses_the_promoted_bundle_and_encodes_only_what_changed(nights: dict) -> None:
    second = nights["ran"][1]
    assert second.returncode == 0, second.stdout[-4000:]
    assert "nothing to do, or nothing promoted" in second.stdout
    champion = json.loads((nights["root"] / "bundles" / "champion.json").read_text())
    assert champion["ds"] == "2024-05-07"
    vectors = pl.read_delta(str(nights["root"] / "item_embeddings"))
    assert vectors["bundle"].unique().to_list() == [champion["bundle"]]
    by_day = vectors.group_by("first_ds").len().sort("first_ds")["len"].to_list()
    assert 0 < by_day[1] < by_day[0] / 10
    live = pl.read_delta(str(nights["root"] / "labels_current"))
    today = pl.read_parquet(nights["root"] / "catalogue" / "ds=2024-05-08" / "*.parquet")
    assert set(live["item_id"]) == set(today["item_id"])


@pytest.mark.parametrize(
    ("upto", "ds"), [("night", "2024-05-07"), pytest.param("nights", "2024-05-08", marks=pytest.mark.slow)]
)
def test_the_page_of_a_night_says_what_the_tables_say(request: pytest.FixtureRequest, upto: str, ds: str) -> None:
    root = request.getfixturevalue(upto)["root"]

    def table(name: str) -> pl.DataFrame:
        return pl.read_delta(str(root / name)).filter(pl.col("ds").cast(pl.String) == ds)

    page = (root / "reports" / f"ds={ds}" / "report.html").read_text()
    terms, changes, checks = table("item_terms").filter(pl.col("rank") <= 1), table("label_changes"), table("quality")
    expected = {
        "items": terms.height,
        "with-term": terms["term_id"].is_not_null().mean(),
        "changed": changes.filter(~pl.col("what").str.ends_with("_confidence")).height,
        "warnings": (~checks["passed"]).sum(),
    }
    found = dict(re.findall(r'<data class="number" id="([a-z-]+)" value="([^"]+)">', page))
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected)


def test_the_bundle_of_the_first_night_carries_its_card(night: dict) -> None:
    champion = json.loads((night["root"] / "bundles" / "champion.json").read_text())["bundle"]
    card = (night["root"] / "bundles" / champion / "MODEL_CARD.md").read_text()
    for said in ("Clicks of 7 days up to 2024-05-07", "at least 2 distinct users", "| personal_data | ", "Passed, on the"):
        assert said in card


@pytest.fixture
def second_night(night: dict, tmp_path: Path) -> tuple[Path, Path, dict]:
    """An Airflow of its own, a copy of the warehouse after its first night, and the parameters of the second."""
    assert airflow(tmp_path / "airflow", "db", "migrate").returncode == 0
    root = tmp_path / "shop"
    shutil.copytree(night["root"], root)
    return tmp_path / "airflow", root, {"root": str(root), "ds": "2024-05-08"}


def live_days(root: Path) -> list[str]:
    """Days of the commits of labels_current, newest first."""
    commits = (json.loads(commit.get("userMetadata", "{}")) for commit in DeltaTable(str(root / "labels_current")).history())
    return [commit["ds"] for commit in commits if commit.get("stage") == "publish"]


@pytest.mark.slow
def test_a_gate_that_fails_leaves_yesterday_live_and_the_run_red(second_night: tuple) -> None:
    home, root, conf = second_night
    with (root / "warehouse.toml").open("a") as settings:
        settings.write("[audit]\nmax_abstention = 0\n")
    before = pl.read_delta(str(root / "labels_current"))
    ended, printed = run_dag(home, "nightly_labeling", conf, LABELLER_BIN=LABELLER, LABELLER_RETRIES="2")
    assert ended != 0
    assert "labeller audit: gate refused: " in printed
    assert "starting task_id=labeling.publish" not in printed
    assert pl.read_delta(str(root / "labels_current")).equals(before)
    assert live_days(root)[0] == "2024-05-07"
    checks = pl.read_delta(str(root / "quality")).filter((pl.col("ds") == pl.date(2024, 5, 8)) & ~pl.col("passed"))
    assert "item_categories.abstention" in checks["check"].to_list()  # of this shop each item has a term
    page = (root / "reports" / "ds=2024-05-08" / "report.html").read_text()
    assert "Labels of 2024-05-08: failed" in page
    assert "it is staged only, and what was live before stays live" in page


@pytest.mark.slow
def test_a_stage_that_is_killed_is_tried_again_and_the_night_goes_live_once(second_night: tuple, tmp_path: Path) -> None:
    home, root, conf = second_night
    killed_once = program(
        tmp_path / "labeller",
        f"""#!/bin/bash
echo "$1" >>{tmp_path}/ran
if [ "$1" = predict ] && [ ! -e {tmp_path}/killed ]; then
  {LABELLER} "$@" &
  until grep -q predict {root}/locks/ds=2024-05-08.lock; do sleep .1; done
  touch {tmp_path}/killed
  kill -9 $!
  wait $!
  exit $?
fi
exec {LABELLER} "$@"
""",
    )
    again = {"LABELLER_RETRIES": "1", "LABELLER_RETRY_MINUTES": "0.02"}
    ended, printed = run_dag(home, "nightly_labeling", conf, LABELLER_BIN=killed_once, **again)
    assert ended == 0, printed[-3000:]
    assert "Command exited with return code 137" in printed
    assert (tmp_path / "ran").read_text().split().count("predict") == 2
    assert live_days(root) == ["2024-05-08", "2024-05-07"]
    live = pl.read_delta(str(root / "labels_current"))
    assert set(live["item_id"]) == set(pl.read_parquet(root / "catalogue" / "ds=2024-05-08" / "*.parquet")["item_id"])


@pytest.mark.slow
def test_the_backfill_dag_makes_a_day_shows_the_difference_and_then_publishes_it(second_night: tuple) -> None:
    home, root, _ = second_night
    conf = {"root": str(root), "from": "2024-05-07", "to": "2024-05-08"}
    ended, printed = run_dag(home, "backfill_labeling", conf, LABELLER_BIN=LABELLER)
    assert ended == 0, printed[-3000:]
    assert live_days(root) == ["2024-05-07"]
    assert "changed_items" in printed
    ended, printed = run_dag(home, "backfill_labeling", conf | {"until": "publish"}, LABELLER_BIN=LABELLER)
    assert ended == 0, printed[-3000:]
    assert live_days(root) == ["2024-05-08", "2024-05-07"]


@pytest.mark.slow
def test_no_stage_before_the_report_reads_the_truth(nights: dict, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    shutil.copytree(nights["root"], root)
    for path in (root / "truth").rglob("*"):
        if path.is_file():
            path.write_bytes(b"not what anyone should read")
    for stage in ("check", "pairs", "predict"):
        done = subprocess.run([LABELLER, stage, "--root", str(root), "--ds", "2024-05-08"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    report = subprocess.run([LABELLER, "report", "--root", str(root), "--ds", "2024-05-08"], capture_output=True, text=True)
    assert report.returncode != 0


def test_no_query_and_no_item_of_a_test_part_occurs_in_training(night: dict) -> None:
    dataset = night["root"] / "datasets" / "ds=2024-05-07"
    heldout = pl.read_parquet(dataset / "heldout" / "*.parquet")
    trained = pl.read_parquet(dataset / "pairs" / "*.parquet")
    shown = pl.concat([trained["title"], trained["title_cut"], pl.read_parquet(dataset / "titles" / "*.parquet")["title"]])
    corpus = pl.read_parquet(dataset / "corpus" / "*.parquet")
    queries = heldout.filter(pl.col("split").is_in(["valid", "test"]))
    assert {"valid", "test", "item"} <= set(heldout["split"])
    assert not set(queries["query"]) & set(trained["query"])
    assert corpus.height > 0
    assert not set(corpus["title"]) & set(shown)
    assert set(heldout.filter(pl.col("split") == "item")["title_ids"].explode()) <= set(corpus["title_id"])


@pytest.mark.slow
def test_another_day_of_clicks_moves_nothing_between_held_out_parts_and_training(nights: dict) -> None:
    pairs = pl.read_delta(str(nights["root"] / "pairs")).select("ds", "query_id", "title_id", "split")
    days = [pairs.filter(pl.col("ds") == pl.date(2024, 5, day)).unique(["query_id", "title_id"]) for day in (7, 8)]
    both = days[0].join(days[1], on=["query_id", "title_id"])
    moved = both.filter(pl.col("split") != pl.col("split_right"))
    assert both.height > 100
    # A text may come to lie near a held-out one, and is then used by nobody; nothing else changes.
    assert set(moved["split"]) | set(moved["split_right"]) <= {"train", "unused"}


@pytest.mark.parametrize("upto", ["night", pytest.param("nights", marks=pytest.mark.slow)])
def test_nothing_that_a_night_leaves_holds_personal_data_users_sessions_or_queries_of_few(
    request: pytest.FixtureRequest, upto: str, spark: SparkSession
) -> None:
    nights = request.getfixturevalue(upto)
    root = nights["root"]
    log = pl.read_parquet(root / "click_log" / "**" / "*.parquet")
    asked = log.filter(pl.col("event") != "impression").group_by("query").agg(pl.col("user_id").n_unique())
    secrets = {query for query in asked["query"].drop_nulls() if PERSONAL.search(query)} | set(SEEDED)
    assert set(SEEDED) <= set(asked["query"])
    published = set(pl.read_parquet(root / "catalogue" / "**" / "*.parquet")["title"].drop_nulls())
    published |= {form for row in pl.read_parquet(root / "vocabulary" / "*.parquet").rows() for form in (row[1], *row[2])}
    published |= set(pl.read_parquet(root / "taxonomy" / "*.parquet")["name"].drop_nulls())
    users = {}
    for query, n in asked.drop_nulls().rows():
        users[normalise(query)] = users.get(normalise(query), 0) + n
    rare = {query for query, n in users.items() if n < 2 and query} - {normalise(text) for text in published}
    # A log names days, tables and titles, and so holds words and parts of titles that few may have typed.
    public = "\n".join(normalise(text) for text in published)
    telling = {query for query in rare if " " in query and query not in public}
    said = re.compile(r"(?<!\w)(?:" + "|".join(re.escape(query) for query in sorted(telling)) + r")(?!\w)")
    assert len(secrets) > 5
    assert len(rare) > 20
    assert len(telling) > 20
    assert all(said.search(f"asked: {query}.") for query in telling)

    numbers = {
        word for query in secrets for word in words(normalise(query)) if len(word) > 5 and any(map(str.isdigit, word))
    }
    texts = secrets | numbers | {normalise(text) for text in secrets}
    found = re.compile(
        rb"\bu\d{7}\b|\bs\d{13}\b|" + b"|".join(re.escape(text.encode()) for text in sorted(texts)), re.IGNORECASE
    )
    people = pl.concat([log["user_id"], log["session_id"]]).drop_nulls().unique()
    assert set(USERS) <= set(people)
    hashes = spark.createDataFrame([(person,) for person in people], "id string").select(F.xxhash64("id"))
    hashed = {row[0] for row in hashes.collect()}
    assert len(hashed) > 1_000
    tokens = {token_id(word) for word in numbers}
    forbidden = hashed | tokens
    ids = {token.to_bytes(8, "little", signed=True) for token in tokens}
    inputs = {table.name for table in INPUTS} | {"truth", "sample.json", "warehouse.toml"}
    files = [f for f in root.rglob("*") if f.is_file() and f.relative_to(root).parts[0] not in inputs]
    assert len(files) > 100
    for file in files:
        texts, binaries = [file.read_bytes()], []
        if file.suffix == ".parquet":
            for column in pq.read_table(file).columns:
                cells = column.to_pylist()
                strings = {
                    text for cell in cells for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str)
                }
                assert not rare & strings, file
                assert not forbidden & {number for cell in cells for number in (cell if isinstance(cell, list) else [cell])
                                     if isinstance(number, int)}, file  # fmt: skip
                texts.append("\n".join(strings).encode())
                binaries += [cell for cell in cells if isinstance(cell, bytes)]
        for text in (*texts, *binaries):
            assert not found.search(text), file
        assert not ids & {cell[n : n + 8] for cell in binaries for n in range(0, len(cell), 8)}, file
    assert list(nights["checkpoints"].iterdir()) == []
    for ran in nights["ran"]:
        printed = ran.stdout + ran.stderr
        assert not found.search(printed.encode())
        assert not said.search(normalise(printed))


@pytest.mark.slow
def test_a_day_that_the_inputs_lack_is_refused_before_anything_is_written(night: dict) -> None:
    before = pl.read_delta(str(night["root"] / "labels_current"))
    done = make(night["root"], "nightly", DS="2024-06-01")
    assert done.returncode != 0
    assert "has 0 rows" in done.stdout
    assert "2024-05-08" in done.stdout
    assert pl.read_delta(str(night["root"] / "labels_current")).equals(before)


def test_a_warehouse_without_a_day_is_told_to_name_one(tmp_path: Path) -> None:
    done = make(tmp_path, "nightly")
    assert done.returncode != 0
    assert "say which day" in done.stderr
