"""Embed, predict, audit and publish on one small warehouse: real Spark, Delta, faiss and an untrained bundle."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import contracts, tables
from etl.contracts import (
    ANNOTATION_SAMPLE,
    CATALOGUE,
    ETL_COUNTS,
    ITEM_CATEGORIES,
    ITEM_EMBEDDINGS,
    ITEM_TERMS,
    LABELS_CURRENT,
    OUTPUTS,
    OVERRIDES,
    PAIRS,
    QUALITY,
    RELATED,
    RUNS,
    TAXONOMY,
    TITLE_GROUPS,
    VOCABULARY,
)
from etl.errors import EXIT_BAD_INPUT, EXIT_GATE_REFUSED, EXIT_OK
from etl.text import normalise
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict, publish, rollback
from labeling.embed_catalogue import encode
from labeling.live_log import live_state
from labeling.product_text import product_text, with_texts
from labeling.scoring import Scorer, ScoringSettings
from model.bundle import add_calibration
from tests.labeling_data import NODES, TERMS, pair, taxonomy, vocabulary, write_pairs, write_small_bundle
from tests.live_data import changes
from tests.rows import DS, item, lay_down, node, term

NEXT = DS + dt.timedelta(days=1)

TITLES = {
    "i1": "Steel kettle 1.7 l",
    "i2": "steel KETTLE  1.7 l",
    "i3": "Red dress, cotton",
    "i4": "Running shoes 39",
    "i5": "Brass table lamp",
    "i6": "Kettle and dress",
    "i7": None,
    "i8": "👟🔥",
    "i9": "shoe " * 200_000,
}


TOMORROW = {k: v for k, v in TITLES.items() if k != "i5"} | {"i3": "Table lamp, cotton shade", "i10": "Floor lamp"}


def argv(root: Path, ds: dt.date = DS, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(ds), *more]


def catalogue(titles: dict[str, str | None], ds: dt.date = DS) -> list[dict[str, Any]]:
    return [item(item_id, title, ds=ds) for item_id, title in titles.items()]


def warehouse(spark: SparkSession, root: Path, *more: dict[str, Any]) -> None:
    lay_down(spark, root, CATALOGUE, catalogue(TITLES) + list(more))
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, NODES)
    for ds in {DS, *(row["ds"] for row in more)}:
        clicks = [("boil water", 5.0), ("kettle", 2.0), ("tea", 2.0), ("gift", 1.0)]
        write_pairs(spark, root, [pair(query, "i1", TITLES["i1"], weight=w, ds=ds) for query, w in clicks])


@pytest.fixture(scope="module")
def first_night(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of two days, the first of which is live; tests work on a copy."""
    base = tmp_path_factory.mktemp("first") / "warehouse"
    base.mkdir()
    warehouse(spark, base, *catalogue(TOMORROW, NEXT))
    write_small_bundle(base)
    assert night(base) == [EXIT_OK] * 4
    return base


@pytest.fixture
def shop(first_night: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_night, tmp_path / "warehouse"))


def night(root: Path, ds: dt.date = DS) -> list[int]:
    """Exit codes of the four stages, up to the first that fails."""
    codes: list[int] = []
    for job in (embed_catalogue, predict, audit, publish):
        codes.append(job.main(argv(root, ds)))
        if codes[-1] != EXIT_OK:
            break
    return codes


def rows(spark: SparkSession, root: Path, table, *names: str, staged: bool = False) -> list[tuple]:
    where = Warehouse.at(str(root))
    frame = tables.read(spark, where.staged(table) if staged else where.table(table), table)
    return sorted(map(tuple, frame.select(*(names or table.names)).collect()), key=repr)


def live_version(spark: SparkSession, root: Path) -> int:
    return tables.latest_version(spark, str(root / LABELS_CURRENT.name))


def live(root: Path) -> dict[str, dict[str, Any]]:
    frame = pl.read_delta(str(root / LABELS_CURRENT.name))
    return {row["item_id"]: row for row in frame.to_dicts()}


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


