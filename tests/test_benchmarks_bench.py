"""Comparisons beside a peer: what they reckon, what they keep, what the page of a machine says."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import bench, bench_page, plan
from benchmarks.growth.meter import Cost
from benchmarks.night import Night, profile
from benchmarks.night import compared as compared_nights
from benchmarks.speed import contrastive_loss
from benchmarks.speed.comparison import (
    NOT_REACHED,
    OPEN,
    REACHED,
    Comparison,
    code,
    faster,
    in_turn,
    read,
    record,
    tree_seconds,
)
from benchmarks.speed.contrastive_loss import same
from benchmarks.speed.encoding import compared as compared_encoders
from benchmarks.speed.machine_name import this_machine
from benchmarks.speed.reading import ROW_BY_ROW, ReadingConfig
from benchmarks.speed.reading import compared as compared_readers
from benchmarks.speed.scaling import efficiency, step_seconds
from benchmarks.speed.term_search import FAISS, TORCH
from benchmarks.speed.term_search import compared as compared_searches

FIELDS = {"question", "ours", "theirs", "peer", "ratio", "goal", "check", "spread", "hardware"}
SECONDS = [1.0, 1.1, 0.9, 1.0, 1.0]


def found(ratio: float = 2.0, **changes: object) -> Comparison:
    one = faster("topk", "a case", "faiss", SECONDS, [ratio * cost for cost in SECONDS], check="same", goal=1.5)
    return replace(one, **changes)


def test_half_the_seconds_are_a_ratio_of_two_and_reach_a_goal_below_it():
    one = found()
    assert (one.ours, one.theirs, one.turns) == (1.0, 2.0, 5)
    assert one.ratio == pytest.approx(2.0)
    assert one.spread == pytest.approx((2.0, 2.0))
    assert one.verdict == REACHED
    assert found(1.2).verdict == NOT_REACHED
    assert found(1.2, goal=None).verdict == ""


@pytest.mark.parametrize(
    ("spread", "verdict"), [((1.5, 2.0), REACHED), ((1.4, 2.0), OPEN), ((1.0, 1.6), OPEN), ((1.0, 1.4), NOT_REACHED)]
)
def test_a_goal_is_reached_or_missed_by_all_of_the_interval(spread, verdict):
    assert found(1.5, spread=spread).verdict == verdict


def test_rates_are_shown_of_the_work_of_a_turn():
    one = faster("topk", "a case", "faiss", SECONDS, SECONDS, check="same", work=300, unit="queries a CPU s")
    assert (one.ours, one.theirs, one.ratio) == (300.0, 300.0, 1.0)


def test_few_turns_have_no_interval():
    assert faster("topk", "a case", "faiss", SECONDS[:4], SECONDS[:4], check="same").spread is None


def test_sides_take_turns_after_one_to_warm_up():
    called: list[str] = []
    costs, results = in_turn(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b") or 7}, 3, clock=lambda: len(called)
    )
    assert called == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert costs == {"a": [1, 1, 1], "b": [1, 1, 1]}
    assert results == {"a": None, "b": 7}


def test_seconds_of_children_count_while_they_live_and_after():
    before = tree_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    assert tree_seconds() - before > 0.1


def test_lines_have_the_fields_that_were_promised_and_come_back_as_they_were(tmp_path: Path):
    record([found(), Comparison("topk", "on a GPU", "faiss", "s", goal=1.8, not_run="no GPU here")], tmp_path / "r.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert all(line.keys() >= FIELDS for line in lines)
    assert lines[0]["hardware"]["name"] == this_machine()
    assert [asdict(one) for one in read(tmp_path / "r.jsonl")] == [
        line | {"spread": tuple(line["spread"]) if line["spread"] else None} for line in lines
    ]


def test_a_line_that_is_no_comparison_is_named(tmp_path: Path):
    found().append_to(tmp_path / "r.jsonl")
    with (tmp_path / "r.jsonl").open("a") as lines:
        lines.write('{"question": "topk"\n')
    with pytest.raises(ValueError, match=r"r\.jsonl, line 2: not a comparison"):
        read(tmp_path / "r.jsonl")
    (tmp_path / "history.jsonl").write_text((tmp_path / "r.jsonl").read_text())
    assert bench.main(["--dry-run", "--docs", str(tmp_path)]) == 2


def test_a_page_has_the_last_run_with_the_ratios_before_it_what_is_behind_and_what_did_not_run(tmp_path: Path):
    old = [found(at="2026-01-01T00:00:00+00:00"), found(3.0, case="gone since", at="2026-01-01T00:00:00+00:00")]
    new = [found(0.8, at="2026-02-01T00:00:00+00:00"), Comparison("topk", "on a GPU", "faiss", "s", not_run="no GPU here",
           at="2026-02-01T00:00:00+00:00")]  # fmt: skip
    elsewhere = found(9.0, hardware=found().hardware | {"name": "another"})
    unasked = {"topk": "not asked", "night": "not asked on this machine yet"}
    bench_page.write([*old, *new, elsewhere], tmp_path, this_machine(), unasked)
    page = (tmp_path / f"{this_machine()}.md").read_text()
    assert (tmp_path / f"{this_machine()}.png").stat().st_size > 1_000
    assert "| a case | faiss | CPU s | 1 | 0.8 | 0.80 (0.80 to 0.80) | 1.5: not reached | same | 2.00 (2026-01-01) |" in page
    assert "Goals reached, by all of the interval: 0 of 1.\n" in page
    assert "**Goals not reached**:\n\n- topk, a case, CPU s, beside faiss: 0.80 (0.80 to 0.80), goal 1.5\n" in page
    assert "**Behind, besides**: nothing.\n" in page
    assert "- topk, on a GPU: no GPU here\n- night: not asked on this machine yet\n" in page
    assert "gone since" not in page
    assert "9.00" not in page


def test_what_was_answered_lately_by_this_code_is_not_asked_again():
    one = found()
    now = dt.datetime.fromisoformat(one.at)
    assert bench.answered([one], "topk", this_machine(), now)
    assert not bench.answered([one], "loss", this_machine(), now)
    assert not bench.answered([one], "topk", "another", now)
    assert not bench.answered([one], "topk", this_machine(), now + bench.RECENT)
    assert one.code == code()
    assert not bench.answered([replace(one, code="another")], "topk", this_machine(), now)
    assert not bench.answered([one, replace(one, failed=True)], "topk", this_machine(), now)


SCRIPT = """
import argparse
from benchmarks.speed.comparison import add_results_argument, faster, record
parser = argparse.ArgumentParser()
add_results_argument(parser)
record([faster("other", "a case", "a peer", [1.0], [2.0], check="same")], parser.parse_args().results)
"""


def test_a_question_that_fails_is_a_row_that_says_so_and_the_others_are_asked(tmp_path: Path, monkeypatch):
    (tmp_path / "a_script.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), str(tmp_path)]))
    fails, works = (bench.Question("figures", module, (), 1) for module in ("no_such_script", "a_script"))
    monkeypatch.setattr(bench, "QUESTIONS", {"topk": fails, "other": works})
    places = ["--docs", str(tmp_path / "docs"), "--scratch", str(tmp_path / "scratch")]
    assert bench.main(["--only", "topk", "other", *places]) == 1
    history = read(tmp_path / "docs" / "history.jsonl")
    assert [(one.question, one.failed) for one in history] == [("topk", True), ("other", False)]
    assert "exit code 1" in history[0].not_run
    assert "## topk" in (tmp_path / "docs" / f"{this_machine()}.md").read_text()


def test_a_later_failure_leaves_the_figures_on_the_page(tmp_path: Path):
    good = found(at="2026-01-01T00:00:00+00:00")
    fell = Comparison("topk", "ten nearest", "", "", not_run="it ended", failed=True, at="2026-02-01T00:00:00+00:00")
    bench_page.write([good, fell], tmp_path, this_machine(), {})
    page = (tmp_path / f"{this_machine()}.md").read_text()
    assert "| a case | faiss | CPU s | 1 | 2 |" in page
    assert "- topk, ten nearest: it ended\n" in page


def test_what_is_not_there_is_a_line_of_the_page_and_no_failure(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(bench, "QUESTIONS", {"bag": bench.Question("pairs", "no_such_script", (), 1, data=True)})
    (tmp_path / "docs").mkdir()
    found(hardware=found().hardware).append_to(tmp_path / "docs" / "history.jsonl")
    places = ["--docs", str(tmp_path / "docs"), "--scratch", str(tmp_path / "scratch"), "--data", str(tmp_path)]
    assert bench.main(["--only", "bag", *places]) == 0
    assert len(read(tmp_path / "docs" / "history.jsonl")) == 1
    assert f"- bag: no train.csv.gz in {tmp_path}" in (tmp_path / "docs" / f"{this_machine()}.md").read_text()


def test_labels_of_a_night_that_are_worse_than_a_scripts_end_the_comparison():
    night = Night(Cost(cpu=900.0, wall=720.0, gib=4.0), {})
    costs = {"first": night, "second": night}
    right = {"first": 0.9, "second": 0.9, "script": 0.8}
    rows = compared_nights(Cost(10.0, 10.0, 1.0), costs, Cost(40.0, 40.0, 1.0), right, 320_000)
    assert [round(one.ratio, 3) for one in rows] == [0.493, 0.5, 0.056, 0.044]
    with pytest.raises(RuntimeError, match=r"'script': 0\.95"):
        compared_nights(Cost(10.0, 10.0, 1.0), costs, Cost(40.0, 40.0, 1.0), right | {"script": 0.95}, 320_000)


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert bench.main(["--dry-run", "--docs", str(tmp_path / "docs"), "--scratch", str(tmp_path / "scratch")]) == 0
    assert "ten nearest of 100,000 terms" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_every_question_is_a_script_that_takes_what_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, question in bench.QUESTIONS.items():
        with pytest.raises(SystemExit, match="0"):
            importlib.import_module(question.module).main(["--help"])
        told = capsys.readouterr().out
        for words in bench.commands(name, tmp_path / "r.jsonl", tmp_path, "data"):
            assert [word for word in words if word.startswith("--") and word not in told] == [], name


def test_losses_that_differ_are_not_compared():
    assert "apart" in same(4.1234561, 4.1234560)
    with pytest.raises(RuntimeError, match="not comparable"):
        same(4.124, 4.123)


def test_time_and_memory_of_the_loss_are_two_rows_of_each_peer_with_the_same_check(monkeypatch):
    monkeypatch.setattr(contrastive_loss, "TURNS", 1)
    monkeypatch.setattr(contrastive_loss, "WARM_UP", 0)
    rows = contrastive_loss.compared(4_096)  # of fewer the memory is lost in what torch takes
    assert [row.peer for row in rows] == [peer for peer in contrastive_loss.PEERS.values() for _ in range(2)]
    for time, memory in (rows[:2], rows[2:]):
        assert (time.unit, memory.unit) == ("CPU s", "GiB")
        assert "apart" in time.check == memory.check


def test_other_vectors_in_fp32_end_the_comparison_of_encoders():
    seconds = {"sentence-transformers, fp32": SECONDS, "ours, fp32": SECONDS, "openvino, int8": SECONDS}
    cosines = {"sentence-transformers, fp32": 1.0, "ours, fp32": 1.0, "openvino, int8": 0.98}
    rows = compared_encoders(seconds, cosines, 64, "a case", "cpu")
    assert [one.peer for one in rows] == ["sentence-transformers fp32", "openvino int8"]
    assert rows[0].ours == 64.0
    with pytest.raises(RuntimeError, match=r"ours, fp32: a cosine of 0\.900000"):
        compared_encoders(seconds, cosines | {"ours, fp32": 0.9}, 64, "a case", "cpu")


def test_other_neighbours_end_the_comparison_of_searches():
    seconds = dict.fromkeys((FAISS, TORCH, "tiled", "ours"), SECONDS)
    equal = dict.fromkeys(seconds, 1.0)
    rows = compared_searches({"seconds": seconds, "equal": equal}, "a case", 100)
    assert [one.peer for one in rows] == [FAISS, TORCH, FAISS]
    del seconds["tiled"]  # as without AMX
    assert [one.peer for one in compared_searches({"seconds": seconds, "equal": equal}, "a case", 100)] == [FAISS, TORCH]
    with pytest.raises(RuntimeError, match=r"tiled has 0\.90000 of the places"):
        compared_searches({"seconds": seconds, "equal": equal | {"tiled": 0.9}}, "a case", 100)


def test_a_reader_that_loses_rows_ends_the_comparison_of_readers():
    config = ReadingConfig(root=".", rows=100_000, sample=50_000)
    whole = ("pyarrow read_table", "ours, row groups", "petastorm make_batch_reader")
    rows = dict.fromkeys(whole, 100_000) | {ROW_BY_ROW: 50_000}
    costs = dict.fromkeys(rows, SECONDS)
    assert {one.ratio for one in compared_readers(costs, rows, config)} == {1.0, 2.0}
    with pytest.raises(RuntimeError, match="ours, row groups gave 99,999 rows of 100,000"):
        compared_readers(costs, rows | {"ours, row groups": 99_999}, config)


def test_a_profile_says_what_is_left_between_the_stages(tmp_path: Path):
    night = Night(Cost(cpu=30.0, wall=40.0, gib=2.0), {"pairs": Cost(12.0, 20.0, 1.5), "train": Cost(10.0, 12.0, 1.0)})
    profile({"first": night}, tmp_path)
    page = (tmp_path / f"night-{this_machine()}.md").read_text()
    assert "| pairs | 20.0 | 50% | 12.0 | 1.50 |" in page
    assert "| Airflow and make, between them | 8.0 | 20% | 8.0 | |" in page


def test_the_plan_is_linear_in_the_clicks_and_says_what_is_assumed(monkeypatch):
    before = {line.stage: line.core_hours for line in plan.lines()}
    monkeypatch.setattr(plan, "CLICKS", 2 * plan.CLICKS)
    after = {line.stage: line.core_hours for line in plan.lines()}
    assert after["pairs"] == pytest.approx(2 * before["pairs"])
    assert after["predict"] == before["predict"]
    assert "none of it has run" in plan.page()


def test_an_epoch_of_the_plan_takes_its_steps_computing_and_sending():
    nodes = plan.NODES[0]
    computing, sending = step_seconds(plan.step_of(nodes), plan.GIGABITS)
    steps = plan.CLICKS * plan.WINDOW_DAYS * plan.PAIRS_PER_CLICK / (nodes * plan.BATCH)
    wall, busy = plan.training_hours(nodes)
    assert wall == pytest.approx(steps * (computing + sending) / 3600)
    assert busy < nodes * wall
    assert efficiency(plan.step_of(nodes), plan.GIGABITS) == pytest.approx(busy / (nodes * wall))
