"""`pytest -p tests.resume` goes on where a run was cut off: what has passed with this very source is not run again.

What passed stands in build/resume, one file for each state of the source.
"""

from pathlib import Path

import pytest

from etl.code import PACKAGES, source_hash

PASSED = Path(__file__).parents[1] / "build/resume" / source_hash((*PACKAGES, "tests"))[:12]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed."""
    passed = set(PASSED.read_text(encoding="utf-8").splitlines()) if PASSED.is_file() else set()
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down each test as it passes."""
    if report.when == "call" and report.passed:
        PASSED.parent.mkdir(parents=True, exist_ok=True)
        with PASSED.open("a", encoding="utf-8") as file:
            file.write(f"{report.nodeid}\n")
