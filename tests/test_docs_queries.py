"""The documents that analysts start from: every query of the page runs in Spark and in DuckDB, to the same rows."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from etl.contracts import (
    ANNOTATION_SAMPLE,
    ITEM_CATEGORIES,
    ITEM_TERMS,
    LABEL_CHANGES,
    LABELS_CURRENT,
    OUTPUTS,
    QUALITY,
    RUNS,
)
from etl.errors import EXIT_OK
from labeling import tables
from tests.delta_data import category_row, lay, lineage, live_row, run_row, term_row
from tests.rows import DS

DOCS = Path(__file__).resolve().parent.parent / "docs"
NEXT = DS + dt.timedelta(days=1)
QUERIES = re.findall(r"```sql\n(.*?)```", (DOCS / "queries.md").read_text(encoding="utf-8"), re.DOTALL)
TABLES = (LABELS_CURRENT, ITEM_TERMS, ITEM_CATEGORIES, ANNOTATION_SAMPLE, QUALITY, RUNS, LABEL_CHANGES)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days: i1 keeps its term, i2 changes, i3 comes, i4 goes; i5 abstains."""
    root = tmp_path_factory.mktemp("queries")
    evidence = {"evidence": ["boil water"]}
    terms = [term_row("i1", **evidence), term_row("i2"), term_row("i4"), term_row("i5", None)]
    terms += [term_row("i1", ds=NEXT, **evidence), term_row("i2", "t3", NEXT, term="dress"), term_row("i3", ds=NEXT)]
    lay(root / "item_terms", ITEM_TERMS, [*terms, term_row("i5", None, NEXT)])
    lay(root / "item_categories", ITEM_CATEGORIES, [category_row(i, ds) for i in ("i1", "i2") for ds in (DS, NEXT)])
    silent = live_row("i5", term=None, terms=[], term_probability=None, term_reason="no_text")
    lay(root / "labels_current", LABELS_CURRENT, [live_row("i1"), live_row("i2", term_probability=0.4), silent])
    lay(root / "runs", RUNS, [run_row("publish"), run_row("publish", NEXT), run_row("audit")])
    check = {"ds": NEXT, "run_id": "r1", "check": "volume", "hard": True, "value": 0.5, "expected": "0", "passed": False}
    judged = check | {"run_id": "r1.review", "check": "review.term_right", "passed": True}
    lay(root / "quality", QUALITY, [check, judged])
    drawn = {"ds": DS, "item_id": "i1", "stratum": "no term | Home", "stratum_items": 4, "inclusion": 0.25}
    lay(root / "annotation_sample", ANNOTATION_SAMPLE, [drawn | lineage()])
    change = {"ds": NEXT, "live_version": 2, "item_id": "i1", "what": "terms", "old": "kettle", "new": "kettle | pot"}
    lay(root / "label_changes", LABEL_CHANGES, [change | {"cause": "model", "differs": ["model"]} | lineage()])
    return root


@pytest.fixture(scope="module")
def in_duckdb(shop: Path) -> Callable[[str], list[tuple]]:
    con = duckdb.connect()
    for table in TABLES:
        con.register(table.name, pl.read_delta(str(shop / table.name)).to_arrow())
    return lambda query: con.sql(query).fetchall()


def plain(rows: list[Any]) -> list[tuple]:
    """Rows whose times are told in UTC; Spark's are of the machine's own zone, and do not say so."""
    return [tuple(v.astimezone(dt.UTC) if isinstance(v, dt.datetime) else v for v in row) for row in rows]


def test_the_page_answers_what_it_says(in_duckdb):
    assert len(QUERIES) == 15
    found = {query: in_duckdb(query) for query in QUERIES}
    assert [query for query, rows in found.items() if not rows] == []
    changed = next(rows for query, rows in found.items() if "FULL OUTER JOIN" in query)
    assert [row[:3] for row in changed] == [("i2", "kettle", "dress"), ("i3", None, "kettle"), ("i4", "kettle", None)]
    unsure = next(rows for query, rows in found.items() if "term_probability < 0.5" in query)
    assert [row[0] for row in unsure] == ["i2"]
    assert next(rows for query, rows in found.items() if "1 / inclusion" in query) == [("no term | Home", 1, 4.0)]


def test_spark_gives_the_same_rows_for_every_query(spark, shop, in_duckdb):
    for table in TABLES:
        spark.read.format("delta").load(str(shop / table.name)).createOrReplaceTempView(table.name)
    for query in QUERIES:
        assert plain(spark.sql(query).collect()) == plain(in_duckdb(query)), query


def test_the_data_dictionary_is_that_of_the_contracts(capsys):
    assert tables.main(["--markdown"]) == EXIT_OK
    printed = capsys.readouterr().out
    assert printed == (DOCS / "data_dictionary.md").read_text(encoding="utf-8"), (
        "out of date: labeller tables --markdown > docs/data_dictionary.md"
    )
    assert all(f"### {table.name}\n" in printed for table in OUTPUTS)
