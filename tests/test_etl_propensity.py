from __future__ import annotations

import datetime as dt
import logging

import numpy as np
import pytest
from pyspark.sql import SparkSession

from etl import cleaning, propensity
from etl.pairs_config import PairsConfig
from etl.propensity import fit, with_inverse_propensity
from tests.rows import DS, event

TRUE = np.arange(1, 9) ** -0.7


def log_by_the_model(groups: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts of a log that the position-based model wrote: each group is seen at two to five positions, a few times."""
    rng = np.random.default_rng(seed)
    cells = [(g, k) for g in range(groups) for k in rng.choice(8, size=rng.integers(2, 6), replace=False)]
    group, position = np.array(cells).T
    impressions = rng.integers(1, 12, len(cells))
    relevance = rng.beta(1, 4, groups)
    clicks = rng.binomial(impressions, TRUE[position] * relevance[group])
    return group, position, impressions, clicks


def test_the_fit_finds_the_propensities_that_a_log_was_written_with():
    assert fit(*log_by_the_model(20_000)) == pytest.approx(TRUE, rel=0.06)


def test_the_rate_of_clicks_alone_would_be_wrong_where_the_engine_puts_good_items_high():
    group, position, impressions, _ = log_by_the_model(20_000)
    relevance = np.random.default_rng(3).beta(1, 4, 20_000)
    good = relevance[group] > np.quantile(relevance, 0.5)
    kept = np.where(good, position < 5, position > 2)
    group, position, impressions = group[kept], position[kept], impressions[kept]
    clicks = np.random.default_rng(4).binomial(impressions, TRUE[position] * relevance[group])
    naive = np.bincount(position, clicks) / np.bincount(position, impressions)
    error = np.abs(np.array([naive / naive[0], fit(group, position, impressions, clicks)]) - TRUE).max(axis=1)
    assert error[0] > 0.2
    assert error[1] < 0.06


def test_propensities_never_rise_and_an_unseen_position_has_one():
    group, position = np.array([0, 0, 1, 1]), np.array([0, 3, 0, 1])
    theta = fit(group, position, np.array([10, 10, 10, 10]), np.array([4, 4, 6, 3]))
    assert theta[0] == 1
    assert (np.diff(theta) <= 1e-12).all()
    assert (theta > 0).all()


def marked(spark: SparkSession, rows: list[dict]):
    names = ("ds", "event_time", "user_id", "session_id", "query", "item_id", "event", "position", "dwell_ms")
    ddl = "ds date, event_time timestamp, user_id string, session_id string, query string, item_id string, event string, "
    frame = spark.createDataFrame(
        [tuple(row[name] for name in names) for row in rows], ddl + "position int, dwell_ms bigint"
    )
    return frame.transform(cleaning.with_event_rules(PairsConfig(root="", ds=DS)))


def page(query: str, items: list[str], clicked: set[str]) -> list[dict]:
    at = {"event_time": dt.datetime.combine(DS, dt.time(9))}
    shown = [event(query, item, event="impression", position=k, **at) for k, item in enumerate(items, 1)]
    return shown + [event(query, item, position=k, **at) for k, item in enumerate(items, 1) if item in clicked]


def test_only_items_seen_at_several_positions_and_clicked_tell_anything(spark):
    rows = page("mug", ["a", "b", "c"], {"a"}) + page("mug", ["b", "a", "c"], {"c"})
    rows += [event("mug", "a", position=1)]  # a second click of the one impression
    found = {
        (row["position"], row["shown"], row["clicks"]) for row in propensity._counts(marked(spark, rows), 1.0).collect()
    }
    assert found == {(1, 1, 1), (2, 1, 0)}  # a; b was not clicked, c was always third


def test_a_log_that_says_too_little_gives_no_propensities_and_says_so(spark, caplog):
    with caplog.at_level(logging.WARNING):
        assert propensity.estimate(marked(spark, page("mug", ["a", "b"], {"a"})), 2) is None
    assert "position bias is not estimated: 0 clicks" in caplog.text


def test_a_click_is_weighed_by_the_inverse_propensity_of_its_position_up_to_the_bound(spark):
    acts = spark.createDataFrame([(1, 2), (2, 2), (3, 2), (9, 2), (None, 2), (0, 2)], "position int, weight int")
    theta = np.array([1.0, 0.5, 0.1])
    weights = [row["weight"] for row in acts.transform(with_inverse_propensity(theta, 4.0)).collect()]
    assert weights == [2.0, 4.0, 8.0, 8.0, 2.0, 2.0]
    assert [row["weight"] for row in acts.transform(with_inverse_propensity(None, 4.0)).collect()] == [2.0] * 6
