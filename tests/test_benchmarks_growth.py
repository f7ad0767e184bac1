"""What the page of the growth of cost rests on: the fit, the fixed part, lines that are kept, and the cost of a command."""

import json
import sys

import numpy as np
import pytest

from benchmarks.growth import __main__ as growth
from benchmarks.growth import stages as growth_stages
from benchmarks.growth.fit import AS_CLAIMED, SUPERLINEAR, Exponent, above_fixed, exponent, verdict
from benchmarks.growth.jobs import NIGHT, Plan, guess
from benchmarks.growth.lines import Job, Line, append, expected_seconds, missing, read
from benchmarks.growth.meter import Cost, metered
from benchmarks.growth.page import page, stage_growths
from benchmarks.speed.machine_name import slug
from etl.contracts import OUTPUTS
from etl.errors import EXIT_BAD_INPUT, InputError

SIZES = [32_000, 96_000, 320_000]
ORPHAN = """
import os, sys, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(.2)  # both parents are gone by now
        while time.process_time() < .6: pass
    os._exit(0)
os.wait()
"""


def night(plan: Plan, cpu) -> list[Line]:
    """A line for every stage at every size, of ``cpu(stage, clicks)``; there are as many pairs and items as clicks."""
    found = []
    for job in plan.jobs():
        sizes = dict.fromkeys(("clicks", "pairs", "items", "encoded"), float(job.size))
        cost = Cost(cpu(job.what, job.size), 1.0, 1.0)
        found.append(Line(job=job, cost=cost, counts=sizes, took=1.0))
    return found


@pytest.fixture
def plan(tmp_path) -> Plan:
    return Plan(root=tmp_path, clicks=SIZES[0], chosen=("pairs", "relate"))


def test_the_exponent_of_made_up_costs_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        found = exponent(SIZES * 2, [3e-4 * n**1.3 * np.exp(rng.normal(0, 0.05)) for n in SIZES * 2])
        held += found.low <= 1.3 <= found.high
    assert found.value == pytest.approx(1.3, abs=0.1)
    assert held == pytest.approx(190, abs=8)  # 95%


def test_two_points_have_an_exponent_without_an_interval():
    assert exponent([1, 2], [10, 40]) == Exponent(pytest.approx(2.0))
    assert verdict(exponent([1, 2], [10, 40]), 1.0) == "too few points for an interval"


def test_the_fixed_cost_is_taken_off():
    costs = [20 + 1e-3 * n for n in (2_000, *SIZES)]
    assert exponent(SIZES, costs[1:]).value < 0.9
    above = above_fixed([2_000, *SIZES], costs)
    assert (above.value, above.low, above.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-3)


def test_the_interval_above_a_fixed_cost_that_is_noisy_too_holds_the_exponent():
    rng = np.random.default_rng(0)
    sizes = [2_000, *SIZES] * 2
    found = [above_fixed(sizes, [(60 + 2e-6 * n**1.4) * np.exp(rng.normal(0, 0.03)) for n in sizes]) for _ in range(100)]
    assert np.median([one.value for one in found]) == pytest.approx(1.4, abs=0.05)
    assert sum(one.low <= 1.4 <= one.high for one in found) >= 90


def test_growth_that_is_lost_in_the_fixed_cost_is_no_exponent():
    assert above_fixed([2_000, *SIZES], [30.0, 29.0, 31.0, 29.5]) is None
    assert above_fixed([2_000, *SIZES], [30.0, 29.0, 29.0, 35.0]) is None  # any steep curve fits
    assert verdict(None, 1.0) == "not told from the fixed cost"


@pytest.mark.parametrize(
    ("low", "high", "said"), [(1.11, 1.3, SUPERLINEAR), (0.8, 1.1, AS_CLAIMED), (0.5, 1.5, "open: the interval is wide")]
)
def test_a_claim_is_judged_by_the_interval(low, high, said):
    assert verdict(Exponent(1.0, low, high), 1.0) == said


def test_the_page_names_what_is_superlinear(plan):
    lines = night(plan, lambda what, n: 20 + (1e-8 * n**2 if what == "relate" else 1e-4 * n))
    text = page(plan, lines, "growth.png")
    assert "Superlinear: **relate**.\n" in text
    assert [one.verdict for one in stage_growths(plan, lines)] == [AS_CLAIMED, SUPERLINEAR]
    assert "| pairs | clicks | 2,000 / 32,000 / 96,000 / 320,000 | 20.2 / 23.2 / 29.6 / 52.0 |" in text
    assert "| 0.1 | 0.35 (" in text  # milliseconds for one more click, exponent of the whole


