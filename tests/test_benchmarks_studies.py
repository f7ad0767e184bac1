from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import studies
from benchmarks.studies import StudyTraining
from benchmarks.studies_cells import STUDIES, Cell
from benchmarks.studies_data import keep_share, slices
from benchmarks.studies_figure import draw, table
from etl.dataset import verify
from model.encoder import Encoder
from tests.model_data import DS, small_shop, write_dataset

ROWS = {
    "bag": {
        **{"recall@10": 0.4, "recall@100": 0.8, "mrr@10": 0.4, "typos_recall@10": 0.2, "cpu_minutes": None, "seeds": 2},
        "hardware": {1: "a machine", 2: "a GPU"},
    },
    "wider": None,
    "dropout": {
        **{"recall@10": 0.41, "recall@100": 0.8, "mrr@10": 0.4, "typos_recall@10": 0.2, "cpu_minutes": 3.0, "seeds": 1},
        "change": [0.01, -0.005, 0.025],
        "hardware": {1: "a machine"},
    },
}


@pytest.mark.parametrize("study", STUDIES)
def test_every_cell_is_a_training_that_can_be_configured(study, tmp_path):
    for name, cell in STUDIES[study].items():
        if cell.pretrained:  # its encoder is that of the checkpoint
            continue
        config = StudyTraining(root=str(tmp_path), ds="2024-05-07", **cell.changes, encoder=dict(cell.encoder))
        spec = {"kind": cell.tokens, "rows": 512, "max_query_tokens": 8, "max_title_tokens": 16}
        chosen = config.preset_for(spec, tmp_path)
        of_preset = 2 * (cell.changes["preset"] == "hybrid")
        assert chosen.encoder.layers == cell.encoder.get("layers", of_preset), name
        Encoder(replace(chosen.encoder, rows=512))
        assert cell.teacher in ("", *STUDIES[study])


def test_of_the_study_of_inputs_only_tokens_and_layers_differ(tmp_path):
    found = set()
    for cell in STUDIES["input"].values():
        config = StudyTraining(root=str(tmp_path), ds="2024-05-07", **cell.changes, encoder=dict(cell.encoder))
        spec = {"kind": cell.tokens, "rows": 512, "max_query_tokens": 8, "max_title_tokens": 16}
        chosen = config.preset_for(spec, tmp_path)
        assert chosen.layers_from == (0.9 if chosen.encoder.layers else 0.0)
        same = replace(chosen.encoder, tokens="wordhash", layers=0, layer_norm_eps=0.0, positions=0, token_weights=False)
        found.add(replace(chosen, layers_from=0.0, encoder=same))
    assert len(found) == 1


def test_a_share_of_the_queries_keeps_all_pairs_of_some_and_every_title(tmp_path):
    whole = write_dataset(tmp_path / "whole", small_shop())
    keep_share(tmp_path / "whole", tmp_path / "half", 0.5)
    half = verify(tmp_path / "half")
    assert half.rows("titles") == whole.rows("titles")
    assert 0 < half.rows("pairs") < whole.rows("pairs")
    before, after = ({part: groups(tmp_path / name, part) for part in ("pairs", "known")} for name in ("whole", "half"))
    for part in ("pairs", "known"):
        assert after[part] == {group: rows for group, rows in before[part].items() if group in after["pairs"]}


def groups(dataset: Path, part: str) -> Counter:
    found = pa.concat_tables(pq.read_table(dataset / file.path) for file in verify(dataset).files(part))
    return Counter(found["query_group"].to_pylist())


def test_a_study_has_a_row_for_each_cell_though_a_cell_changed_or_needs_another(tmp_path, monkeypatch):
    write_dataset(tmp_path / "studies" / "wordhash" / "datasets" / f"ds={DS}", small_shop())
    (tmp_path / "studies" / "wordhash" / "warehouse.toml").write_text("[train]\nquery_word_dropout = 0.25\n")
    tiny = {"preset": "tiny", "epochs": 0.3}
    cells = {"tiny": Cell(tiny), "taught": Cell(tiny, teacher="tiny"), "half": Cell(tiny, share=0.5), "later": Cell(tiny)}
    monkeypatch.setitem(STUDIES, "switches", cells)
    flags = ["--root", str(tmp_path), "--ds", str(DS), "--data", "", "--docs", str(tmp_path / "docs"), "--cells"]
    assert studies.main([*flags, "taught", "half"]) == 0
    lines = (tmp_path / "docs" / "switches.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines if "not run" in line] == ["later"]
    made = {file: json.loads(file.read_text()) for file in (tmp_path / "studies" / "switches").glob("*.json")}
    assert {file.name for file in made} == {"tiny-1.json", "taught-1.json", "half-1.json"}
    assert {found["settings"]["query_word_dropout"] for found in made.values()} == {0.25}
    monkeypatch.setitem(cells, "half", Cell(tiny | {"lr": 1e-5}, share=0.5))
    assert studies.main([*flags, "half"]) == 0
    half = tmp_path / "studies" / "switches" / "half-1.json"
    assert json.loads(half.read_text())["values"] != made[half]["values"]


def test_every_validation_query_is_of_one_length_and_has_an_unseen_word_or_not(tmp_path):
    shop = small_shop()
    shop.queries |= {-90: "sneakers", -91: "never heard of this one"}
    shop.heldout = [("valid", -90, [1000]), ("valid", -91, [1001]), ("test", -89, [1002])]
    shop.queries[-89] = "not looked at"
    write_dataset(tmp_path / "shop", shop)
    found = {name: of.tolist() for name, of in slices(tmp_path / "shop").items()}
    assert found["5 words and more"] == found["a word in none"] == [True, False]  # -91, then -90
    assert found["1-2 words"] == found["each word in some trained query"] == [False, True]
    assert sum(map(sum, found.values())) == 4


def test_a_study_s_table_says_which_cells_were_not_run():
    lines = table("switches", ROWS, "command").splitlines()
    assert "| wider | not run |  |  |  |  |  |  |" in lines
    assert "| bag | 0.400 | 0.800 | 0.400 | 0.200 |  |  | 2 |" in lines
    assert lines[2].endswith("seeds 1 on a machine; seeds 2 on a GPU.")
    assert "| dropout | 0.410 | 0.800 | 0.400 | 0.200 | +0.010 (-0.005 to +0.025) | 3.0 | 1 |" in lines


def test_a_study_s_plot_has_the_cells_that_were_run(tmp_path: Path):
    draw("switches", ROWS, tmp_path / "switches.svg")
    drawn = (tmp_path / "switches.svg").read_text()
    assert "dropout" in drawn
    assert "wider" not in drawn
