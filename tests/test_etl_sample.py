from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pyspark.sql import SparkSession

from etl.contracts import CATALOGUE, CLICK_LOG, TAXONOMY, VOCABULARY, Table
from etl.inputs import read_input, version_of
from etl.sample.__main__ import main
from etl.sample.terms import capacity
from etl.sample.world import build_world
from etl.text import contains, normalise, words
from etl.warehouse import Warehouse

CLICKS = 6_000
LAST = dt.date(2024, 5, 8)


def generate(root: Path, *flags: str) -> int:
    return main(["--root", str(root), "--clicks", str(CLICKS), *flags])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "warehouse"
    assert generate(root) == 0
    return root


@pytest.fixture(scope="module")
def events(sample: Path) -> pl.DataFrame:
    return table(sample, "click_log")


def table(root: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(f"{root}/{name}/**/*.parquet", hive_partitioning=True)


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def true_terms(root: Path) -> dict[str, list[str]]:
    rows = table(root, "truth/item_terms").group_by("item_id").agg("term_id")
    return dict(rows.iter_rows())


def titles_and_forms(root: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    first = table(root, "catalogue").sort("ds").unique("item_id", keep="first")
    vocabulary = table(root, "vocabulary")
    forms = {t: [term, *synonyms] for t, term, synonyms in vocabulary["term_id", "term", "synonyms"].iter_rows()}
    return dict(first["item_id", "title"].iter_rows()), forms


def test_same_settings_give_the_same_bytes_and_another_seed_gives_others(sample: Path, tmp_path: Path) -> None:
    small = ("--clicks", "2000", "--days", "2")
    assert [main(["--root", str(tmp_path / name), *small]) for name in ("a", "b")] == [0, 0]
    assert main(["--root", str(tmp_path / "c"), *small, "--seed", "14"]) == 0
    a, b, c = (hashes(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a["click_log/ds=2024-05-08/part-0.parquet"] != c["click_log/ds=2024-05-08/part-0.parquet"]


@pytest.mark.parametrize("contract", [CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY], ids=lambda contract: contract.name)
def test_spark_reads_every_table_with_the_very_types_of_its_contract(
    spark: SparkSession, sample: Path, contract: Table
) -> None:
    warehouse = Warehouse.at(str(sample))
    frame = read_input(spark, warehouse, contract)
    raw = dict(spark.read.parquet(warehouse.table(contract)).dtypes)
    assert raw == {column.name: column.type for column in contract.columns}
    assert frame.count() > 0
    assert version_of(spark, warehouse, contract).startswith("parquet:")


def test_columns_that_may_not_be_null_never_are(sample: Path) -> None:
    for contract in (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY):
        frame = table(sample, contract.name)
        nulls = {c.name: frame[c.name].null_count() for c in contract.columns if not c.nullable}
        assert not any(nulls.values()), f"{contract.name}: {nulls}"
        if contract.keys:
            assert frame.select(contract.keys).is_duplicated().sum() == 0


def test_counts_are_near_the_option(events: pl.DataFrame, sample: Path) -> None:
    clicks = events.filter(pl.col("event") == "click").height
    assert clicks == pytest.approx(CLICKS, rel=0.08)
    assert 5.5 < events.height / clicks < 8.5
    assert events["ds"].unique().sort().to_list() == [LAST - dt.timedelta(days=n) for n in reversed(range(8))]
    assert table(sample, "catalogue").group_by("ds").len()["len"].unique().to_list() == [375]
    assert table(sample, "vocabulary").height == 40


def test_at_least_a_third_of_the_titles_lack_every_form_of_their_terms_and_the_truth_says_which(sample: Path) -> None:
    titles, forms = titles_and_forms(sample)
    said = dict(table(sample, "truth/item_terms")["item_id", "lacks_term"].iter_rows())
    for item, terms in true_terms(sample).items():
        split = words(normalise(titles[item]))
        found = any(contains(split, words(normalise(form))) for term in terms for form in forms[term])
        assert said[item] == (not found), f"{titles[item]!r}: {terms}"
    assert 1 / 3 < np.mean(list(said.values())) < 0.55


def test_some_titles_say_several_terms_and_some_name_a_term_that_is_wrong(sample: Path) -> None:
    titles, forms = titles_and_forms(sample)
    truth = true_terms(sample)

    def said(title: str) -> set[str]:
        split = words(normalise(title))
        return {term for term, known in forms.items() if any(contains(split, words(normalise(f))) for f in known)}

    right = [len(said(titles[item]) & set(terms)) for item, terms in truth.items()]
    wrong = [bool(said(titles[item]) - set(terms)) for item, terms in truth.items()]
    assert sum(count > 1 for count in right) >= 5
    assert 0.02 < np.mean(wrong) < 0.15


def test_titles_are_in_both_languages_with_near_and_exact_duplicates(sample: Path) -> None:
    day = table(sample, "catalogue").filter(pl.col("ds") == LAST)
    assert set(day["language"]) == {"en", "zh", "mul"}
    assert day["title"].str.contains(r"\p{Han}").mean() > 0.3
    assert 0.9 < day["title"].n_unique() / day.height < 1


def test_the_catalogue_of_later_days_differs_a_little(sample: Path) -> None:
    frame = table(sample, "catalogue")
    first, last = (frame.filter(pl.col("ds") == day) for day in (frame["ds"].min(), LAST))
    gone, new = (set(a["item_id"]) - set(b["item_id"]) for a, b in ((first, last), (last, first)))
    assert len(gone) == len(new) == 7
    both = first.join(last, on="item_id")
    assert 0.02 < (both["title"] != both["title_right"]).mean() < 0.15
    assert (last["updated_at"].dt.date() <= LAST).all()


def test_only_items_on_sale_on_the_day_are_shown(events: pl.DataFrame, sample: Path) -> None:
    shelf = table(sample, "catalogue").select("ds", "item_id")
    same_day = events.filter(pl.col("event_time").dt.date() == pl.col("ds"))
    assert same_day.join(shelf, on=["ds", "item_id"], how="anti").is_empty()


def test_items_on_top_are_clicked_more(events: pl.DataFrame) -> None:
    by = events.group_by("position", "event").len().pivot("event", index="position", values="len").sort("position")
    rate = (by["click"] / by["impression"]).to_list()
    assert rate[0] > 1.5 * rate[2]
    assert rate[2] > 1.3 * rate[6]


def test_queries_and_items_are_zipf_distributed(events: pl.DataFrame) -> None:
    clicks = events.filter(pl.col("event") == "click")
    for column in ("query", "item_id"):
        counts = clicks.group_by(column).len()["len"].sort(descending=True)
        top = counts.head(len(counts) // 10).sum() / counts.sum()
        assert top > 0.25, f"the top tenth by {column} holds {top:.0%}"


def test_slips_are_short_and_few_clicks_that_dwell_are_wrong(events: pl.DataFrame, sample: Path) -> None:
    clicks = events.filter(pl.col("event") == "click")
    assert 0.03 < (clicks["dwell_ms"] < 2_000).mean() < 0.2
    forms = (
        table(sample, "vocabulary")
        .select("term_id", form=pl.concat_list(pl.concat_list("term"), "synonyms"))
        .explode("form")
    )
    said = clicks.filter(pl.col("dwell_ms") >= 2_000).join(forms, left_on="query", right_on="form")
    bots = said.group_by("user_id").len().filter(pl.col("len") > 40)["user_id"]
    said = said.filter(~pl.col("user_id").is_in(bots.to_list()))
    truth = table(sample, "truth/item_terms").select("item_id", "term_id")
    wrong = said.join(truth, on=["item_id", "term_id"], how="anti").height / said.height
    assert 0.01 < wrong < 0.10


def test_sessions_last_half_an_hour_at_most_and_belong_to_one_shopper(events: pl.DataFrame) -> None:
    sane = events.filter((pl.col("event_time").dt.year() == 2024) & (pl.col("event") == "impression"))
    bots = sane.group_by("user_id").len().filter(pl.col("len") > 1_000)["user_id"].to_list()
    people = (
        sane.filter(~pl.col("user_id").is_in(bots))
        .group_by("session_id")
        .agg(
            pl.col("user_id").n_unique().alias("users"),
            (pl.col("event_time").max() - pl.col("event_time").min()).dt.total_minutes().alias("minutes"),
        )
    )
    assert people["users"].max() == 1
    assert people["minutes"].max() <= 30
    assert len(bots) == 1


def test_carts_and_orders_follow_clicks(events: pl.DataFrame) -> None:
    count = dict(events.group_by("event").len().iter_rows())
    assert count["impression"] > count["click"] > count["cart"] > count["order"] > 0


def test_late_events_stand_in_the_next_day_and_a_few_clocks_are_lost(events: pl.DataFrame) -> None:
    delay = events["ds"] - events["event_time"].dt.date()
    late = (delay == dt.timedelta(days=1)).sum() / events.height
    assert 0.002 < late < 0.01
    years = set(events["event_time"].dt.year())
    assert years == {1970, 2024, 2034}
    assert (events["event_time"].dt.year() != 2024).sum() == 4 * 8


def test_queries_hold_personal_data_misspellings_and_nothing_at_all(events: pl.DataFrame, sample: Path) -> None:
    queries = events["query"]
    personal = queries.drop_nulls().filter(queries.drop_nulls().str.contains(r"@example\.com|\d{11,}|212 555"))
    assert 0.0005 < len(personal) / len(queries) < 0.01
    assert queries.null_count() > 0
    assert (queries == "").any()
    assert any(re.search(r"(?:^|\D)4\d{15}$|\d{17}[\dX]$|@", query) for query in personal)


def test_some_words_ask_for_anything_and_some_queries_come_from_mails_or_are_pasted(events: pl.DataFrame) -> None:
    acts = events.filter(pl.col("event") != "impression")
    spread = acts.group_by("query").agg(pl.col("item_id").n_unique() / pl.len(), clicks=pl.len())
    assert spread.filter(pl.col("query") == "sale")["item_id"].item() > 0.5
    mails = events.filter(pl.col("query").str.starts_with("utm_campaign"))
    assert mails.height > 0
    assert (mails["event"] != "impression").all()
    assert 0 < (events["query"].str.len_chars() > 200).mean() < 0.005


def test_an_app_logs_no_dwell_and_a_quarter_of_the_slips_is_corrected_within_two_seconds(events: pl.DataFrame) -> None:
    acts = events.filter((pl.col("event") != "impression") & (pl.col("event_time").dt.year() == 2024)).sort("event_time")
    later, item = (pl.col(name).shift(-1).over("session_id") for name in ("event_time", "item_id"))
    at_once = (later - pl.col("event_time") < dt.timedelta(seconds=2)) & (item != pl.col("item_id"))
    clicks = acts.with_columns(at_once=at_once.fill_null(False)).filter(pl.col("event") == "click")
    assert 0.08 < clicks["dwell_ms"].null_count() / clicks.height < 0.2
    slip = pl.col("dwell_ms") < 2_000
    assert 0.1 < clicks.filter(slip)["at_once"].mean() < 0.4
    assert clicks.filter(~slip)["at_once"].mean() < 0.01


def test_every_second_robot_looks_at_much_and_clicks_little(root: Path) -> None:
    assert main(["--root", str(root), "--clicks", "24000", "--days", "2"]) == 0
    by_user = (
        table(root, "click_log")
        .group_by("user_id")
        .agg(shown=(pl.col("event") == "impression").sum(), clicks=(pl.col("event") == "click").sum())
    )
    robots = by_user.filter(pl.col("shown") > 1_000).sort("clicks")
    assert robots.height == 2
    assert robots["clicks"][0] < 60 < robots["clicks"][1]


def test_truth_names_known_terms_and_leaves_for_every_item(sample: Path) -> None:
    items = set(table(sample, "catalogue")["item_id"])
    terms, categories = table(sample, "truth/item_terms"), table(sample, "truth/item_categories")
    taxonomy = table(sample, "taxonomy")
    assert set(terms["item_id"]) == set(categories["item_id"]) == items
    assert set(terms["term_id"]) == set(table(sample, "vocabulary")["term_id"])
    assert set(categories["category_id"]) <= set(taxonomy["category_id"]) - set(taxonomy["parent_id"])
    assert categories["item_id"].is_duplicated().sum() == 0


def test_the_tree_is_three_levels_deep_and_every_parent_is_a_node(sample: Path) -> None:
    parent: dict[str, Any] = dict(table(sample, "taxonomy")["category_id", "parent_id"].iter_rows())

    def depth(node: str) -> int:
        return 1 if parent[node] is None else 1 + depth(parent[node])

    assert max(map(depth, parent)) >= 3
    names = table(sample, "taxonomy").select("parent_id", "name")
    assert names.is_duplicated().sum() == 0


def test_the_oracle_fails_on_some_titles_that_lack_their_term(sample: Path) -> None:
    oracle = json.loads((sample / "truth" / "oracle.json").read_text())
    assert 0.8 < oracle["term_hit1_lacking"] < oracle["term_hit1"] < 1
    assert len(oracle["category_accuracy_by_level"]) == 3
    assert all(0.8 < rate <= 1 for rate in oracle["category_accuracy_by_level"])


def test_the_settings_lower_the_rule_of_distinct_shoppers_and_say_so(sample: Path) -> None:
    text = (sample / "warehouse.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {"pairs": {"min_users": 2, "max_query_entropy": 9.0, "window_days": 7}}
    assert "LOWERED" in text


def test_all_words_make_terms_with_forms_of_their_own_in_both_languages() -> None:
    terms = build_world(13, capacity(), 5 * capacity()).terms
    forms = [form for term in terms for form in term.forms]
    assert len(terms) >= 1_000
    assert len(set(forms)) == len(forms)


def test_a_warehouse_that_was_not_generated_is_not_overwritten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = root / "catalogue" / "ds=2024-05-08" / "theirs.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    assert generate(root) == 2
    assert re.search(r"holds catalogue but no sample.json.*give another --root", capsys.readouterr().err)
    assert theirs.read_bytes() == b"theirs"
    assert sorted(path.name for path in root.iterdir()) == ["catalogue"]


def test_if_missing_leaves_tables_that_are_there_alone(root: Path) -> None:
    for contract in (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY):
        (root / contract.name).mkdir()
        (root / contract.name / "theirs").touch()
    before = hashes(root)
    assert generate(root, "--if-missing") == 0
    assert hashes(root) == before


def test_a_sample_is_made_again_over_a_sample_and_edited_settings_are_kept(root: Path) -> None:
    flags = ("--clicks", "2000", "--days", "1")
    assert main(["--root", str(root), *flags]) == 0
    (root / "warehouse.toml").write_text("[pairs]\nmin_users = 5\n")
    (root / "vocabulary" / "part-0.parquet").unlink()
    assert main(["--root", str(root), *flags, "--if-missing"]) == 0
    assert table(root, "vocabulary").height == 40
    assert (root / "warehouse.toml").read_text() == "[pairs]\nmin_users = 5\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clicks", "1999"], "clicks"),
        (["--clicks", "10000001"], "clicks"),
        (["--terms", "5000", "--items", "100000"], "terms is 5000"),
        (["--terms", "100", "--items", "400"], "items is 400"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["--root", str(root), *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(root.iterdir()) == []
