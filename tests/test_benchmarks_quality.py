"""The quality report: its cases follow the public sets' conventions, its baselines are what they are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import ours
from benchmarks.quality.__main__ import FINE_TUNED, QualityConfig, nights_of
from benchmarks.quality.baselines import Ranked, bm25, dictionary, linear, nearest, off_the_shelf
from benchmarks.quality.measures import cut, gain, path_f1, precision_and_recall, ranked_measures
from benchmarks.quality.report import Found, Row, write_report
from benchmarks.quality.tasks import Case, Task
from benchmarks.sets.homedepot_evaluation import BUNDLE, MINILM, answer, gains
from benchmarks.studies.cells import STUDIES
from etl.config import arg_parser, from_args
from etl.dataset_config import DatasetConfig
from etl.errors import InputError
from etl.pairs_config import PairsConfig
from labeling.calibrate import CalibrateConfig
from model.train_config import TrainConfig

LABELS = ["shoe", "running shoe", "kettle", "dress"]
LEARNT = [("Air Zoom 39 black", 1), ("Air Zoom 40", 1), ("steel boiler 2 l", 2), ("steel boiler", 2), ("summer gown", 3)]
CASES = [
    Case("black running shoe", frozenset({1}), wrong=frozenset({0})),
    Case("Air Zoom 41", frozenset({1})),
    Case("a dress", frozenset({3})),
]
TASK = Task("homedepot", LABELS, LEARNT, {"whole": CASES}, {"whole": CASES})


def firsts(system, texts):
    return system(texts).labels[:, 0].tolist()


def test_a_dictionary_finds_the_longest_label_that_stands_in_the_title_and_nothing_where_none_does():
    system = dictionary(TASK)["longest"]()
    assert firsts(system, ["black running shoes", "Air Zoom 41", "dress or shoe"]) == [1, -1, 3]


def test_bm25_over_clicked_titles_finds_a_label_that_the_title_lacks_and_over_names_it_does_not():
    systems = bm25(TASK)
    assert firsts(systems["names and titles, k1 0.9, b 0.4"](), ["Air Zoom 41"]) == [1]
    assert firsts(systems["names, k1 0.9, b 0.4"](), ["Air Zoom 41"]) == [-1]


def test_a_linear_model_learns_labels_from_the_titles_that_were_clicked_for_them():
    assert firsts(linear(TASK)["1-grams, C 1"](), ["zoom", "boiler"]) == [1, 2]


def test_minilm_off_the_shelf_gives_the_label_that_means_the_same_whatever_was_clicked():
    system = nearest(TASK, off_the_shelf())
    assert firsts(system, ["electric water boiler", "evening gown", "trainers for joggers"]) == [2, 3, 1]
    assert firsts(nearest(Task("homedepot", LABELS, [], {}, {}), off_the_shelf()), ["Air Zoom 41"]) == firsts(
        system, ["Air Zoom 41"]
    )


def test_each_baseline_has_six_settings_to_choose_from():
    assert {len(family(TASK)) for family in (dictionary, bm25, linear)} == {6}


def test_labels_that_nobody_judged_are_misses_at_k_and_left_out_of_precision():
    values = precision_and_recall([[1, 2], [3], [2]], [CASES[0], CASES[1], CASES[0]])
    np.testing.assert_array_equal(values["precision"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(values["recall"], [1.0, 0.0, 0.0])
    assert ranked_measures(TASK, TASK.test, dictionary(TASK)["longest"]())["hit@1"].tolist() == [1.0, 0.0, 1.0]


def test_a_path_that_is_right_down_to_the_second_of_three_levels_has_two_thirds_of_f1():
    task = Task("bigbasket", ["a > b > c", "a > b > d", "x > b > c"], [], {}, {})
    found = Ranked(np.array([[0], [1], [2], [-1]]), np.ones((4, 1)))
    cases = [Case("", frozenset({0}))] * 4
    assert path_f1(found, cases, task) == pytest.approx([1, 2 / 3, 0, 0])


def test_further_labels_are_cut_by_their_share_of_the_first_one_s_score():
    found = Ranked(np.array([[2, 1, 0], [3, -1, -1]]), np.array([[1.0, 0.8, 0.4], [0.2, 0, 0]]))
    assert cut(found, 0.8) == [[2, 1], [3]]


def test_a_gain_is_of_the_cases_on_which_both_are_defined():
    ours, theirs = np.array([1.0, np.nan, 1.0, 1.0]), np.array([0.0, 1.0, np.nan, 0.0])
    assert gain(ours, theirs, np.array([True] * 4)) == (1.0, 1.0, 1.0)


def test_the_report_says_what_is_beaten_and_how_far_probabilities_are_off(tmp_path: Path):
    better, worse = ({"hit@1": np.array([value, 1.0] * 50)} for value in (1.0, 0.0))
    stated = np.array([[0.9, float(n % 5 > 0)] for n in range(100)])
    task = Task("homedepot", LABELS, LEARNT, {}, {}, {"all": np.ones(100, dtype=bool), "half": np.arange(100) % 2 == 1})
    write_report(task, Found([Row("ours", "", better), Row("BM25", "k1 2", worse)], stated), tmp_path, "a machine")
    text = (tmp_path / "homedepot.md").read_text()
    assert "ours against BM25: **beaten**. hit@1 +0.500" in text
    assert "ours against BM25: **not beaten**. hit@1 +0.000" in text
    assert "expected calibration error **0.100**" in text
    assert (tmp_path / "homedepot.png").stat().st_size > 5_000


def test_a_measure_that_one_of_two_has_on_no_case_decides_nothing(tmp_path: Path):
    both, none = np.array([1.0, 1.0] * 50), np.full(100, np.nan)
    ours, other = {"hit@1": both, "precision": both}, {"hit@1": both * 0, "precision": none}
    task = Task("homedepot", LABELS, LEARNT, {}, {}, {"all": np.ones(100, dtype=bool)})
    write_report(task, Found([Row("ours", "", ours), Row("silent", "", other)], np.array([[0.9, 1.0]] * 100)), tmp_path, "")
    assert "ours against silent: **beaten**. hit@1 +1.000 (+1.000 to +1.000).\n" in (tmp_path / "homedepot.md").read_text()


def test_rows_are_compared_with_those_of_other_systems_below_and_one_that_was_not_run_with_none(tmp_path: Path):
    values = {"hit@1": np.array([1.0, 0.0] * 50)}
    rows = [Row(name, "", values) for name in ("ours, zero-shot", "ours, few-shot", "ours from scratch, zero-shot", "BM25")]
    task = Task("bigbasket", LABELS, LEARNT, {}, {}, {"all": np.ones(100, dtype=bool)})
    found = Found([*rows, Row(FINE_TUNED, "not run", {})], np.array([[0.9, 1.0]] * 100))
    write_report(task, found, tmp_path, "")
    lines = (tmp_path / "bigbasket.md").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines if line.startswith("- ")] == [
        "- ours, zero-shot against ours from scratch, zero-shot",
        "- ours, zero-shot against BM25",
        "- ours, few-shot against ours from scratch, zero-shot",
        "- ours, few-shot against BM25",
        "- ours from scratch, zero-shot against BM25",
    ]
    assert f"| {FINE_TUNED} |  | not run |" in lines


def test_each_stage_takes_the_settings_that_a_night_gives_it(tmp_path: Path):
    configs = {"pairs": PairsConfig, "dataset": DatasetConfig, "train": TrainConfig, "calibrate": CalibrateConfig}
    for night in ours.NIGHTS:
        for stage, config in configs.items():
            assert settings_of(config, night, stage, tmp_path).root == str(tmp_path)


def test_minilm_is_trained_on_as_in_the_study_of_starts_with_the_word_dropout_of_the_set_s_own_night(tmp_path: Path):
    study = STUDIES["start"]["MiniLM-L6, 1 epoch at 5e-5"].changes
    for night, dropout in (("taobao-minilm", 1.0), ("homedepot-minilm", 0.0)):
        found = settings_of(TrainConfig, night, "train", tmp_path)
        assert {name: getattr(found, name) for name in study} == dict(study)
        assert found.query_word_dropout == dropout


def settings_of(config, night: str, stage: str, root: Path):
    parser = arg_parser(config, stage, "")
    return from_args(config, parser.parse_args(["--root", str(root), "--ds", ours.DS, *ours.NIGHTS[night][stage]]))


def test_a_night_of_minilm_that_is_not_there_is_left_out_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ours, "NIGHTS", {"taobao-minilm": {"warehouse": ("--unknown", "1")}})
    monkeypatch.setattr("benchmarks.quality.__main__.NIGHTS", ours.NIGHTS)
    assert nights_of("taobao", QualityConfig(root=str(tmp_path / "new"), without_minilm=True), tmp_path) == {}
    with pytest.raises(InputError, match=r"taobao-minilm: .*benchmarks.sets.taobao warehouse .* --unknown 1 failed"):
        nights_of("taobao", QualityConfig(root=str(tmp_path / "new")), tmp_path)


def test_another_encoder_of_the_retrieval_is_measured_by_its_own_vectors_and_not_fused():
    titles = {"1": "steel kettle", "2": "red dress"}
    right, wrong = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    answers = answer({BUNDLE: (right, right), MINILM: (wrong, right)}, {"kettle": {"1"}, "dress": {"2"}}, titles)
    assert [answers[name][:, 2].tolist() for name in (BUNDLE, MINILM)] == [[1.0, 1.0], [0.5, 0.5]]
    assert all(fused.startswith(f"{BUNDLE} + BM25") for fused, _, _ in gains(answers))


def test_a_stage_of_a_set_s_night_that_fails_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ours, "NIGHTS", {"taobao": {"warehouse": ("--unknown", "1")}})
    with pytest.raises(InputError, match=r"taobao: .*benchmarks.sets.taobao warehouse .* --unknown 1 failed"):
        ours.calibrated("taobao", tmp_path / "not there yet", tmp_path)