def test_a_published_day_has_a_sample_of_its_labels_for_people_to_judge(first_night):
    sample = {row["item_id"]: row for row in pl.read_delta(str(first_night / ANNOTATION_SAMPLE.name)).to_dicts()}
    assert set(sample) == set(TITLES)  # of nine items all are drawn
    assert {row["inclusion"] for row in sample.values()} == {1.0}
    assert (sample["i1"]["term_id"], sample["i1"]["category_path"]) == ("t2", live(first_night)["i1"]["category_path"])
    assert (sample["i7"]["stratum"], sample["i7"]["term"]) == ("no term | no category", None)
    assert sample["i1"]["run_id"].startswith(f"{DS}-")


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


def test_a_newer_day_that_changed_no_label_still_keeps_older_ones_out(spark, root):
    where = Warehouse.at(str(root))
    assert live_state(where).newest is None
    days = {DS: 1, NEXT: 1, NEXT + dt.timedelta(days=1): 0}
    runs = [
        (ds, "publish", "r", "b", "c", "{}", f'{{"live": {went}}}', 1.0, dt.datetime(2024, 6, 1), None)
        for ds, went in days.items()
    ]
    tables.write_slice(spark.createDataFrame(runs, RUNS.ddl), where.table(RUNS), RUNS, {"stage": "publish"})
    assert live_state(where).newest == NEXT


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


def test_a_failed_audit_names_every_failure_and_leaves_the_live_labels_alone(spark, shop, capsys):
    before, history = live(shop), rows(spark, shop, ITEM_TERMS)
    staged = Warehouse.at(str(shop)).staged
    spark.sql(f"DELETE FROM delta.`{staged(ITEM_TERMS)}` WHERE item_id = 'i1'")
    spark.sql(f"UPDATE delta.`{staged(ITEM_CATEGORIES)}` SET path_ids = array('f', 'h2', 'h21') WHERE item_id = 'i5'")
    assert audit.main(argv(shop, DS, "--max-abstention", "0.1")) == EXIT_GATE_REFUSED
    said = capsys.readouterr().err
    for name in ("item_terms.items_without_outcome", "item_categories.paths_not_in_tree", "item_terms.abstention"):
        assert name in said
    assert publish.main(argv(shop)) == EXIT_GATE_REFUSED
    assert live(shop) == before
    assert rows(spark, shop, ITEM_TERMS) == history
    failed = tables.read(spark, str(shop / QUALITY.name), QUALITY).where("hard AND NOT passed")
    assert failed.count() == 4  # both halves abstain on 3 of 9 items, one item lacks its row, one path is torn


def test_only_a_run_that_was_audited_is_published(spark, shop, capsys):
    before = live(shop)
    assert predict.main(argv(shop, DS, "--max-terms", "1")) == EXIT_OK  # another run than the audited one
    assert publish.main(argv(shop)) == EXIT_BAD_INPUT
    assert "run `labeller audit` first" in capsys.readouterr().err
    assert live(shop) == before


def test_rows_staged_after_the_audit_are_not_published(spark, shop, capsys):
    before = live(shop)
    spark.sql(f"UPDATE delta.`{Warehouse.at(str(shop)).staged(ITEM_TERMS)}` SET score = 0.5 WHERE item_id = 'i1'")
    assert publish.main(argv(shop)) == EXIT_BAD_INPUT
    assert "is not what was audited: other rows in item_terms; run `labeller audit` again" in capsys.readouterr().err
    assert live(shop) == before


def test_inputs_that_changed_after_the_labelling_stop_the_publishing(spark, shop, capsys):
    before, history = live(shop), rows(spark, shop, ITEM_TERMS)
    lay_down(spark, shop, CATALOGUE, catalogue(TITLES | {"i1": "Another thing"}))
    lay_down(spark, shop, VOCABULARY, [*TERMS, term("t9", "spoon")])
    assert publish.main(argv(shop)) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "catalogue is of version 'rows:" in said
    assert "vocabulary is of version" in said
    assert (live(shop), rows(spark, shop, ITEM_TERMS)) == (before, history)


