"""Process lanes to test, on penstock's loop, asyncio's and uvloop's, and what tests of them share."""

import asyncio
import functools
import os
import time
from importlib import import_module
from importlib.util import find_spec

import pytest

import penstock
from penstock.config import LaneConfig
from penstock.executors.processes import ProcessLane
from tests.unit.executors.shared import call, is_zombie

MAKERS = {"penstock": penstock.new_event_loop, "asyncio": asyncio.new_event_loop}
if find_spec("uvloop"):
    MAKERS["uvloop"] = lambda: import_module("uvloop").new_event_loop()


@pytest.fixture(params=list(MAKERS))
def loop(request):
    made = MAKERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def lane(loop):
    """Makes lanes on the loop; they are closed, and leave no process and no descriptor, at the end."""
    before = len(os.listdir("/proc/self/fd"))
    made = []

    def make(**options):
        made.append(ProcessLane("cpu", LaneConfig(**{"kind": "processes", "workers": 1, **options})))
        return functools.partial(call, loop, made[-1]), made[-1]

    yield make
    pids = [link.pid for each in made for link in each._crew.links]
    for each in made:
        each.close()
    # A killed worker's descriptors are closed, which ends the wait for it, before the process is gone.
    wait_until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}") and not is_zombie(pid)])
    # The forkserver and the resource tracker, both multiprocessing's, come with the first worker and stay, and so does
    # the watchdog's look at the loop's thread. What a worker's end sets free is closed by a thread.
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 5)


def wait_until(condition, patience_s=20.0):
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)
