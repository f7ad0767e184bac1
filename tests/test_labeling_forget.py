"""A query is removed from everything that the system wrote: every file is decoded afterwards. Real Spark and Delta."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import COPY_KEYWORDS, ITEM_TERMS, PAIRS, QUERY_ITEMS, TERM_CANDIDATES
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import forget
from labeling.forget import trace_of
from tests.delta_data import lay, lineage, term_row
from tests.labeling_data import pair
from tests.rows import DS

SECRET, GROUP = "zyxwv quetzal", "quetzal zyxwv"
NEXT = DS + dt.timedelta(days=1)


def phrase(query: str) -> dict:
    return {"query": query, "clicks": 3, "users": 2, "weight": 1.0}


def put_tables(spark: SparkSession, root: Path) -> None:
    asked = [pair(SECRET, "i1", "Steel kettle", ds=ds) for ds in (DS, NEXT)] + [pair("tea", "i2", "Tea", ds=DS)]
    lay(root / "pairs", PAIRS, [row | {"query_id": 0} for row in asked])
    evidence = {"i1": ["boil water", SECRET], "i2": [SECRET], "i3": ["tea"]}
    for place in ("item_terms", "staging/item_terms"):
        lay(root / place, ITEM_TERMS, [term_row(item, evidence=queries) for item, queries in evidence.items()])
    recall = {"ds": DS, "query_id": 1, "rank": 1, "item_id": "i1", "score": 0.5, "clicks": 0}
    lay(root / "query_items", QUERY_ITEMS, [recall | {"query": SECRET} | lineage(), recall | {"query": "tea"} | lineage()])
    lay(root / "term_candidates", TERM_CANDIDATES, [{"ds": DS, "query_group": 1, "query": SECRET, "proposal": "new"}])
    missing = {"i1": (["kettle"], [SECRET, "tea"]), "i2": ([], [SECRET])}
    rows = [
        {"ds": DS, "item_id": item, "title": "", "terms": [], "missing_terms": terms, "phrases": list(map(phrase, queries))}
        for item, (terms, queries) in missing.items()
    ]
    frame = spark.createDataFrame(
        [tuple((row | lineage())[name] for name in COPY_KEYWORDS.names) for row in rows], COPY_KEYWORDS.ddl
    )
    tables.write_slice(frame, str(root / "copy_keywords"), COPY_KEYWORDS, {"ds": DS})


def put_datasets(spark: SparkSession, root: Path) -> None:
    trace = trace_of(spark, SECRET)
    for day, group in (("2024-05-05", trace.groups[0]), ("2024-05-04", 42)):
        for part in ("pairs", "known"):
            (root / "datasets" / f"ds={day}" / part).mkdir(parents=True)
            pq.write_table(
                pa.table({"query_group": pa.array([1, group])}), root / "datasets" / f"ds={day}" / part / "a.parquet"
            )
        (root / "checkpoints" / f"ds={day}").mkdir(parents=True)
    trained_on = {"of-pairs": str(DS), "of-dataset": "2024-05-05", "clean": "2024-05-04", "forgotten": "2023-01-01"}
    for name, day in trained_on.items():
        (root / "bundles" / name).mkdir(parents=True)
        (root / "bundles" / name / "manifest.json").write_text(json.dumps({"ds": day, "lineage": {"dataset": day}}))


@pytest.fixture(scope="module")
def told(spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("told") / "warehouse"
    root.mkdir()
    put_tables(spark, root)
    put_datasets(spark, root)
    return root


@pytest.fixture(scope="module")
def forgotten(spark, told: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(told, tmp_path_factory.mktemp("forgotten") / "warehouse"))
    assert forget.main(argv(root)) == EXIT_OK
    return root


def argv(root: Path, *more: str, query: str = "  ZYXWV  Quetzal ") -> list[str]:
    return ["--root", str(root), "--ds", str(NEXT), "--query", query, *more]


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file under a root, Parquet ones decoded too, since their pages are compressed."""
    for file in filter(Path.is_file, root.rglob("*")):
        yield file, file.read_bytes().decode("utf-8", "replace")
        if file.suffix == ".parquet":
            yield file, str(pl.read_parquet(file, hive_partitioning=False).to_dicts())


