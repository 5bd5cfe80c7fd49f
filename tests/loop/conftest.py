"""Every behaviour test runs on stock asyncio and on penstock: what asyncio fails here is a wrong test."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.loops import BOTH, TIMEOUT_S, Factory


@pytest.fixture(params=sorted(BOTH))
def loop_factory(request: pytest.FixtureRequest) -> Factory:
    return BOTH[request.param]


@pytest.fixture
def loop(loop_factory: Factory) -> Iterator[asyncio.AbstractEventLoop]:
    """A fresh loop, not running, closed afterwards."""
    fresh = loop_factory()
    yield fresh
    if not fresh.is_closed():
        fresh.run_until_complete(fresh.shutdown_asyncgens())
        fresh.run_until_complete(fresh.shutdown_default_executor())
        fresh.close()


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Awaitable[Any]], Any]:
    """`run(awaitable)`: run it on `loop` to its end, within a generous time."""

    def run_in_time(awaitable: Awaitable[Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(awaitable, TIMEOUT_S))

    return run_in_time


@pytest.fixture
def turn(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """`turn()`: run exactly one turn of the loop, without blocking."""

    def run_one_turn() -> None:
        loop.stop()
        loop.run_forever()

    return run_one_turn


@pytest.fixture
def problems(loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    """The contexts that the loop's exception handler gets, which are not logged."""
    found: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: found.append(context))
    return found


@pytest.fixture(params=["tcp", "unix"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)
