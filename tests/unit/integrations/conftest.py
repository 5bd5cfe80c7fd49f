"""Each behaviour on stock asyncio's loop and on penstock's."""

import functools

import pytest

from tests.support.loops import BOTH, run_on


@pytest.fixture(params=sorted(BOTH))
def run(request):
    """Return `run(coroutine)`, which runs it to its end in a new loop, within a generous time."""
    return functools.partial(run_on, BOTH[request.param])
