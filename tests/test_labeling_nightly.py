"""Embed, predict, audit and publish on one small warehouse: real Spark, Delta, faiss and an untrained bundle."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
from pyspark.sql import SparkSession

from etl import tables
from etl.contracts import (
    CATALOGUE,
    ITEM_CATEGORIES,
    ITEM_EMBEDDINGS,
    ITEM_TERMS,
    LABELS_CURRENT,
    OVERRIDES,
    QUALITY,
    TAXONOMY,
    VOCABULARY,
)
from etl.errors import EXIT_BAD_INPUT, EXIT_GATE_REFUSED, EXIT_OK
from etl.warehouse import Warehouse
from labeling import audit, embed_catalogue, predict, publish
from labeling.product_text import product_text
from tests.labeling_data import NODES, TERMS, pair, write_pairs, write_small_bundle
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


def argv(root: Path, ds: dt.date = DS, *more: str) -> list[str]:
    return ["--root", str(root), "--ds", str(ds), *more]


def catalogue(titles: dict[str, str | None], ds: dt.date = DS) -> list[dict[str, Any]]:
    return [item(item_id, title, ds=ds) for item_id, title in titles.items()]


def warehouse(spark: SparkSession, root: Path, *more: dict[str, Any], nodes: list[dict[str, Any]] = NODES) -> None:
    lay_down(spark, root, CATALOGUE, catalogue(TITLES) + list(more))
    lay_down(spark, root, VOCABULARY, TERMS)
    lay_down(spark, root, TAXONOMY, nodes)
    for ds in {DS, *(row["ds"] for row in more)}:
        clicks = [("boil water", 5.0), ("kettle", 2.0), ("tea", 2.0), ("gift", 1.0)]
        write_pairs(spark, root, [pair(query, "i1", TITLES["i1"], weight=w, ds=ds) for query, w in clicks])


def night(root: Path, ds: dt.date = DS, *more: str) -> list[int]:
    """Exit codes of the four stages, up to the first that fails."""
    codes: list[int] = []
    for job in (embed_catalogue, predict, audit, publish):
        codes.append(job.main(argv(root, ds, *(more if job in (audit,) else ()))))
        if codes[-1] != EXIT_OK:
            break
    return codes


def rows(spark: SparkSession, root: Path, table, *names: str, staged: bool = False) -> list[tuple]:
    where = Warehouse.at(str(root))
    frame = tables.read(spark, where.staged(table) if staged else where.table(table), table)
    return sorted(map(tuple, frame.select(*(names or table.names)).collect()), key=repr)


def live(root: Path) -> dict[str, dict[str, Any]]:
    frame = pl.read_delta(str(root / LABELS_CURRENT.name))
    return {row["item_id"]: row for row in frame.to_dicts()}


def test_two_nights_label_every_item_once_and_touch_what_changed_only(spark, root):
    tomorrow = {k: v for k, v in TITLES.items() if k != "i5"} | {"i3": "Table lamp, cotton shade", "i10": "Floor lamp"}
    warehouse(spark, root, *catalogue(tomorrow, NEXT))
    bundle = write_small_bundle(root)
    assert night(root) == [EXIT_OK] * 4

    terms = pl.read_delta(str(root / "item_terms"))
    outcomes = {row["item_id"]: row for row in terms.filter(pl.col("rank") <= 1).to_dicts()}
    assert set(outcomes) == set(TITLES)
    assert {k: r["reason"] for k, r in outcomes.items() if r["rank"] == 0} == {
        "i7": "no_text", "i8": "no_text", "i9": "too_long",
    }  # fmt: skip
    assert {k: outcomes[k]["term_id"] for k in ("i1", "i3", "i4", "i5")} == {"i1": "t2", "i3": "t3", "i4": "t1", "i5": "t4"}
    assert terms.filter(pl.col("item_id") == "i6")["term_id"].sort().to_list() == ["t2", "t3"]
    assert outcomes["i1"]["evidence"] == ["boil water", "kettle", "tea"]
    assert outcomes["i1"]["run_id"].startswith(f"{DS}-")
    categories = {row["item_id"]: row for row in pl.read_delta(str(root / "item_categories")).to_dicts()}
    assert set(categories) == set(TITLES)
    assert categories["i5"]["path_ids"] == ["h", "h2", "h21"]
    assert [categories["i5"][f"level_{n}"] for n in (1, 3, 4)] == ["Home", "Table lamp", None]
    assert categories["i7"]["stopped"] == "no_text"
    vectors = pl.read_delta(str(root / ITEM_EMBEDDINGS.name))
    assert len(vectors) == len({product_text(title).text_hash for title in TITLES.values()})
    first = live(root)
    assert set(first) == set(TITLES)
    assert (first["i1"]["term"], first["i1"]["term_source"]) == ("kettle", "model")
    assert first["i9"]["term_reason"] == first["i9"]["category_reason"] == "too_long"

    assert night(root, NEXT) == [EXIT_OK] * 4
    assert len(pl.read_delta(str(root / ITEM_EMBEDDINGS.name))) == len(vectors) + 2
    second = live(root)
    assert set(second) == set(tomorrow)
    changes = (
        spark.read.format("delta")
        .option("readChangeFeed", "true")
        .option("startingVersion", 2)
        .load(str(root / LABELS_CURRENT.name))
    )
    found = {(r["item_id"], r["_change_type"]) for r in changes.collect()}
    assert found == {("i3", "update_preimage"), ("i3", "update_postimage"), ("i5", "delete"), ("i10", "insert")}
    assert {row["ds"] for k, row in second.items() if k not in ("i3", "i10")} == {DS}
    assert second["i1"]["bundle"] == bundle.id

    # An older day goes into the history only, and a rerun of what is live makes no commit.
    version = tables.latest_version(spark, str(root / LABELS_CURRENT.name))
    before = rows(spark, root, ITEM_TERMS)
    assert publish.main(argv(root, DS)) == EXIT_OK
    assert publish.main(argv(root, NEXT)) == EXIT_OK
    assert tables.latest_version(spark, str(root / LABELS_CURRENT.name)) == version
    assert live(root) == second
    assert rows(spark, root, ITEM_TERMS) == before


def test_labels_are_the_same_at_any_partitioning(spark, root):
    titles = {f"i{n:03}": f"{('kettle', 'dress', 'table lamp', 'sofa')[n % 4]} {n * 37 % 101} cm" for n in range(150)}
    warehouse(spark, root)
    lay_down(spark, root, CATALOGUE, catalogue(titles))
    write_small_bundle(root)
    found = []
    for partitions in ("1", "7"):
        assert embed_catalogue.main(argv(root, DS, "--partitions", partitions)) == EXIT_OK
        assert predict.main(argv(root, DS, "--partitions", partitions)) == EXIT_OK
        found.append([rows(spark, root, table, staged=True) for table in (ITEM_TERMS, ITEM_CATEGORIES)])
        found[-1].append(rows(spark, root, ITEM_EMBEDDINGS))
        spark.sql(f"DELETE FROM delta.`{root}/item_embeddings`")
    assert found[0] == found[1]
    assert len(found[0][1]) == 150


def test_a_failed_audit_names_every_failure_and_leaves_the_live_labels_alone(spark, root, capsys):
    warehouse(spark, root)
    write_small_bundle(root)
    assert night(root) == [EXIT_OK] * 4
    before, history = live(root), rows(spark, root, ITEM_TERMS)
    staged = Warehouse.at(str(root)).staged
    spark.sql(f"DELETE FROM delta.`{staged(ITEM_TERMS)}` WHERE item_id = 'i1'")
    spark.sql(f"UPDATE delta.`{staged(ITEM_CATEGORIES)}` SET path_ids = array('f', 'h2', 'h21') WHERE item_id = 'i5'")
    assert audit.main(argv(root, DS, "--max-abstention", "0.1")) == EXIT_GATE_REFUSED
    said = capsys.readouterr().err
    for name in ("item_terms.items_without_outcome", "item_categories.paths_not_in_tree", "item_terms.abstention"):
        assert name in said
    assert publish.main(argv(root)) == EXIT_GATE_REFUSED
    assert live(root) == before
    assert rows(spark, root, ITEM_TERMS) == history
    failed = tables.read(spark, str(root / QUALITY.name), QUALITY).where("hard AND NOT passed")
    assert failed.count() == 4  # both halves abstain on 3 of 9 items, one item lacks its row, one path is torn


def test_only_a_run_that_was_audited_is_published(spark, root, capsys):
    warehouse(spark, root)
    write_small_bundle(root)
    assert [job.main(argv(root)) for job in (embed_catalogue, predict, publish)] == [EXIT_OK, EXIT_OK, EXIT_BAD_INPUT]
    assert "run `labeller audit` first" in capsys.readouterr().err
    assert audit.main(argv(root)) == EXIT_OK
    assert predict.main(argv(root, DS, "--max-terms", "1")) == EXIT_OK  # another run than the audited one
    assert publish.main(argv(root)) == EXIT_BAD_INPUT
    assert not (root / LABELS_CURRENT.name).exists()


def test_overrides_win_while_they_hold_and_unknown_ones_are_left_out(spark, root):
    warehouse(spark, root)
    write_small_bundle(root)

    def override(item_id: str, what: str, value: str, day: int, until: int | None = None) -> dict[str, Any]:
        at, end = (dt.datetime(2024, 5, d) if d else None for d in (day, until))
        return {"item_id": item_id, "what": what, "value": value, "author": "ann", "at": at, "until": end}

    given = [
        override("i1", "term", "t3", 1),
        override("i1", "term", "t1", 2),
        override("i1", "category", "f2", 1),
        override("i1", "category", "f1", 2),
        override("i3", "term", "t1", 1, until=5),
        override("i4", "term", "t2", 20),
        override("i5", "term", "no such term", 1),
        override("i7", "category", "h2", 1),
    ]
    lay_down(spark, root, OVERRIDES, given)
    assert night(root) == [EXIT_OK] * 4
    found = live(root)
    assert [t["term_id"] for t in found["i1"]["terms"]] == ["t1", "t3"]
    assert (found["i1"]["category_path"], found["i1"]["category_source"]) == ("Fashion > Sneakers", "override")
    assert {found[k]["term_source"] for k in ("i3", "i4", "i5", "i7")} == {"model"}
    assert (found["i7"]["category_path"], found["i7"]["category_reason"]) == ("Home > Lamps", None)
    assert found["i7"]["term_reason"] == "no_text"


def test_a_half_declared_absent_is_skipped_and_said(spark, root):
    warehouse(spark, root)
    write_small_bundle(root)
    (root / "warehouse.toml").write_text('[warehouse]\nabsent = ["taxonomy"]\n')
    assert night(root) == [EXIT_OK] * 4
    assert not (root / ITEM_CATEGORIES.name).exists()
    found = live(root)["i1"]
    assert (found["term"], found["category_path"], found["category_reason"]) == ("kettle", None, "no_taxonomy")
    assert found["taxonomy"] == ""


def test_too_many_items_without_text_stop_the_run_before_anything_is_encoded(spark, root, capsys):
    warehouse(spark, root)
    bundle = write_small_bundle(root)
    assert embed_catalogue.main(argv(root, DS, "--min-poison-items", "0")) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "3 of 9 items cannot be encoded" in said
    assert "item_id 'i7': no_text" in said
    assert not (root / ITEM_EMBEDDINGS.name).exists()
    assert predict.main(argv(root)) == EXIT_BAD_INPUT
    assert "run the stage that writes it first" in capsys.readouterr().err
    assert bundle.path.exists()


def test_titles_that_were_not_encoded_stop_the_labelling(spark, root, capsys):
    warehouse(spark, root)
    write_small_bundle(root)
    assert embed_catalogue.main(argv(root)) == EXIT_OK
    lay_down(spark, root, CATALOGUE, catalogue(TITLES | {"i10": "Wool mat"}))
    assert predict.main(argv(root)) == EXIT_BAD_INPUT
    assert "1 items of catalogue" in capsys.readouterr().err


def test_the_audit_compares_with_the_newest_earlier_day(spark, root, capsys):
    few = {k: TITLES[k] for k in ("i1", "i3", "i4")}
    warehouse(spark, root, *catalogue(few, NEXT))
    write_small_bundle(root)
    assert night(root) == [EXIT_OK] * 4
    assert night(root, NEXT) == [EXIT_OK, EXIT_OK, EXIT_GATE_REFUSED]
    assert "item_terms.items_against_yesterday: found -0.666667" in capsys.readouterr().err
    assert set(live(root)) == set(TITLES)


def test_the_tree_and_the_vocabulary_are_checked_before_labelling(spark, root, capsys):
    warehouse(spark, root, nodes=[node("a", "b", "A"), node("b", "a", "B")])
    write_small_bundle(root)
    assert predict.main(argv(root)) == EXIT_BAD_INPUT
    assert "makes a cycle" in capsys.readouterr().err
    lay_down(spark, root, TAXONOMY, NODES)
    lay_down(spark, root, VOCABULARY, [term("t1", " ")])
    assert predict.main(argv(root)) == EXIT_BAD_INPUT
    assert "term_id 't1'" in capsys.readouterr().err
