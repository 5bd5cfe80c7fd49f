"""Loops for task telemetry where it is not native: asyncio's, and uvloop's where it is installed."""

import asyncio
import importlib
from collections.abc import Callable, Iterator

import pytest

from penstock.loop import NATIVE

# a watchdog needs the native loop's stamps
collect_ignore = [] if NATIVE else ["test_stalls.py", "driven.py"]

MAKERS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
try:
    MAKERS["uvloop"] = importlib.import_module("uvloop").new_event_loop
except ImportError:
    pass


@pytest.fixture(params=sorted(MAKERS))
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    fresh = MAKERS[request.param]()
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
