"""Loops and gates that tests of backpressure ask for."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from penstock.pressure.admission.gate import Gate
from tests.support.loops import BOTH, TIMEOUT_S
from tests.unit.pressure.driving import GATES, LOOPS, Run


@pytest.fixture(params=sorted(GATES))
def gate_class(request: pytest.FixtureRequest) -> type[Gate]:
    """The gate on either core."""
    return GATES[request.param]


@pytest.fixture(params=[f"on-{name}" for name in BOTH])
def run(request: pytest.FixtureRequest) -> Run:
    """`run(coroutine)`: to its end on a loop of its own, in a bounded time, with no task left over."""
    factory = BOTH[request.param.removeprefix("on-")]

    async def alone(main: Coroutine[Any, Any, Any]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await main
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run_alone(main: Coroutine[Any, Any, Any]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(alone(main))

    return run_alone


@pytest.fixture(params=sorted(LOOPS))
def standing(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A loop whose clock stands still."""
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


@pytest.fixture
def on_loop(standing: Any) -> Run:
    """`on_loop(coroutine)`: run it to its end there."""
    run: Run = standing.run_until_complete
    return run
