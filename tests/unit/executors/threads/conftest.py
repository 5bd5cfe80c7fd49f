"""Loops of both kinds, and lanes of threads that are shut when a test is over."""

import math
import threading

import pytest

from penstock.config import LaneConfig
from penstock.executors.threads.lane import ThreadLane
from tests.support.loops import BOTH


@pytest.fixture(params=sorted(BOTH))
def loop(request):
    made = BOTH[request.param]()
    yield made
    made.close()


@pytest.fixture
def make_lane():
    """`make_lane(name="io", **config)`: a lane of threads."""
    made = []

    def make(name="io", **config):
        made.append(ThreadLane(name, LaneConfig(**config)))
        return made[-1]

    yield make
    for lane in made:
        lane.shutdown(wait=True, cancel_futures=True)


class Plug:
    """Keeps threads busy until it is pulled: `lane.submit(plug)`, `plug.wait_until_in(2)`, ..., `plug.pull()`."""

    def __init__(self):
        self._entered, self._pulled = threading.Semaphore(0), threading.Event()

    def __call__(self, value=None):
        self._entered.release()
        # longer than any test may last: a plug that lets go makes the lane free
        assert self._pulled.wait(300)
        return value

    def wait_until_in(self, count=1):
        for _ in range(count):
            assert self._entered.acquire(timeout=20)

    def pull(self):
        self._pulled.set()


@pytest.fixture
def plug():
    made = Plug()
    yield made
    made.pull()


@pytest.fixture
def busy(make_lane, plug):
    """`busy(**config)`: a lane whose one thread the plug keeps busy."""

    def make(**config):
        lane = make_lane(workers=1, **config)
        # the plug's own time is never up, however short the lane's timeout and slow the machine
        lane.options(timeout=math.inf).submit(plug)
        plug.wait_until_in()
        return lane

    return make
