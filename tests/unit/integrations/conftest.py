"""Each behaviour on stock asyncio's loop and on penstock's."""

import asyncio

import pytest

from penstock.loop import EventLoop

FACTORIES = {"asyncio": asyncio.SelectorEventLoop, "penstock": EventLoop}
PATIENCE_S = 20.0


@pytest.fixture(params=sorted(FACTORIES))
def run(request):
    """`run(coroutine)`: to its end, in a loop of its own, within a generous time."""

    def run_in_time(main):
        with asyncio.Runner(loop_factory=FACTORIES[request.param]) as runner:
            return runner.run(asyncio.wait_for(main, PATIENCE_S))

    return run_in_time
