"""The native core's own tests: skipped where the loop is not native."""

import asyncio

import pytest

from penstock.loop import NATIVE
from tests.support.loops import TIMEOUT_S

collect_ignore_glob = [] if NATIVE else ["test_*.py"]


@pytest.fixture
def loop():
    from penstock.loop import EventLoop

    fresh = EventLoop()
    yield fresh
    fresh.close()


@pytest.fixture
def run(loop):
    """`run(coroutine)`: to its end in `loop`, within a generous time."""
    return lambda main: loop.run_until_complete(asyncio.wait_for(main, TIMEOUT_S))
