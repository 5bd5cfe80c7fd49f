"""Lanes let go of what a job needed as soon as it has ended, without the garbage collector: failed jobs too."""

import asyncio
import contextlib
import functools
import gc
import math
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import penstock
from penstock.config import LaneConfig
from penstock.errors import UnpicklableError
from penstock.executors.backends.adapter import ExecutorLane
from penstock.executors.processes.lane import ProcessLane
from penstock.executors.threads.lane import ThreadLane
from tests.support.waiting import wait_until


class Weighty:
    """Something one can hold a weak reference to."""

    def __init__(self):
        self.alive = weakref.ref(self)


def fail(argument, **more):
    raise ValueError("bad upload")


def give(argument, **more):
    return argument


def refuse(argument, **more):
    raise TypeError("the executor takes no such call")


class Refuses(ThreadPoolExecutor):
    submit = staticmethod(refuse)


LANES = {
    "threads": lambda **config: ThreadLane("io", LaneConfig(workers=1, **config)),
    "executor": lambda **config: ExecutorLane("io", LaneConfig(workers=1, **config), lambda: ThreadPoolExecutor(1)),
    "refusing executor": lambda **config: ExecutorLane("io", LaneConfig(workers=1, **config), lambda: Refuses(1)),
}


@pytest.fixture(params=sorted(LANES))
def make_lane(request):
    made = []
    yield lambda **config: made.append(LANES[request.param](**config)) or made[-1]
    for lane in made:
        lane.shutdown()


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def until_gone(*alive):
    wait_until(lambda: all(reference() is None for reference in alive), told="it is kept until the collector comes")


async def call(lane, function, *arguments):
    with contextlib.suppress(ValueError, TypeError, UnpicklableError):
        await lane.call(asyncio.get_running_loop(), function, arguments)


@pytest.mark.parametrize("function", [fail, give])
@pytest.mark.parametrize("new_loop", [penstock.new_event_loop, asyncio.SelectorEventLoop])
def test_a_loops_call_keeps_no_argument(make_lane, no_collector, new_loop, function):
    lane, argument = make_lane(), Weighty()
    alive = argument.alive
    loop = new_loop()
    loop.run_until_complete(call(lane, function, argument))
    del argument
    until_gone(alive)
    loop.close()


@pytest.mark.parametrize("function", [fail, give])
def test_a_threads_call_keeps_no_argument(make_lane, no_collector, function):
    lane, argument, more = make_lane(), Weighty(), Weighty()
    alive = argument.alive, more.alive
    future = lane.submit(function, argument, more=more)
    with contextlib.suppress(ValueError, TypeError):
        future.result(20)
    del argument, more, future
    until_gone(*alive)


def test_a_result_that_lives_on_keeps_no_function(make_lane, no_collector):
    lane, function = make_lane(), Weighty()
    alive = function.alive
    futures = [lane.submit(functools.partial(give, 1, more=function)), lane.submit(lambda held=function: 1)]
    for future in futures:
        with contextlib.suppress(TypeError):
            future.result(20)
    del function
    until_gone(alive)


def test_a_call_whose_time_is_up_keeps_no_argument(make_lane, no_collector):
    lane, argument, gate = make_lane(timeout_s=0.01), Weighty(), threading.Event()
    alive = argument.alive
    holding = lane.options(timeout=math.inf).submit(gate.wait)
    future = lane.submit(give, argument)
    with contextlib.suppress(TimeoutError, TypeError):
        future.result(20)
    del argument, future
    until_gone(alive)
    gate.set()
    with contextlib.suppress(TypeError):
        holding.result(20)


@pytest.mark.parametrize("content", [1, threading.Lock()], ids=["fails there", "does not pickle"])
@pytest.mark.parametrize("of", ["loop", "thread"])
def test_a_failed_job_of_a_process_keeps_no_argument(no_collector, content, of):
    lane, argument = ProcessLane("cpu", LaneConfig("processes", workers=1)), {content}
    alive = weakref.ref(argument)
    loop = asyncio.SelectorEventLoop()
    if of == "loop":
        loop.run_until_complete(call(lane, int, argument))
    else:
        future = lane.submit(int, argument)
        with pytest.raises((TypeError, UnpicklableError)):
            future.result(50)
        del future
    del argument
    until_gone(alive)
    lane.shutdown()
    loop.close()


def test_an_argument_that_does_not_pickle_is_told_with_the_place(no_collector):
    class Odd:
        def __reduce__(self):
            raise RuntimeError("not now")

    lane = ProcessLane("cpu", LaneConfig("processes", workers=1))
    told = lane.submit(int, Odd()).exception(50)
    assert "in __reduce__" in "".join(traceback.format_exception(told))
    lane.shutdown()


def test_a_call_that_its_caller_runs_keeps_no_argument(no_collector):
    for make in (LANES["threads"], LANES["executor"]):
        lane, argument = make(full="caller_runs", queue_jobs=1), Weighty()
        alive, gate = argument.alive, Weighty()
        holding = [lane.submit(time.sleep, 0.5) for _ in range(2)]
        with contextlib.suppress(ValueError):
            lane.submit(functools.partial(fail, argument)).result(0)
        asyncio.run(call(lane, fail, argument))
        assert not holding[0].done(), "the lane was not full"
        del argument, gate
        until_gone(alive)
        lane.shutdown()
