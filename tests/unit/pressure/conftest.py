"""What tests of gates ask for."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from penstock.pressure.gate import Gate
from tests.unit.pressure.driving import GATES, LOOPS


@pytest.fixture(params=sorted(GATES))
def gate_class(request: pytest.FixtureRequest) -> type[Gate]:
    """The gate on either core."""
    return GATES[request.param]


@pytest.fixture(params=sorted(LOOPS))
def standing(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A loop whose clock stands still."""
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


@pytest.fixture
def on_loop(standing: Any) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """`on_loop(main)`: run `main()` there."""

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        return standing.run_until_complete(main())

    return run
