from __future__ import annotations

import json

import polars as pl
import pytest

from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.warehouse import Warehouse
from labeling import score_pairs
from labeling.item_index import set_live
from tests.labeling_data import index_titles, query_encoder, title_vectors, write_small_bundle

TITLES = {"i1": "steel kettle", "i2": "red dress"}
ROWS = "position,query,item_id\n1,Kettle,i1\n2,Kettle,i2\n3, ,i1\n4,dress,i9\n5,poison,i2\n6,,\n"


@pytest.fixture
def shop(spark, root):
    bundle = write_small_bundle(root, poison="poison")
    set_live(Warehouse.at(str(root)), index_titles(spark, root, bundle, TITLES).path)
    (root / "pairs.csv").write_text(ROWS)
    return root


def test_every_pair_comes_back_in_its_place_with_its_cosine_or_the_reason_that_it_has_none(shop, capsys, caplog):
    assert score_pairs.main([str(shop / "pairs.csv"), str(shop / "out.csv"), "--root", str(shop)]) == EXIT_OK
    found = pl.read_csv(shop / "out.csv")
    assert found.columns == ["position", "query", "item_id", "score", "reason"]
    assert found["position"].to_list() == [1, 2, 3, 4, 5, 6]
    assert found["reason"].to_list() == [None, None, "empty_query", "unknown_item", "not_encodable", "empty_query"]
    bundle = write_small_bundle(shop, poison="poison")
    expected = title_vectors(bundle, list(TITLES.values())) @ query_encoder(bundle)(["Kettle"])[0]
    assert found["score"][:2].to_list() == pytest.approx(expected.tolist(), abs=1e-6)
    assert found["score"][2:].null_count() == 4
    counts = json.loads(capsys.readouterr().out)
    assert [counts[name] for name in ("pairs", "scored", "empty_query", "unknown_item", "not_encodable")] == [6, 2, 2, 1, 1]
    assert "'i9'" in caplog.text
    assert "poison" not in caplog.text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("query,item\na,b\n", r"lacks the columns \['item_id'\] \(found \['query', 'item'\]\)"),
        ("query,item_id,score\na,b,1\n", r"has columns \['score'\] already, which would be added: rename them"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused_before_anything_is_loaded(root, content, problem):
    (root / "pairs.csv").write_text(content)
    with pytest.raises(InputError, match=problem):
        score_pairs.score_file(str(root), root / "pairs.csv", root / "out.csv")
    assert not (root / "out.csv").exists()


def test_a_warehouse_without_a_live_index_is_bad_input_with_the_cure(root, capsys):
    (root / "pairs.csv").write_text(ROWS)
    assert score_pairs.main([str(root / "pairs.csv"), str(root / "out.csv"), "--root", str(root)]) == EXIT_BAD_INPUT
    assert "run `labeller relate` first" in capsys.readouterr().err


def test_vectors_of_two_bundles_are_never_multiplied(spark, root):
    index = index_titles(spark, root, write_small_bundle(root), TITLES)
    other = write_small_bundle(root, seed=1)
    with pytest.raises(InputError, match="expected one bundle for both"):
        score_pairs.score_pairs(index, other, ["kettle"], ["i1"])
