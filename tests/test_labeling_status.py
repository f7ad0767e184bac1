"""The state of a warehouse on a terminal: Delta tables read without Spark."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from etl.contracts import LABELS_CURRENT, QUALITY, RUNS
from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from labeling import status
from tests.delta_data import lay, live_row, run_row
from tests.labeling_data import write_small_bundle
from tests.rows import DS

NEXT = DS + dt.timedelta(days=1)


def commit(ds: dt.date, stage: str = "publish") -> str:
    return json.dumps({"stage": stage, "ds": str(ds), "run_id": f"{ds}-r1", "bundle": "b1"})


def asked(capsys: pytest.CaptureFixture[str], root: Path, now: dt.date) -> dict[str, Any]:
    assert status.main(["--root", str(root), "--now", str(now), "--json"]) == EXIT_OK
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def shop(root: Path) -> Path:
    """DS went live; the audit of the day after failed once and warned once."""
    lay(root / "labels_current", LABELS_CURRENT, [live_row("i1")], userMetadata=commit(DS))
    done = [run_row("audit"), run_row("publish", counts='{"live": 1}'), run_row("audit", NEXT)]
    lay(root / "runs", RUNS, done)
    checks = [("a", True, True), ("volume", True, False), ("drift", False, False)]
    found = [{"ds": NEXT, "run_id": f"{NEXT}-r1", "check": n, "hard": h, "passed": p, "expected": ""} for n, h, p in checks]
    lay(root / "quality", QUALITY, found)
    return root


def test_what_is_live_its_age_and_the_last_run_of_each_stage(shop, capsys):
    found = asked(capsys, shop, NEXT)
    assert (found["live"]["ds"], found["live"]["run_id"], found["age_days"]) == (str(DS), f"{DS}-r1", 1)
    assert [(row["stage"], row["ds"]) for row in found["stages"]] == [("publish", str(DS)), ("audit", str(NEXT))]


def test_open_checks_are_those_of_the_last_audit_hard_ones_first(shop, capsys):
    found = asked(capsys, shop, NEXT)
    assert found["audit"] == {"ds": str(NEXT), "run_id": f"{NEXT}-r1"}
    assert [(row["check"], row["hard"]) for row in found["open_checks"]] == [("volume", True), ("drift", False)]
    assert status.main(["--root", str(shop), "--now", str(NEXT)]) == EXIT_OK
    printed = " ".join(capsys.readouterr().out.split())
    assert f"audit ds={NEXT}, run {NEXT}-r1: 1 checks failed, 1 warnings" in printed


def test_the_audit_of_an_older_day_that_a_backfill_made_again_hides_none_of_what_is_live(shop, capsys):
    older, late = DS - dt.timedelta(days=3), dt.datetime.combine(NEXT + dt.timedelta(days=9), dt.time(), dt.UTC)
    lay(shop / "runs", RUNS, [run_row("audit", older, finished_at=late)])
    found = asked(capsys, shop, NEXT)
    assert found["stages"][-1]["ds"] == str(older)
    assert found["audit"]["ds"] == str(NEXT)


def test_what_was_made_live_last_counts_though_its_day_is_older_and_compaction_does_not(shop, capsys):
    older = DS - dt.timedelta(days=3)
    lay(shop / "labels_current", LABELS_CURRENT, [live_row("i2")], userMetadata=commit(older, "rollback"))
    lay(shop / "labels_current", LABELS_CURRENT, [live_row("i3")])
    found = asked(capsys, shop, NEXT)
    assert (found["live"]["ds"], found["live"]["stage"], found["age_days"]) == (str(older), "rollback", 4)


def test_the_next_training_is_due_by_the_champions_age_and_the_warehouses_settings(shop, capsys):
    assert asked(capsys, shop, NEXT)["training_reason"] == "no champion"
    bundle = write_small_bundle(shop)
    (shop / "warehouse.toml").write_text("[train_due]\nmax_age_days = 3\n")
    found = asked(capsys, shop, NEXT)
    assert (found["champion"], found["training_due"], found["training_reason"]) == (bundle.id, "2024-05-10", None)
    assert asked(capsys, shop, DS + dt.timedelta(days=3))["training_reason"] == "the last training is 3 days old"


def test_a_warehouse_that_has_not_run_yet_says_so(root, capsys):
    assert status.main(["--root", str(root), "--now", str(DS)]) == EXIT_OK
    printed = " ".join(capsys.readouterr().out.split())
    assert "live nothing yet" in printed
    assert "training due now: no champion" in printed


def test_a_day_that_is_none_is_refused(shop, capsys):
    with pytest.raises(SystemExit) as stopped:
        status.main(["--root", str(shop), "--now", "yesterday"])
    assert stopped.value.code == EXIT_BAD_INPUT
    assert "'yesterday' is no day (expected YYYY-MM-DD)" in capsys.readouterr().err