def test_what_the_encoder_failed_on_is_tried_again(spark, shop):
    path = str(shop / ITEM_EMBEDDINGS.name)
    kettle = product_text(TITLES["i1"], normalise).text_hash
    expected = rows(spark, shop, ITEM_EMBEDDINGS)
    spark.sql(f"UPDATE delta.`{path}` SET vector = NULL, reason = 'not_encodable' WHERE text_hash = '{kettle}'")
    assert embed_catalogue.main(argv(shop)) == EXIT_OK
    assert rows(spark, shop, ITEM_EMBEDDINGS) == expected


def test_overrides_win_while_they_hold_and_unknown_ones_are_left_out(spark, shop):
    def override(item: str, what: str, value: str, day: int, until: int | None = None, by: str = "ann") -> dict[str, Any]:
        at, end = (dt.datetime(2024, 5, d) if d else None for d in (day, until))
        return {"item_id": item, "what": what, "value": value, "author": by, "at": at, "until": end}

    given = [
        override("i1", "term", "t3", 1),
        override("i1", "term", "t1", 2),
        override("i1", "term", "t1", 1, by="bob"),
        override("i1", "category", "f2", 1),
        override("i1", "category", "f1", 2),
        override("i3", "term", "t1", 1, until=5),
        override("i4", "term", "t2", 20),
        override("i5", "term", "no such term", 1),
        override("i7", "category", "h2", 1),
    ]
    lay_down(spark, shop, OVERRIDES, given)
    assert publish.main(argv(shop)) == EXIT_OK
    found = live(shop)
    assert [t["term_id"] for t in found["i1"]["terms"]] == ["t1", "t3"]
    assert (found["i1"]["category_path"], found["i1"]["category_source"]) == ("Fashion > Sneakers", "override")
    assert {found[k]["term_source"] for k in ("i3", "i4", "i5", "i7")} == {"model"}
    assert (found["i7"]["category_path"], found["i7"]["category_reason"]) == ("Home > Lamps", None)
    assert found["i7"]["term_reason"] == "no_text"
    assert '"overrides": "rows:' in found["i1"]["inputs"]
    assert '"overrides"' not in found["i3"]["inputs"]
    version = live_version(spark, shop)
    assert changes(spark, shop, live_version=version, item_id="i1").keys() == {("i1", "term"), ("i1", "category")}
    assert {cause for _, _, cause in changes(spark, shop, live_version=version).values()} == {"override"}


@pytest.mark.slow
def test_what_a_cut_changed_is_taken_back_by_a_rollback_and_stays_so_when_the_day_is_published_again(spark, shop):
    before, run_id = live(shop), live(shop)["i6"]["run_id"]
    jobs = ((predict, ("--max-terms", "1")), (audit, ()), (publish, ()))
    assert [job.main(argv(shop, DS, *more)) for job, more in jobs] == [EXIT_OK] * 3
    found = changes(spark, shop, live_version=live_version(spark, shop))
    assert {key: cause for key, (_, _, cause) in found.items()} == {("i6", "terms"): "threshold"}
    assert rollback.main(["--root", str(shop), "--to", run_id]) == EXIT_OK
    assert live(shop) == before
    assert publish.main(argv(shop)) == EXIT_OK
    assert live(shop) == before
    assert publish.main(argv(shop, DS, "--undo-rollback")) == EXIT_OK
    assert len(live(shop)["i6"]["terms"]) == 1


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


def test_too_many_items_without_text_stop_the_run_before_anything_is_encoded(spark, shop, capsys):
    shutil.rmtree(shop / ITEM_EMBEDDINGS.name)
    assert embed_catalogue.main(argv(shop, DS, "--min-poison-items", "0")) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "3 of 9 items cannot be encoded" in said
    assert "item_id 'i7': no_text" in said
    assert not (shop / ITEM_EMBEDDINGS.name).exists()
    assert predict.main(argv(shop)) == EXIT_BAD_INPUT
    assert "run the stage that writes it first" in capsys.readouterr().err


