"""Three seconds of the soak's random operations; `make soak` runs them for ten minutes."""

import pytest

from tests.soak.stress import rounds


@pytest.mark.large
def test_random_operations_lose_no_byte_and_leave_nothing_behind(loop_factory):
    report = rounds(loop_factory, 2, seed=7)
    assert not report["wrong"]
    assert report["received_bytes"]
