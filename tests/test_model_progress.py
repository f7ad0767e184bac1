"""How far a long pass is: lines without a terminal, a bar on one."""

import logging
import os
import sys
import termios

from etl.dataset import Manifest
from model import progress
from model.evaluate import evaluate
from model.fit import draw
from model.progress import advancing
from model.train_config import TrainConfig
from tests.model_data import DS, small_shop, write_dataset


def evaluated(root, caplog) -> list[str]:
    """What an evaluation says of its progress."""
    manifest: Manifest = write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    settings = TrainConfig(root=str(root), ds=DS, preset="tiny")
    encoder = draw(settings.chosen_preset(manifest).encoder, seed=1)
    with caplog.at_level(logging.INFO):
        evaluate(encoder, settings.dataset, manifest, what="random start")
    return [record.message for record in caplog.records if record.name == "model.progress"]


def test_an_evaluation_says_how_far_it_is_and_ends_with_all_of_its_titles(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    lines = evaluated(tmp_path, caplog)
    shares = [int(line.removeprefix("random start: ").partition("%")[0]) for line in lines]
    assert shares == sorted(shares)
    assert shares[0] < 100 == shares[-1]
    assert lines[-1].endswith(" tokens, eta 0s")


def test_a_short_pass_says_nothing_on_its_way(tmp_path, caplog):
    assert evaluated(tmp_path, caplog) == []


def test_on_a_terminal_a_pass_is_a_bar_and_no_lines(caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(theirs, "w") as terminal, caplog.at_level(logging.INFO):
        monkeypatch.setattr(sys, "stderr", terminal)
        with advancing("trained", 40, "token") as advance:
            advance(30)
            advance(10)
        shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "trained: 100%" in shown
    assert "40/40" in shown
    assert not caplog.records
