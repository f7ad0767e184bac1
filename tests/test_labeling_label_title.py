"""`label` answers from the promoted bundle, on real vectors of an untrained encoder: equal words, equal n-grams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeling import label_title
from tests.bundles import promote_untrained_bundle
from tests.rows import node, term


def write_parquet(root: Path, name: str, rows: list[dict[str, object]]) -> None:
    (root / name).mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / name / "part.parquet")


@pytest.fixture
def shop(root: Path) -> Path:
    write_parquet(root, "vocabulary", [term("t1", "steel kettle", synonyms=["kettle"]), term("t2", "running shoes")])
    write_parquet(root, "taxonomy", [node("c1", None, "Kitchen"), node("c2", "c1", "Kettle"), node("c3", None, "Shoes")])
    (root / "warehouse.toml").write_text("[predict]\nmin_probability = 0.1\nmin_step_probability = 0.0\n")
    promote_untrained_bundle(root)
    return root


def labelled(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, object]]:
    assert label_title.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_title_gets_its_term_with_probability_and_its_category_path(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = labelled(capsys, "Kettle 1.7 l", "--root", str(shop))
    assert found["terms"][0]["term_id"] == "t1"  # type: ignore[index]
    assert found["terms"][0]["lexical_hit"] is True  # type: ignore[index]
    assert 0 <= found["terms"][0]["probability"] <= 1  # type: ignore[index]
    assert found["category"]["path"] == ["Kitchen", "Kettle"]  # type: ignore[index]


def test_several_titles_are_answered_in_their_order_and_one_without_text_says_why(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = labelled(capsys, "running shoes", "👟 !!", "kettle", "--root", str(shop))
    assert [entry["title"] for entry in found] == ["running shoes", "👟 !!", "kettle"]
    assert [entry["term_reason"] for entry in found] == [None, "no_text", None]
    assert found[1]["category"]["stopped"] == "no_text"  # type: ignore[index]


def test_half_that_the_warehouse_declares_absent_is_skipped(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "warehouse.toml").write_text('[warehouse]\nabsent = ["taxonomy"]\n\n[predict]\nmin_probability = 0.0\n')
    (found,) = labelled(capsys, "kettle", "--root", str(shop))
    assert found["category"] is None
    assert found["terms"]


def test_terminal_shows_title_term_and_path_and_says_that_nothing_is_calibrated(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label_title.main(["Kettle [black]", "--root", str(shop)]) == 0
    out = capsys.readouterr().out
    for text in ("Kettle [black]", "steel kettle", "Kitchen > Kettle", "not calibrated"):
        assert text in out


def test_warehouse_without_a_promoted_bundle_is_refused_with_the_cure(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label_title.main(["kettle", "--root", str(root)]) == 2
    assert "labeller promote" in capsys.readouterr().err


def test_no_java_is_started(shop: Path) -> None:
    command = [sys.executable, "-m", "labeling.label_title", "kettle", "--root", str(shop)]
    environment = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "steel kettle" in done.stdout
