"""Training is due when shoppers ask what the last training did not know."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from etl.contracts import PAIRS
from etl.errors import EXIT_BAD_INPUT, EXIT_NOTHING_DUE, EXIT_OK
from etl.text import normalise
from etl.warehouse import Warehouse
from model import train_due
from model.input_drift import new_words
from tests.bundles import bare_bundle
from tests.delta_data import lay
from tests.rows import DS

NEXT = DS + dt.timedelta(days=1)


def pair(ds: dt.date, query: str, title: str = "Shoe", clicks: int = 1, **changes) -> dict:
    number = {name: hash((query, title)) for name in ("query_id", "query_group", "title_id", "item_group")}
    text = {"query": query, "item_id": title, "title": title, "split": "train", "sampled": True}
    return number | text | {"ds": ds, "clicks": clicks, "users": 1, "weight": 1.0, "first_day": ds} | changes


@pytest.fixture
def shop(root):
    """A champion of DS that learnt "red shoe" and the title "Blue BOOT"; what is held out it did not learn."""
    learnt = [pair(DS, "red shoe"), pair(DS, "shoe", "Blue BOOT")]
    lay(root / "pairs", PAIRS, [*learnt, pair(DS, "held lamp", "Lamp", split="test", sampled=False)])
    bare_bundle(root, "b1")
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": "b1", "ds": str(DS)}))
    return root


def due(shop, ds: dt.date = NEXT, *more: str) -> int:
    return train_due.main(["--root", str(shop), "--ds", str(ds), *more])


def test_words_are_known_from_queries_and_titles_of_what_training_drew_and_clicks_count(shop):
    asked = [pair(NEXT, "blue boot", clicks=5), pair(NEXT, "lamp", clicks=2), pair(NEXT, "red vase", clicks=1)]
    lay(shop / "pairs", PAIRS, asked)
    found = new_words(Warehouse.at(str(shop)), DS, NEXT, normalise)
    assert (found.share, found.queries) == (3 / 8, 2)


def test_training_is_due_from_the_configured_share_of_new_words_on(shop, caplog):
    lay(shop / "pairs", PAIRS, [pair(NEXT, "shoe", clicks=4), pair(NEXT, "vase", clicks=1)])
    with caplog.at_level("INFO"):
        assert due(shop) == EXIT_OK
        assert due(shop, NEXT, "--max-new-words", "0.2") == EXIT_OK
        assert due(shop, NEXT, "--max-new-words", "0.21") == EXIT_NOTHING_DUE
    assert f"20.0% of the clicks of {NEXT} are on 1 queries with words that {DS} lacks" in caplog.text


def test_a_refused_candidate_that_saw_the_new_words_is_not_trained_again(shop):
    rows = [pair(NEXT, "vase"), pair(NEXT + dt.timedelta(days=1), "vase")]
    lay(shop / "pairs", PAIRS, rows)
    assert due(shop, NEXT + dt.timedelta(days=1)) == EXIT_OK
    refused = {"bundle": "b1", "ds": str(NEXT), "refused": ["worse"]}
    (shop / "bundles" / "candidate.json").write_text(json.dumps(refused))
    assert due(shop, NEXT + dt.timedelta(days=1)) == EXIT_NOTHING_DUE


def test_a_day_before_the_champions_does_not_train_whatever_was_asked(shop):
    before = DS - dt.timedelta(days=1)
    lay(shop / "pairs", PAIRS, [pair(before, "vase")])
    assert due(shop, before) == EXIT_NOTHING_DUE


def test_where_pairs_of_either_day_are_gone_the_log_says_that_drift_cannot_be_told(shop, caplog):
    with caplog.at_level("INFO"):
        assert due(shop) == EXIT_NOTHING_DUE
    assert f"pairs has no rows of {DS} or of {NEXT}: whether the input drifted cannot be told" in caplog.text


@pytest.mark.parametrize("share", ["0", "1.1"])
def test_a_share_of_new_words_that_is_none_is_refused(shop, share, capsys):
    assert due(shop, NEXT, "--max-new-words", share) == EXIT_BAD_INPUT
    assert "max_new_words" in capsys.readouterr().err