def test_a_page_without_anything_superlinear_says_so(plan):
    assert "No stage is shown to be superlinear.\n" in page(plan, night(plan, lambda _, n: 20 + 1e-4 * n), "")


def test_what_a_stage_needs_runs_before_it_at_every_size_in_turn(tmp_path):
    jobs = Plan(root=tmp_path, clicks=4_000, factors=(1,), chosen=("dataset",)).jobs()
    wanted = [
        ("sample", 2_000),
        ("sample", 4_000),
        ("pairs", 4_000),
        ("pairs", 2_000),
        ("dataset", 2_000),
        ("dataset", 4_000),
    ]
    assert [(job.what, job.size) for job in jobs] == wanted


def test_what_is_measured_is_not_measured_again(plan, tmp_path, capsys):
    file = tmp_path / growth.LINES_FILE
    lines = night(plan, lambda *_: 1.0)
    for line in lines[:-1]:
        append(file, line)
    assert missing(plan.jobs(), read(file)) == [lines[-1].job]
    assert read(file) == lines[:-1]
    assert growth.main(["--root", str(tmp_path), "--clicks", "32000", "--stages", "pairs", "relate", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to do") == 2  # the job, and the sum


def test_time_left_is_that_of_other_rounds_or_the_guess_set_right_by_them():
    first, second, larger = (Job(group=NIGHT, what="pairs", size=n, round=r) for n, r in ((1, 1), (1, 2), (2, 1)))
    line = Line(job=first, cost=Cost(1.0, 1.0, 1.0), counts={}, took=30.0)
    assert expected_seconds(second, 10.0, [line], {first: 10.0}) == 30.0
    assert expected_seconds(larger, 20.0, [line], {first: 10.0}) == 60.0
    assert expected_seconds(larger, 20.0, [], {}) == 20.0


def test_an_interrupted_line_is_named(plan, tmp_path, capsys):
    file = tmp_path / growth.LINES_FILE
    for line in night(plan, lambda *_: 1.0)[:2]:
        append(file, line)
    file.write_text(file.read_text()[:-30])
    with pytest.raises(InputError, match=r"growth.jsonl, line 2: cut off, or no measurement .*: take the line out"):
        read(file)
    assert growth.main(["--root", str(tmp_path)]) == EXIT_BAD_INPUT
    assert "line 2: cut off" in capsys.readouterr().err


def test_lines_of_another_machine_are_not_gone_on_with(plan, tmp_path):
    file = tmp_path / growth.LINES_FILE
    append(file, night(plan, lambda *_: 1.0)[0])
    row = json.loads(file.read_text()) | {"machine": "a-laptop"}
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"line 1 was measured on a-laptop, this is .*: name another --root"):
        read(file)


def test_every_table_that_a_stage_is_to_write_anew_is_one():
    known = {table.name for table in OUTPUTS} | {"staging", "item_index"}
    assert {name for stage in growth_stages.CHAIN for name in stage.writes} <= known


def test_there_is_a_guess_for_every_job(tmp_path):
    assert all(1 < guess(job) < 1_800 for job in Plan(root=tmp_path).jobs())


def test_cpu_seconds_of_what_outlives_its_parents_are_counted(tmp_path):
    cost = metered([sys.executable, "-c", ORPHAN], tmp_path / "log")
    assert cost.cpu >= 0.6
    assert cost.wall < 60
    assert 0 < cost.gib < 1


def test_a_command_that_fails_is_an_error_with_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 3, see .*log:\nno room"):
        metered([sys.executable, "-c", "import sys; print('no room'); sys.exit(3)"], tmp_path / "log")


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        (("AMD EPYC", 2, "avx2"), "amd-epyc-2-cores-avx2"),
        (("Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz", 16, "amx_bf16"), "intel-xeon-platinum-8480c-16-cores-amx-bf16"),
        (("AMD EPYC 9654 96-Core Processor", 1, "", "NVIDIA H100 80GB HBM3"), "amd-epyc-9654-1-core-nvidia-h100-80gb-hbm3"),
    ],
)
def test_a_machine_has_a_name_that_files_can_bear(machine, wanted):
    assert slug(*machine) == wanted
