from __future__ import annotations

import datetime as dt
import io
import logging
import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import functions as F

from etl import build_pairs, cleaning
from etl.cleaning import RULES
from etl.contracts import CATALOGUE, CLICK_LOG
from etl.errors import EXIT_BAD_INPUT, InputError
from etl.job import run_job
from etl.late_events import affected_days, count_arrivals
from etl.pairs_config import PairsConfig
from tests.etl_data import PERSONAL, QUERIES, STRICT, events, items, lay_down_shop, strict_events
from tests.rows import DS, event, item, lay_down, small_warehouse

# Nothing is held out or thinned: of 42 queries each must be seen.
SETTINGS = {"window_days": 3, "watermark_days": 1, "test_item_share": 0, "subsample_queries": 0, "subsample_items": 0}


FLAGS = [text for key, value in SETTINGS.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def config(root: Path, **changes) -> PairsConfig:
    return PairsConfig(**{"root": str(root), "ds": DS, "master": "local[2]"} | SETTINGS | changes)


def rows_of(root: Path, table: str) -> list[dict]:
    frame = pl.read_delta(str(root / table))
    return frame.sort(frame.columns).to_dicts()


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    """The shop with its pairs."""
    root = tmp_path_factory.mktemp("shop") / "warehouse"
    lay_down_shop(spark, root)
    build_pairs.run(config(root))
    return root


@pytest.fixture(scope="module")
def pairs(shop) -> list[dict]:
    return rows_of(shop, "pairs")


def assert_reconciled(root: Path, read: Counter) -> dict[dt.date, list[dict]]:
    """Rows of ETL_COUNTS by day, in order, after what went into each is accounted for."""
    days = defaultdict(list)
    for row in rows_of(root, "etl_counts"):
        days[row["event_day"]].append(row)
    assert days.keys() == read.keys()
    for day, steps in days.items():
        steps.sort(key=lambda row: row["step"])
        assert [row["rule"] for row in steps] == list(RULES)
        assert steps[0]["rows_in"] == read[day]
        assert all(row["rows_in"] == row["rows_dropped"] + row["rows_kept"] for row in steps)
        assert all(above["rows_kept"] == below["rows_in"] for above, below in pairwise(steps))
    return days


def test_what_goes_in_is_what_is_kept_plus_what_each_rule_dropped_on_every_day(shop, pairs):
    days = assert_reconciled(shop, Counter(row["ds"] for row in events() if row["ds"] > DS - dt.timedelta(days=3)))
    assert sum(steps[-1]["rows_kept"] for steps in days.values()) == sum(row["clicks"] for row in pairs)


def test_every_rule_dropped_exactly_what_it_should(shop):
    dropped = Counter()
    for row in rows_of(shop, "etl_counts"):
        dropped[row["rule"]] += row["rows_dropped"]
    assert dropped == {
        "unknown_event": 1,
        "bad_date": 2,
        "outside_window": 1,
        "too_late": 1,
        "impression": 1,
        "bot": 70,
        "scraper": 0,
        "long_query": 1,
        "no_query": 2,
        "personal_data": 12 * len(PERSONAL),
        "not_shown": 0,
        "short_dwell": 1,
        "fast_return": 0,
        "repeat_in_session": 1,
        "not_in_catalogue": 1,
        "unusable_title": 3,
        "few_users": 2,
        "diffuse_query": 0,
        "few_pair_users": 0,
        "later_click": 0,
    }


@pytest.fixture(scope="module")
def strict_shop(spark, tmp_path_factory) -> Path:
    """The shop with its pairs, every rule switched on, and a share of everything held out."""
    root = tmp_path_factory.mktemp("strict") / "warehouse"
    root.mkdir()
    small_warehouse(spark, root, click_log=strict_events(), catalogue=items())
    shares = {"test_share": 0.2, "valid_share": 0.1, "test_item_share": 0.15}
    build_pairs.run(config(root, **STRICT, **shares))
    return root


def test_with_every_rule_switched_on_each_drops_something_and_each_day_reconciles(strict_shop):
    read = Counter(row["ds"] for row in strict_events() if row["ds"] > DS - dt.timedelta(days=3))
    days = assert_reconciled(strict_shop, read)
    dropped = Counter()
    for steps in days.values():
        dropped.update({row["rule"]: row["rows_dropped"] for row in steps})
    assert {rule for rule in RULES if not dropped[rule]} == set()
    assert dropped["scraper"] == 102
    assert (dropped["not_shown"], dropped["fast_return"], dropped["diffuse_query"]) == (12, 1, 32)
    kept = sum(steps[-1]["rows_kept"] for steps in days.values())
    assert kept == sum(row["clicks"] for row in rows_of(strict_shop, "pairs")) > 0


def test_nothing_that_is_held_out_occurs_in_training_by_query_item_or_time(strict_shop):
    pairs = rows_of(strict_shop, "pairs")
    of = {split: [row for row in pairs if row["split"] == split] for split in ("train", "valid", "test", "item", "time")}
    assert all(of.values())
    trained = {key: {row[key] for row in of["train"]} for key in ("query_group", "query_id", "title_id", "item_group")}
    assert not {row["query_group"] for row in of["test"] + of["valid"]} & trained["query_group"]
    assert not {row["item_group"] for row in of["item"]} & trained["item_group"]
    both = {(row["query_group"], row["item_group"]) for row in of["train"]}
    assert not {(row["query_group"], row["item_group"]) for row in of["time"]} & both
    assert {row["first_day"] for row in of["time"]} == {DS}
    assert DS not in {row["first_day"] for row in of["train"]}
    assert {row["split"] for row in pairs if row["sampled"]} == {"train"}
    # One query in another order, and an item of the same title, clicked on the last day only, but known before it.
    assert (" ".join(reversed(QUERIES[0].split())), "i0") not in {(row["query"], row["item_id"]) for row in pairs}
    assert not [row for row in pairs if row["item_id"] == "same0" and row["split"] in ("train", "time")]


def test_a_pair_sums_clicks_users_and_weights(pairs):
    found = {(row["query"], row["item_id"]): row for row in pairs}
    clicked, ordered = found[QUERIES[0], "i0"], found[QUERIES[0], "same0"]
    assert (clicked["clicks"], clicked["users"], clicked["weight"]) == (12, 12, 12.0)
    assert (ordered["clicks"], ordered["users"], ordered["weight"]) == (4, 4, 12.0)
    assert len(found) == len(pairs) == len(QUERIES) + 30


def test_items_of_one_title_share_their_group_and_its_probability(pairs):
    same = [row for row in pairs if row["item_id"].startswith("same")]
    assert len({row["title_id"] for row in same}) == 1
    rows = {(row["query_id"], row["title_id"]) for row in pairs if row["sampled"]}
    expected = math.log(sum(title == same[0]["title_id"] for _, title in rows) / len(rows))
    assert {round(row["item_logp"], 9) for row in same} == {round(expected, 9)}


@pytest.fixture(scope="module")
def rerun(shop, pairs, spark) -> str:
    """The log of a second run, by command, with other partitions; its rows replace those of the first."""
    log = io.StringIO()
    handler, root_logger = logging.StreamHandler(log), logging.getLogger()
    root_logger.addHandler(handler)
    level = root_logger.level
    root_logger.setLevel(logging.INFO)
    before = {key: spark.conf.get(key) for key in ("spark.sql.shuffle.partitions", "spark.sql.adaptive.enabled")}
    try:
        spark.conf.set("spark.sql.shuffle.partitions", "5")
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        assert build_pairs.main(["--root", str(shop), "--ds", str(DS), "--master", "local[2]", *FLAGS]) == 0
    finally:
        root_logger.removeHandler(handler)
        root_logger.setLevel(level)
        for key, value in before.items():
            spark.conf.set(key, value)
    return log.getvalue()


def test_a_rerun_gives_the_same_rows_at_any_number_of_partitions(shop, pairs, rerun):
    assert rows_of(shop, "pairs") == pairs
    assert len(rows_of(shop, "etl_counts")) == 3 * len(RULES)


@pytest.mark.fault("personal-data")
def test_no_user_session_or_personal_data_leaves_the_job(shop, rerun):
    written = "".join(str(row) for table in ("pairs", "etl_counts", "runs") for row in rows_of(shop, table))
    assert "labeller pairs done: events=" in rerun
    for text in (*PERSONAL, "secret", "13912345678", "s0-0", "asked by two", "quick"):
        assert text.casefold() not in (written + rerun).casefold()
    assert not {"user", "user_id", "session_id"} & set(pl.read_delta(str(shop / "pairs")).columns)


def test_a_run_says_what_it_read_and_how_much_it_wrote(shop):
    (row,) = rows_of(shop, "runs")
    assert row["stage"] == "pairs"
    assert '"catalogue": "parquet:' in row["inputs"]
    assert '"pairs": 72' in row["counts"]


def refused(root: Path, **changes) -> str:
    """The message of a run that is refused, after which no output is there."""
    with pytest.raises(InputError) as error:
        build_pairs.run(config(root, **changes))
    assert not any((root / table).exists() for table in ("pairs", "title_groups", "etl_counts", "runs"))
    return str(error.value)


@pytest.mark.fault("volume")
def test_a_day_without_clicks_is_refused_with_the_days_there_are(spark, root):
    small_warehouse(spark, root, click_log=[event(ds=DS - dt.timedelta(days=1))])
    assert f"click_log/ds={DS} has 0 rows (expected >= 1; the table holds 2024-05-06 to 2024-05-06)" in refused(root)


def test_a_missing_table_is_refused(spark, root):
    small_warehouse(spark, root)
    (root / "catalogue").rename(root / "elsewhere")
    assert "input table catalogue is not at" in refused(root)


def test_fewer_users_than_ten_are_said_aloud(spark, root, caplog):
    refused(root)
    assert "min_users" not in caplog.text
    refused(root, min_users=9)
    assert "[pairs] min_users is 9: queries that fewer than 10 people asked leave the log" in caplog.text


@pytest.mark.parametrize(("position_bias", "weights"), [("pbm", {800.0}), ("none", {600.0})])
def test_the_weight_of_a_pair_undoes_the_bias_of_its_positions_unless_none_is_asked_for(spark, position_bias, weights):
    rows = []
    for n in range(800):  # all click what stands first, half what stands second: its propensity is a half
        shown, who = ("a", "b") if n % 2 else ("b", "a"), {"user_id": f"u{n}", "session_id": f"s{n}"}
        rows += [event(item_id=i, event="impression", position=k, **who) for k, i in enumerate(shown, 1)]
        rows += [event(item_id=i, position=k, **who) for k, i in enumerate(shown, 1) if k == 1 or n % 4 < 2]
    log = spark.createDataFrame([tuple(row[name] for name in CLICK_LOG.names) for row in rows], CLICK_LOG.ddl)
    items = spark.createDataFrame([("a", 1), ("b", 2)], "item_id string, title_id bigint")
    groups = items.select("title_id", F.col("title_id").alias("item_group"))
    kept = build_pairs.clean(log, items, groups, config(Path(), position_bias=position_bias)).kept
    assert {round(row["weight"], 1) for row in build_pairs.as_weighted_pairs(kept).collect()} == weights


def test_an_item_that_is_twice_in_the_catalogue_is_refused(spark, root):
    small_warehouse(spark, root, catalogue=[item(), item(title="Another"), item(None)])
    message = refused(root)
    assert "table catalogue" in message
    assert "column item_id holds 'i1' 2 times" in message
    assert "column item_id is null in 1 rows" in message


@pytest.mark.fault("volume")
def test_nothing_left_is_refused_with_the_rules_that_took_it(spark, root):
    small_warehouse(spark, root)
    message = refused(root, min_users=13)
    assert f"pairs/ds={DS} would have 0 rows" in message
    assert "few_users dropped 12" in message


def test_acts_that_a_join_loses_stop_the_run_with_the_day(spark, root, monkeypatch):
    small_warehouse(spark, root)
    found = cleaning.distinct_queries
    monkeypatch.setattr(cleaning, "distinct_queries", lambda marked: found(marked).limit(0))
    with pytest.raises(RuntimeError, match=rf"lost or doubled by the rules on queries.* \({DS}: 12 in, 0 out\); nothing"):
        build_pairs.run(config(root))
    assert not (root / "pairs").exists()


def test_bad_input_ends_with_the_exit_code_that_airflow_reads(root, capsys):
    assert build_pairs.main(["--root", str(root), "--ds", str(DS), "--master", "local[2]"]) == EXIT_BAD_INPUT
    assert "input table click_log is not at" in capsys.readouterr().err


@pytest.mark.slow
def test_a_delta_log_with_numbers_for_ids_is_read_like_a_parquet_log_with_text(spark, root):
    small_warehouse(spark, root)
    (root / "click_log").rename(root / "text")
    numbers = {name: F.lit(7).cast("bigint") for name in ("item_id", "session_id")}
    clicks = spark.read.parquet(str(root / "text")).withColumns(numbers)
    clicks.write.format("delta").partitionBy("ds").save(str(root / "click_log"))
    lay_down(spark, root, CATALOGUE, [item("7")])
    assert build_pairs.run(config(root))["pairs"] == 1
    assert rows_of(root, "pairs")[0]["item_id"] == "7"
    assert '"click_log": "delta:0"' in rows_of(root, "runs")[0]["inputs"]


@pytest.mark.fault("clocks")
@pytest.mark.slow
def test_an_event_that_came_the_day_after_counts_once_the_run_is_told_to_look_there(spark, root, caplog):
    late = [
        event(user_id=f"late{n}", session_id=f"late{n}", ds=DS, event_time=dt.datetime(2024, 5, 6, 23)) for n in range(3)
    ]
    early = [event(user_id=f"u{n}", session_id=f"s{n}", ds=day, event_time=dt.datetime.combine(day, dt.time(9)))
             for n in range(12) for day in (DS - dt.timedelta(days=1), DS)]  # fmt: skip
    small_warehouse(spark, root, click_log=early + late, catalogue=[item(), item(ds=DS - dt.timedelta(days=1))])
    yesterday = {"ds": DS - dt.timedelta(days=1), "window_days": 1}
    with caplog.at_level(logging.INFO):
        first_night = build_pairs.run(config(root, window_days=2))
        assert (first_night["late"], first_night["affected_days"]) == (3, "none")
        assert "lack them" not in caplog.text
        assert build_pairs.run(config(root, **yesterday))["kept"] == 12
        found = build_pairs.run(config(root, window_days=2))
    assert (found["late"], found["affected_days"]) == (3, "2024-05-06")
    assert (
        "3 acts in click_log/ds=2024-05-07 are of earlier days (2024-05-06: 3); pairs of 2024-05-06 lack them" in caplog.text
    )
    assert '"affected_days": "2024-05-06"' in rows_of(root, "runs")[-1]["counts"]
    caplog.clear()
    again = build_pairs.run(config(root, arrived_by=DS, **yesterday))
    assert (again["kept"], again["events"]) == (15, 15)
    assert (again["late"], again["affected_days"]) == (3, "none")
    assert "lack them" not in caplog.text


@pytest.mark.fault("clocks")
def test_days_that_lack_late_events_are_those_from_theirs_on_but_the_one_being_made(root):
    later = config(root, arrived_by=DS + dt.timedelta(days=1))
    late = {DS - dt.timedelta(days=2): 4, DS: 1}
    assert affected_days(late, later) == [DS - dt.timedelta(days=n) for n in (2, 1)]
    assert affected_days({}, later) == []


@pytest.mark.fault("clocks")
def test_only_the_last_partition_that_is_looked_into_holds_late_events(spark):
    row = (DS, dt.datetime(2024, 5, 6, 23), None)
    marked = spark.createDataFrame([row], "ds date, event_time timestamp, rule string")
    assert count_arrivals(marked, DS)[1] == {DS - dt.timedelta(days=1): 1}
    assert count_arrivals(marked, DS + dt.timedelta(days=1))[1] == {}


def lay_down_without_days(spark, root: Path, rows: list[dict]) -> None:
    small_warehouse(spark, root, click_log=rows)
    (root / "click_log").rename(root / "by day")
    spark.read.parquet(str(root / "by day")).drop("ds").write.parquet(str(root / "click_log"))


@pytest.mark.fault("clocks")
@pytest.mark.slow
def test_events_of_no_day_in_a_log_without_days_are_counted_rejects_of_ds(spark, root):
    times = [dt.datetime(1970, 1, 2), dt.datetime(2034, 1, 2), dt.datetime(9999, 12, 31), None, dt.datetime(2024, 5, 9)]
    rows = [event(user_id=f"u{n}", session_id=f"s{n}") for n in range(12)]
    lay_down_without_days(spark, root, rows + [event(event_time=time) for time in times])
    found = build_pairs.run(config(root, window_days=1))
    assert {rule: found[rule] for rule in ("events", "bad_date", "unknown_event", "kept")} == {
        "events": 16, "bad_date": 3, "unknown_event": 1, "kept": 12}  # fmt: skip
    assert_reconciled(root, Counter({DS: 16}))


@pytest.mark.fault("clocks")
def test_events_of_no_day_do_not_make_a_day_of_a_log_without_days(spark, root):
    yesterday = dt.datetime(2024, 5, 6, 12)
    lay_down_without_days(spark, root, [event(event_time=time) for time in (yesterday, dt.datetime(1970, 1, 2), None)])
    assert f"click_log/ds={DS} has 0 rows (expected >= 1; the table holds 2024-05-06 to 2024-05-06)" in refused(root)


@pytest.mark.fault("clocks")
@pytest.mark.parametrize(("skew", "kept"), [(60, 12), (1_440, 15)])
@pytest.mark.slow
def test_where_partitions_are_of_another_zone_the_one_before_the_window_holds_its_first_hours(spark, root, skew, kept):
    before = DS - dt.timedelta(days=1)
    west = [event(user_id=f"w{n}", session_id=f"w{n}", ds=before, event_time=dt.datetime.combine(DS, dt.time(3)))
            for n in range(3)]  # fmt: skip
    west.append(event(user_id="day before", ds=before, event_time=dt.datetime.combine(before, dt.time(20))))
    rows = [event(user_id=f"u{n}", session_id=f"s{n}") for n in range(12)]
    small_warehouse(spark, root, click_log=rows + west)
    found = build_pairs.run(config(root, window_days=1, clock_skew_minutes=skew))
    assert (found["events"], found["kept"]) == (kept, kept)


@pytest.mark.slow
def test_what_a_job_laid_down_in_the_checkpoint_directory_is_gone_when_it_ends(spark, root):
    small_warehouse(spark, root)
    place, seen = root.parent / "checkpoints", []
    flags = ["--root", str(root), "--ds", str(DS), "--master", "local[2]", "--checkpoint-dir", str(place), *FLAGS]

    def main(work) -> int:
        def watched(config: PairsConfig) -> dict:
            try:
                return work(config)
            finally:
                seen.append([file for file in place.rglob("part-*") if file.is_file()])

        return run_job(build_pairs.arg_parser(), PairsConfig, watched, flags)

    assert main(build_pairs.run) == 0
    (root / "click_log").rename(root / "elsewhere")
    assert main(build_pairs.run) == EXIT_BAD_INPUT
    assert seen[0]
    assert list(place.iterdir()) == []


def test_the_last_arrival_must_be_within_the_watermark(root):
    with pytest.raises(ValueError, match=r"arrived_by is 2024-05-09 \(expected 2024-05-07 to 2024-05-08"):
        config(root, arrived_by="2024-05-09")
    with pytest.raises(ValueError, match=r"test_days is 3 \(expected less than window_days, 3\)"):
        config(root, test_days=3)


@pytest.mark.slow
def test_a_damaged_file_is_left_out_up_to_the_limit_and_recorded(spark, root):
    small_warehouse(spark, root)
    bad = root / "click_log" / f"ds={DS}" / "part-99999.parquet"
    bad.write_bytes(b"no parquet")
    assert "part-99999.parquet" in refused(root, window_days=1)
    assert build_pairs.run(config(root, window_days=1, max_bad_files=1))["bad_files"] == 1
    (row,) = rows_of(root, "runs")
    assert str(bad) in row["inputs"]
    assert rows_of(root, "pairs")[0]["clicks"] == 12
