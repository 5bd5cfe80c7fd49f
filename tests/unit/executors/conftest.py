"""Process lanes to test, on penstock's loop, asyncio's and uvloop's, and what tests of them share."""

import asyncio
import functools
import os

import pytest

from penstock.config import LaneConfig
from penstock.executors.processes.lane import ProcessLane
from tests.support.loops import PRODUCTS
from tests.support.waiting import wait_until
from tests.unit.executors.shared import PATIENCE_S, call, is_zombie


@pytest.fixture(params=list(PRODUCTS))
def loop(request):
    made = PRODUCTS[request.param]()
    yield made
    made.close()


@pytest.fixture
def run(loop):
    """`run(coroutine)`: to its end in `loop`, within a time in which processes start on a busy machine."""
    return lambda main: loop.run_until_complete(asyncio.wait_for(main, PATIENCE_S))


@pytest.fixture
def lane(loop):
    """Makes lanes on the loop; they are closed, and leave no process and no descriptor, at the end."""
    before = len(os.listdir("/proc/self/fd"))
    made = []

    def make(**options):
        made.append(ProcessLane("cpu", LaneConfig(**{"kind": "processes", "workers": 1, **options})))
        return functools.partial(call, loop, made[-1]), made[-1]

    yield make
    pids = [link.pid for each in made for link in each._pool.connections]
    for each in made:
        each.close()
    # A killed worker's descriptors are closed, which ends the wait for it, before the process is gone.
    wait_until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}") and not is_zombie(pid)])
    # The forkserver and the resource tracker, both multiprocessing's, come with the first worker and stay, and so does
    # the watchdog's look at the loop's thread. What a worker's end sets free is closed by a thread.
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 5)
