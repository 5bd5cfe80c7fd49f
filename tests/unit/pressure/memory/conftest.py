"""Fixtures of the tests of connections' bounds, which need the native loop. Each test has the whole budget."""

import asyncio
import contextlib

import pytest

from penstock.loop import NATIVE

collect_ignore_glob = [] if NATIVE else ["test_*.py"]
TIMEOUT_S = 20.0


@pytest.fixture
def make_loop():
    """Yield `make_loop(**bounds)`, which makes a loop with these bounds on its connections."""
    from penstock._core.limits.budget import shared_budget
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
    """Return `run(main(), **bounds)`, which runs a coroutine to its end within a generous time."""

    def run_in_time(main, **bounds):
        return make_loop(**bounds).run_until_complete(asyncio.wait_for(main, TIMEOUT_S))

    return run_in_time
