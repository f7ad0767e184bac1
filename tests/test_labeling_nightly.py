"""Whole nights on one small warehouse: what they write, what the next one changes, and a rerun does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import functions as F

from etl import contracts, tables
from etl.contracts import (
    ETL_COUNTS,
    ITEM_CATEGORIES,
    ITEM_EMBEDDINGS,
    ITEM_TERMS,
    LABELS_CURRENT,
    OUTPUTS,
    PAIRS,
    RELATED,
    RUNS,
    TITLE_GROUPS,
)
from etl.errors import EXIT_OK
from etl.text import normalise
from labeling import audit, embed_catalogue, predict, publish
from labeling.embed_catalogue import encode
from labeling.product_text import product_text, with_texts
from labeling.scoring import Scorer, ScoringSettings
from tests.labeling_data import taxonomy, vocabulary, write_small_bundle
from tests.rows import DS
from tests.small_night import NEXT, TITLES, TOMORROW, argv, live, live_version, night, rows

CHECKOUT = Path(__file__).resolve().parents[1]
ENCODING, SCORING = "labeling.embed_catalogue:encode_texts", "labeling.scoring:score_items"
LOCAL = ("--master", "local[2,4]")
CLUSTER = ("--master", "local-cluster[2,1,1024]")


@pytest.fixture
def shop(first_night: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    return Path(shutil.copytree(first_night, tmp_path / "warehouse"))


def test_every_item_has_one_outcome_with_terms_and_path_or_a_reason(first_night):
    terms = pl.read_delta(str(first_night / "item_terms"))
    outcomes = {row["item_id"]: row for row in terms.filter(pl.col("rank") <= 1).to_dicts()}
    assert set(outcomes) == set(TITLES)
    reasons = {k: r["reason"] for k, r in outcomes.items() if r["rank"] == 0}
    assert reasons == {"i7": "no_text", "i8": "no_text", "i9": "too_long"}
    assert {k: outcomes[k]["term_id"] for k in ("i1", "i3", "i4", "i5")} == {"i1": "t2", "i3": "t3", "i4": "t1", "i5": "t4"}
    assert terms.filter(pl.col("item_id") == "i6")["term_id"].sort().to_list() == ["t2", "t3"]
    assert outcomes["i1"]["runner_up_id"] in {"t1", "t3", "t4"}
    assert outcomes["i7"]["runner_up_id"] is None
    assert outcomes["i1"]["evidence"] == ["boil water", "kettle", "tea"]
    assert outcomes["i1"]["run_id"].startswith(f"{DS}-")
    categories = {row["item_id"]: row for row in pl.read_delta(str(first_night / "item_categories")).to_dicts()}
    assert set(categories) == set(TITLES)
    assert categories["i5"]["path_ids"] == ["h", "h2", "h21"]
    assert [categories["i5"][f"level_{n}"] for n in (1, 3, 4)] == ["Home", "Table lamp", None]
    assert categories["i7"]["stopped"] == "no_text"


def test_equal_texts_are_encoded_once(first_night):
    vectors = pl.read_delta(str(first_night / ITEM_EMBEDDINGS.name))
    assert sorted(vectors["text_hash"]) == sorted({product_text(title, normalise).text_hash for title in TITLES.values()})


def test_the_log_of_runs_says_how_long_the_encoding_took_and_that_the_memory_was_enough(first_night):
    (row,) = pl.read_delta(str(first_night / RUNS.name)).filter(pl.col("stage") == "embed").to_dicts()
    counts = json.loads(row["counts"])
    assert (counts["encoded"], counts["halved_calls"]) == (7, 0)
    assert 0 < counts["encoding_seconds"] < row["seconds"]


def test_what_is_live_after_the_first_night(first_night):
    found = live(first_night)
    assert set(found) == set(TITLES)
    assert (found["i1"]["term"], found["i1"]["term_source"]) == ("kettle", "model")
    assert found["i9"]["term_reason"] == found["i9"]["category_reason"] == "too_long"


@pytest.mark.slow
def test_the_next_night_encodes_and_changes_what_is_new_only(spark, shop):
    encoded, version = len(pl.read_delta(str(shop / ITEM_EMBEDDINGS.name))), live_version(spark, shop)
    assert night(shop, NEXT) == [EXIT_OK] * 4
    assert len(pl.read_delta(str(shop / ITEM_EMBEDDINGS.name))) == encoded + 2
    found = live(shop)
    assert set(found) == set(TOMORROW)
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", version + 1)
    changes = {(r["item_id"], r["_change_type"]) for r in feed.load(str(shop / LABELS_CURRENT.name)).collect()}
    assert changes == {("i3", "update_preimage"), ("i3", "update_postimage"), ("i5", "delete"), ("i10", "insert")}
    assert {row["ds"] for k, row in found.items() if k not in ("i3", "i10")} == {DS}

    # An older day goes into the history only, and a rerun of what is live makes no commit.
    version, before = live_version(spark, shop), rows(spark, shop, ITEM_TERMS)
    assert [publish.main(argv(shop, ds)) for ds in (DS, NEXT)] == [EXIT_OK, EXIT_OK]
    assert live_version(spark, shop) == version
    assert live(shop) == found
    assert rows(spark, shop, ITEM_TERMS) == before


@pytest.mark.slow
def test_a_rerun_from_the_pairs_on_changes_no_row(spark, shop):
    names = [table for table in OUTPUTS if table is not RUNS and table not in RELATED]
    before = {table.name: rows(spark, shop, table) for table in names if table not in (PAIRS, TITLE_GROUPS, ETL_COUNTS)}
    version = tables.latest_version(spark, str(shop / PAIRS.name))
    found = tables.read(spark, str(shop / PAIRS.name), PAIRS, ds=DS).orderBy(F.desc("query")).localCheckpoint()
    tables.write_slice(found, str(shop / PAIRS.name), PAIRS, {"ds": DS})
    assert tables.latest_version(spark, str(shop / PAIRS.name)) > version
    assert night(shop) == [EXIT_OK] * 4
    assert {name: rows(spark, shop, getattr(contracts, name.upper())) for name in before} == before


@pytest.mark.slow
def test_vectors_and_labels_are_the_same_at_any_partitioning(spark, root):
    bundle = write_small_bundle(root)
    settings = ScoringSettings(
        min_probability=0.2, max_gap=0.3, max_terms=3, max_similarity=0.9, min_step_probability=0.3, min_letters=2
    )
    scorer = Scorer.build(bundle, vocabulary(), taxonomy(), settings)
    titles = [(f"i{n:03}", f"{('kettle', 'dress', 'table lamp', 'sofa')[n % 4]} {n * 37 % 101} cm") for n in range(150)]
    raw = spark.createDataFrame([*titles, ("i999", None)], "item_id string, title string")
    texts = raw.withColumn("text", F.col("title")).transform(with_texts(normalise)).persist()
    found = []
    for partitions in (1, 7, 64):
        distinct = texts.select("text_hash", "text", "reason").dropDuplicates(["text_hash"])
        vectors = encode(distinct, bundle, partitions).persist()
        items = texts.drop("reason").join(vectors, on="text_hash").withColumn("evidence", F.lit(None).cast("array<string>"))
        items = items.withColumn("clicked", F.expr("IF(item_id < 'i050', map(1, 2), NULL)"))
        labels = predict.score(items, scorer, partitions)
        assert labels.rdd.getNumPartitions() == partitions
        found.append([sorted(map(str, frame.collect())) for frame in (vectors, labels)])
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]) == 151


def test_what_the_encoder_failed_on_is_tried_again(spark, shop):
    path = str(shop / ITEM_EMBEDDINGS.name)
    kettle = product_text(TITLES["i1"], normalise).text_hash
    expected = rows(spark, shop, ITEM_EMBEDDINGS)
    spark.sql(f"UPDATE delta.`{path}` SET vector = NULL, reason = 'not_encodable' WHERE text_hash = '{kettle}'")
    assert embed_catalogue.main(argv(shop)) == EXIT_OK
    assert rows(spark, shop, ITEM_EMBEDDINGS) == expected


@pytest.mark.slow
def test_a_half_declared_absent_is_skipped_and_said(spark, shop):
    shutil.rmtree(shop / "item_categories")
    shutil.rmtree(shop / "taxonomy")
    (shop / "warehouse.toml").write_text('[warehouse]\nabsent = ["taxonomy"]\n')
    assert [job.main(argv(shop)) for job in (predict, audit, publish)] == [EXIT_OK] * 3
    assert not (shop / ITEM_CATEGORIES.name).exists()
    found = live(shop)["i1"]
    assert (found["term"], found["category_path"], found["category_reason"]) == ("kettle", None, "no_taxonomy")
    assert found["taxonomy"] == ""


def disturbed(stage: str, root: Path, at: str, kill: list[str], times: int, *flags: str) -> list[str]:
    """Run a stage of which workers or executors are killed; returns what was, in turn."""
    deaths, temporary = root.with_name("deaths"), root.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    fault = ["--at", at, "--when", "after", "--kill", *kill, "--times", str(times), "--deaths", str(deaths)]
    command = [sys.executable, "-m", "tests.fault_worker", *fault, "--", stage, *argv(root, DS, "--driver-memory", "1g")]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(temporary)}
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_OK, done.stderr[-3000:]
    return deaths.read_text().split()


@pytest.mark.fault("killed-executor")
def test_python_workers_killed_twice_while_they_encode_change_no_row(spark, shop):
    expected = rows(spark, shop, ITEM_EMBEDDINGS)
    shutil.rmtree(shop / ITEM_EMBEDDINGS.name)
    assert disturbed("embed", shop, ENCODING, ["worker"], 2, *LOCAL) == ["worker"] * 2
    assert rows(spark, shop, ITEM_EMBEDDINGS) == expected


@pytest.mark.slow
@pytest.mark.fault("killed-executor")
@pytest.mark.parametrize("kill", [["worker"], ["executor"], ["worker", "executor"]], ids="+".join)
def test_executors_and_their_workers_killed_twice_each_while_they_encode_change_no_row(spark, shop, kill):
    expected = rows(spark, shop, ITEM_EMBEDDINGS)
    shutil.rmtree(shop / ITEM_EMBEDDINGS.name)
    assert disturbed("embed", shop, ENCODING, kill, 2 * len(kill), *CLUSTER) == kill * 2
    assert rows(spark, shop, ITEM_EMBEDDINGS) == expected


@pytest.mark.slow
@pytest.mark.fault("killed-executor")
@pytest.mark.parametrize(("kill", "master"), [("worker", LOCAL), ("executor", CLUSTER)])
def test_workers_and_executors_killed_twice_while_they_label_change_no_row(spark, shop, kill, master):
    expected = [rows(spark, shop, table, staged=True) for table in (ITEM_TERMS, ITEM_CATEGORIES)]
    shutil.rmtree(shop / "staging")
    assert disturbed("predict", shop, SCORING, [kill], 2, *master) == [kill] * 2
    assert [rows(spark, shop, table, staged=True) for table in (ITEM_TERMS, ITEM_CATEGORIES)] == expected


@pytest.mark.slow
def test_executors_of_their_own_write_the_same_rows(spark, shop):
    """A standalone cluster in small: the master is configuration, and tasks run in other processes than the driver."""
    tables_of = (ITEM_EMBEDDINGS, ITEM_TERMS, ITEM_CATEGORIES)
    expected = [rows(spark, shop, table) for table in tables_of]
    for table in tables_of:
        shutil.rmtree(shop / table.name)
    for stage in ("embed", "predict", "audit", "publish"):
        labeller = Path(sys.executable).with_name("labeller")
        command = [str(labeller), stage, *argv(shop, DS, "--master", "local-cluster[2,1,1024]", "--driver-memory", "1g")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == EXIT_OK, done.stderr[-3000:]
    assert [rows(spark, shop, table) for table in tables_of] == expected