@pytest.mark.fault("personal-data")
@pytest.mark.slow
def test_no_file_under_the_root_has_the_query_and_before_data_logs_and_lists_had(told, forgotten):
    had = {file.relative_to(told).parts[0] for file, text in texts(told) if SECRET in text}
    assert had == {"pairs", "item_terms", "staging", "query_items", "term_candidates", "copy_keywords"}
    assert any("_delta_log" in file.parts for file, text in texts(told) if SECRET in text)
    assert [file for file, text in texts(forgotten) if SECRET in text or "quetzal" in text] == []


@pytest.mark.slow
def test_what_is_not_about_the_query_stays_and_lists_lose_it_alone(forgotten):
    assert pl.read_delta(str(forgotten / "pairs"))["query"].to_list() == ["tea"]
    for place in ("item_terms", "staging/item_terms"):
        found = dict(pl.read_delta(str(forgotten / place)).select("item_id", "evidence").iter_rows())
        assert found == {"i1": ["boil water"], "i2": [], "i3": ["tea"]}
    assert pl.read_delta(str(forgotten / "query_items"))["query"].to_list() == ["tea"]
    (row,) = pl.read_delta(str(forgotten / "copy_keywords")).to_dicts()  # i2 has nothing left to say
    assert (row["item_id"], [p["query"] for p in row["phrases"]]) == ("i1", ["tea"])


@pytest.mark.slow
def test_spark_still_writes_to_a_table_whose_history_was_dropped(spark, forgotten):
    path = str(forgotten / "item_terms")
    frame = tables.read(spark, path, ITEM_TERMS, ds=DS).where(F.col("item_id") == "i1").localCheckpoint()
    assert tables.write_slice(frame, path, ITEM_TERMS, {"ds": DS}) == 1
    assert pl.read_delta(path)["item_id"].to_list() == ["i1"]


@pytest.mark.slow
def test_datasets_that_held_it_go_with_their_checkpoints_and_others_stay(forgotten):
    for parent in ("datasets", "checkpoints"):
        assert [path.name for path in (forgotten / parent).iterdir()] == ["ds=2024-05-04"]


@pytest.mark.fault("personal-data")
def test_bundles_that_saw_it_are_named_those_that_nobody_knows_of_apart_and_the_log_keeps_the_query_out(
    told, caplog, capsys
):
    before = {file: file.stat().st_mtime_ns for file in told.rglob("*")}
    with caplog.at_level("INFO"):
        assert forget.main(argv(told, "--dry-run")) == EXIT_OK
    assert "rows=10 datasets=1 checkpoints=1 bundles=of-dataset,of-pairs unknown_bundles=forgotten" in caplog.text
    assert "quetzal" not in (caplog.text + capsys.readouterr().err).casefold()
    assert {file: file.stat().st_mtime_ns for file in told.rglob("*")} == before


@pytest.mark.fault("personal-data")
def test_the_hashes_are_those_of_the_tables_and_no_plan_of_spark_has_the_query(spark, told):
    asked = [SECRET, GROUP, "连衣裙 ２", "x" * 100]
    row = spark.range(1).select(*(F.xxhash64(F.lit(text)) for text in asked)).head()
    assert [forget.xxhash64(spark, text) for text in asked] == list(row)
    before = plans(spark)
    assert "quetzal" in "".join(before.values())  # by the query above
    assert forget.main(argv(told, "--dry-run", query="Kiwi Okapi")) == EXIT_OK
    since = [plan for number, plan in plans(spark).items() if number not in before]
    assert since
    assert [plan for plan in since if "okapi" in plan.casefold()] == []


def plans(spark: SparkSession) -> dict[int, str]:
    """What Spark keeps of its queries for UI and event log, by their numbers."""
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    kept = spark._jsparkSession.sharedState().statusStore().executionsList()
    runs = [kept.apply(n) for n in range(kept.size())]
    return {run.executionId(): f"{run.description()} {run.details()} {run.physicalPlanDescription()}" for run in runs}


def test_a_query_without_a_word_is_refused(spark, told, capsys):
    assert forget.main(argv(told, query=" - ")) == EXIT_BAD_INPUT
    assert "--query has no word in it" in capsys.readouterr().err