def test_titles_that_were_not_encoded_stop_the_labelling(spark, shop, capsys):
    assert predict.main(argv(shop, NEXT)) == EXIT_BAD_INPUT
    assert "2 items of catalogue/ds=2024-05-08 have no vector" in capsys.readouterr().err


@pytest.mark.slow
def test_the_audit_compares_with_the_days_before(spark, shop, capsys):
    where = Warehouse.at(str(shop))
    for table in (ITEM_TERMS, ITEM_CATEGORIES):
        few = tables.read(spark, where.staged(table), table, ds=DS).where("item_id IN ('i1', 'i3', 'i4')")
        tables.write_slice(few.withColumn("ds", F.lit(NEXT)), where.staged(table), table, {"ds": NEXT})
    lay_down(spark, shop, CATALOGUE, catalogue({k: TITLES[k] for k in ("i1", "i3", "i4")}, NEXT))
    assert audit.main(argv(shop, NEXT)) == EXIT_GATE_REFUSED
    assert "item_terms.items_against_median: found -0.666667" in capsys.readouterr().err


def test_the_tree_and_the_vocabulary_are_checked_before_labelling(spark, shop, capsys):
    lay_down(spark, shop, TAXONOMY, [node("a", "b", "A"), node("b", "a", "B")])
    assert predict.main(argv(shop)) == EXIT_BAD_INPUT
    assert "makes a cycle" in capsys.readouterr().err
    lay_down(spark, shop, VOCABULARY, [term("t1", " ")])
    assert predict.main(argv(shop)) == EXIT_BAD_INPUT
    assert "term_id 't1'" in capsys.readouterr().err


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


def versions(root: Path) -> dict[str, int]:
    return {str(p.parent.relative_to(root)): len(list(p.glob("*.json"))) for p in root.rglob("_delta_log")}


def said(caplog: pytest.LogCaptureFixture, job: Any, *more: str) -> str:
    """What a dry run logs; it writes nothing."""
    caplog.clear()
    with caplog.at_level("INFO"):
        assert job.main([*more, "--dry-run"]) == EXIT_OK
    assert "dry run: nothing was written" in caplog.text
    return caplog.text


def test_a_dry_run_of_the_encoding_counts_what_is_missing_and_writes_nothing(shop, caplog):
    before = versions(shop)
    plan = said(caplog, embed_catalogue, *argv(shop, NEXT))
    assert "plan: 9 items, 7 distinct texts: reuse 5 vectors, encode 2 texts with bundle" in plan
    assert re.search(r"plan: cost about \d+ s \([\d,]+ a second, measured for 2024-05-07", plan)
    shutil.rmtree(shop / ITEM_EMBEDDINGS.name)
    shutil.rmtree(shop / RUNS.name)
    plan = said(caplog, embed_catalogue, *argv(shop, NEXT))
    assert "reuse 0 vectors, encode 7 texts" in plan
    assert "plan: cost unknown" in plan
    assert versions(shop) == {k: v for k, v in before.items() if k not in (f"{ITEM_EMBEDDINGS.name}", RUNS.name)}


@pytest.mark.slow
def test_a_dry_run_of_the_labelling_names_what_changed_and_writes_nothing(spark, shop, caplog):
    assert "changed: everything (not labelled yet)" in said(caplog, predict, *argv(shop, NEXT))
    plan = said(caplog, predict, *argv(shop))
    assert "changed: nothing, the same rows come out" in plan
    assert re.search(r"plan: score 9 items .*\n.*plan: cost about \d+ s", plan)
    assert "changed: settings" in said(caplog, predict, *argv(shop, DS, "--max-terms", "1"))
    lay_down(spark, shop, VOCABULARY, [*TERMS, term("t9", "spoon")])
    lay_down(spark, shop, CATALOGUE, catalogue(TITLES | {"i1": "Another thing"}))
    add_calibration(next((shop / "bundles").glob("*/")), {})
    before = versions(shop)
    plan = said(caplog, predict, *argv(shop))
    assert "changed: calibration, vocabulary, catalogue" in plan
    assert "plan: 1 items have no vector yet" in plan
    assert versions(shop) == before
