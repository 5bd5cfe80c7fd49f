"""Fixtures of the pressure tests: loops and gates."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from penstock.pressure.admission.gate import Gate
from tests.support.loops import BOTH, TIMEOUT_S
from tests.unit.pressure.driving import GATES, LOOPS, Run


@pytest.fixture(params=sorted(GATES))
def gate_class(request: pytest.FixtureRequest) -> type[Gate]:
    """Return the gate's class on each core."""
    return GATES[request.param]


@pytest.fixture(params=[f"on-{name}" for name in BOTH])
def run(request: pytest.FixtureRequest) -> Run:
    """Return `run(coroutine)`, which runs it on a new loop, in bounded time, and checks that no task is left."""
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
    """Yield a loop whose clock stands still."""
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


@pytest.fixture
def on_loop(standing: Any) -> Run:
    """Return `on_loop(coroutine)`, which runs it to its end on the loop `standing`."""
    run: Run = standing.run_until_complete
    return run
