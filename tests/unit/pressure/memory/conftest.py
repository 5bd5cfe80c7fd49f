"""Bounds of connections are the native loop's: skipped where there is none. Each test has the budget to itself."""

import asyncio
import contextlib

import pytest

from penstock.loop import NATIVE

collect_ignore_glob = [] if NATIVE else ["test_*.py"]
TIMEOUT_S = 20.0


@pytest.fixture
def make_loop():
    """`make_loop(**bounds)`: a loop whose connections are bounded so."""
    from penstock._core.net.budget import shared_budget
    from penstock.loop import EventLoop
    from penstock.pressure.overload.connections import bound_memory

    with contextlib.ExitStack() as stack:
        stack.callback(shared_budget().set_marks)

        def make(**bounds):
            loop = EventLoop()
            stack.callback(loop.close)
            if bounds:
                assert bound_memory(loop, **bounds)
            return loop

        yield make
        assert shared_budget().total == 0


@pytest.fixture
def run(make_loop):
    """`run(main(), **bounds)`: run to its end, within a generous time."""

    def run_in_time(main, **bounds):
        return make_loop(**bounds).run_until_complete(asyncio.wait_for(main, TIMEOUT_S))

    return run_in_time
