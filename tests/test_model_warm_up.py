from __future__ import annotations

import os
import time

from model.warm_up import STALE_SECONDS, build_beside_environment


def test_a_lock_that_a_killed_build_left_is_removed_and_one_of_a_build_that_runs_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    for name, age in (("old", STALE_SECONDS + 60), ("new", 30.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
        os.utime(tmp_path / name / "lock", (time.time() - age,) * 2)
    build_beside_environment()
    assert not (tmp_path / "old" / "lock").exists()
    assert (tmp_path / "new" / "lock").exists()
    assert "old/lock was left by a process that was killed" in caplog.text
