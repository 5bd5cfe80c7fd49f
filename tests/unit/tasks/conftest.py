<<<<<<< HEAD
"""Loops for task telemetry where it is not native: asyncio's, and uvloop's where it is installed."""

import asyncio
import importlib
from collections.abc import Callable, Iterator

import pytest

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
=======
"""Tasks to look at, on penstock's and on stock asyncio's loop."""

import asyncio

import pytest

import penstock


@pytest.fixture(params=["penstock", "asyncio"])
def loop(request):
    made = penstock.new_event_loop() if request.param == "penstock" else asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def start(loop):
    """`start(coroutine, name)`: a task; all of them are let go, unfinished, at the end."""
    made = []

    def begin(coroutine, name=None):
        task = loop.create_task(coroutine, name=name)
        task._log_destroy_pending = False
        made.append(task)
        return task

    yield begin
    while made:
        task = made.pop()
        # not cancelled: tasks that await each other would cancel each other without end
        if not task.done():
            task.get_coro().close() if task._fut_waiter is None else _let_go(loop, task)


def _let_go(loop, task):
    waited = task._fut_waiter
    if isinstance(waited, asyncio.Task):
        return
    task.cancel()
    settle(loop)


def settle(loop, turns=5):
    """Run what is ready, and what that makes ready."""
    for _ in range(turns):
        loop.stop()
>>>>>>> h1
        loop.run_forever()
