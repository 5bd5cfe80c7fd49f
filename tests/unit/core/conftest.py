"""The native core's own tests: skipped where the loop is not native."""

import pytest

from penstock.loop import NATIVE

collect_ignore_glob = [] if NATIVE else ["test_*.py"]


@pytest.fixture
def loop():
    from penstock.loop import EventLoop

    fresh = EventLoop()
    yield fresh
    fresh.close()
