"""Each behaviour on stock asyncio's loop and on penstock's."""

import functools

import pytest

from tests.support.loops import BOTH, run_on


@pytest.fixture(params=sorted(BOTH))
def run(request):
    """`run(coroutine)`: to its end, in a loop of its own, within a generous time."""
    return functools.partial(run_on, BOTH[request.param])
