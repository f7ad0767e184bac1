"""The Spark session as a person at the terminal meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
START = """
from etl.config import SparkJobConfig
from etl.session import start_session
start_session("quiet", SparkJobConfig(root=".", ds="2024-05-07", master="local[1]", driver_memory="1g")).stop()
"""


def test_a_session_starts_without_a_word_but_java_s_own(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines() == ["WARNING: Using incubator modules: jdk.incubator.vector"]
