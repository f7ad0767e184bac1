"""The soak as a test, which goes on where it was cut off."""

import pytest

from tests import soak
from tests.resume import PASSED


@pytest.mark.slow
@pytest.mark.fault("soak")
def test_thirty_nights_with_random_faults_label_every_item_once_and_leave_nothing_behind():
    assert soak.main([str(PASSED.parents[1] / "soak" / PASSED.name)]) == 0
