"""Loops for task telemetry where it is not native: asyncio's, and uvloop's where it is installed."""

import asyncio
from collections.abc import Iterator

import pytest

from penstock.loop import NATIVE
from tests.support.loops import FOREIGN

# a watchdog needs the native loop's heartbeat
collect_ignore = [] if NATIVE else ["test_stalls.py", "driven.py"]


@pytest.fixture(params=sorted(FOREIGN))
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    fresh = FOREIGN[request.param]()
    yield fresh
    if not fresh.is_closed():
        fresh.run_until_complete(fresh.shutdown_asyncgens())
        fresh.close()


def settle(loop: asyncio.AbstractEventLoop) -> None:
    """Let done callbacks run: two turns."""
    loop.run_until_complete(asyncio.sleep(0))
    for _ in range(2):
        loop.call_soon(loop.stop)
        loop.run_forever()
