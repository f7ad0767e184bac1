"""docs/faults.md is what the tests say."""

import pytest

from tests import faults


def test_the_page_of_faults_is_made_from_the_tests():
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(), "run: python -m tests.faults"


def test_each_fault_is_injected_by_a_test_that_takes_seconds():
    lacking = [row for row, tests in faults.shown().items() if row != "soak" and all(test.slow for test in tests)]
    assert lacking == []


def test_a_mark_that_names_no_fault_is_an_error(tmp_path):
    (tmp_path / "test_x.py").write_text('import pytest\n\n@pytest.mark.fault("no such")\ndef test_y(): pass\n')
    with pytest.raises(ValueError, match="which is no row"):
        faults.shown(tmp_path)
