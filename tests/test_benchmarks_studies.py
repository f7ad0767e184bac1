from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.studies import __main__ as studies
from benchmarks.studies.__main__ import StudyTraining
from benchmarks.studies.cells import STUDIES, Cell
from benchmarks.studies.data import keep_share, slices
from benchmarks.studies.figure import draw, table
from etl.dataset import verify
from model.encoder import Encoder
from model.presets import PRESETS
from tests.model_data import DS, small_shop, write_dataset

ROWS = {
    "bag": {
        **{"recall@10": 0.4, "recall@100": 0.8, "mrr@10": 0.4, "typos_recall@10": 0.2, "cpu_minutes": None, "seeds": 2},
        "steps": 942,
        "hardware": {1: "a machine", 2: "a GPU"},
    },
    "wider": None,
    "dropout": {
        **{"recall@10": 0.41, "recall@100": 0.8, "mrr@10": 0.4, "typos_recall@10": 0.2, "cpu_minutes": 3.0, "seeds": 1},
        **{"steps": 942, "base": "bag", "change": [0.01, -0.005, 0.025]},
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
        assert {cell.teacher, cell.base} <= {"", *STUDIES[study]}


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


TINY = {"preset": "tiny", "epochs": 0.3}


@pytest.fixture
def study(tmp_path, monkeypatch) -> list[str]:
    """Flags of a study of tiny trainings, whose cells stand in STUDIES["switches"]."""
    write_dataset(tmp_path / "studies" / "wordhash" / "datasets" / f"ds={DS}", small_shop())
    (tmp_path / "studies" / "wordhash" / "warehouse.toml").write_text("[train]\nquery_word_dropout = 0.75\ncrops = 2\n")
    cells = {"tiny": Cell(TINY), "taught": Cell(TINY, teacher="tiny"), "half": Cell(TINY, share=0.5), "later": Cell(TINY)}
    monkeypatch.setitem(STUDIES, "switches", cells)
    return ["--root", str(tmp_path), "--ds", str(DS), "--data", "", "--docs", str(tmp_path / "docs"), "--cells"]


def results(root: Path) -> dict[str, dict]:
    return {file.name: json.loads(file.read_text()) for file in (root / "studies" / "switches").glob("*.json")}


def test_a_study_has_a_row_for_each_cell_though_a_cell_changed_or_needs_another(study, tmp_path, monkeypatch):
    assert studies.main([*study, "taught", "half"]) == 0
    lines = (tmp_path / "docs" / "switches.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines if "not run" in line] == ["later"]
    made = results(tmp_path)
    assert set(made) == {"tiny-1.json", "taught-1.json", "half-1.json"}
    settings = [found["identity"]["settings"] for found in made.values()]
    assert {(each["query_word_dropout"], each["crops"]) for each in settings} == {(0.0, None)}  # not the warehouse's
    monkeypatch.setitem(STUDIES["switches"], "half", Cell(TINY | {"lr": 1e-5}, share=0.5))
    assert studies.main([*study, "half"]) == 0
    assert results(tmp_path)["half-1.json"]["values"] != made["half-1.json"]["values"]


def test_what_was_trained_from_other_settings_or_another_dataset_is_trained_again(study, tmp_path, caplog, monkeypatch):
    assert studies.main([*study, "tiny"]) == 0
    assert studies.main([*study, "tiny"]) == 0
    assert "trained again" not in caplog.text
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], lr=1e-3))
    assert studies.main([*study, "tiny"]) == 0
    assert "tiny, seed 1: of other settings or another dataset, or its bundle is gone: trained again" in caplog.text
    caplog.clear()
    dataset = tmp_path / "studies" / "wordhash" / "datasets" / f"ds={DS}"
    shutil.rmtree(dataset)
    write_dataset(dataset, small_shop(seed=1))
    assert studies.main([*study, "tiny"]) == 0
    assert "trained again" in caplog.text
    caplog.clear()
    shutil.rmtree(tmp_path / "studies" / "switches" / "tiny-1")
    assert studies.main([*study, "tiny"]) == 0
    assert "its bundle is gone: trained again" in caplog.text


def test_a_row_is_of_the_seeds_that_its_base_has_too(study, tmp_path):
    config = studies.StudiesConfig(root=str(tmp_path), ds=DS, data="")
    cells = STUDIES["switches"] | {"longer": Cell(TINY, base="later")}
    place = tmp_path / "studies" / "switches"
    place.mkdir()
    made = (("tiny", 1, 0.5), ("later", 1, 0.6), ("later", 2, 0.9), ("longer", 2, 0.7), ("longer", 3, 0.1))
    for name, seed, value in made:
        values = {measure: [value, value] for measure in studies.MEASURES}
        found = {"cpu_minutes": None, "hardware": "", "steps": 1, "values": values}
        (place / f"{name}-{seed}.json").write_text(json.dumps(found))
    rows = {name: studies.summary(config, cells, name) for name in ("tiny", "later", "longer", "half")}
    assert [rows["later"][name] for name in ("recall@10", "seeds")] == [pytest.approx(0.6), 1]
    assert [rows["longer"][name] for name in ("recall@10", "seeds", "base")] == [pytest.approx(0.7), 1, "later"]
    assert rows["longer"]["change"][0] == pytest.approx(-0.2)
    assert rows["half"] is None


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
    rows = ROWS | {"longer": ROWS["dropout"] | {"base": "dropout", "steps": 2000}}
    lines = table("switches", rows, "command", "A note.").splitlines()
    assert lines[4] == "A note."
    assert "| wider | not run |  |  |  |  |  |  |  |" in lines
    assert "| bag | 0.400 | 0.800 | 0.400 | 0.200 |  | 942 |  | 2 |" in lines
    assert lines[2].endswith("seed 1 on a machine; seed 2 on a GPU.")
    assert "| dropout | 0.410 | 0.800 | 0.400 | 0.200 | +0.010 (-0.005 to +0.025) | 942 | 3.0 | 1 |" in lines
    assert "| longer | 0.410 | 0.800 | 0.400 | 0.200 | +0.010 (-0.005 to +0.025) than dropout | 2000 | 3.0 | 1 |" in lines


def test_a_study_s_plot_has_the_cells_that_were_run(tmp_path: Path):
    draw("switches", ROWS, tmp_path / "switches.svg")
    drawn = (tmp_path / "switches.svg").read_text()
    assert "dropout" in drawn
    assert "wider" not in drawn
