"""The executor lanes of a loop, on both of penstock's loops."""

import asyncio
import concurrent.futures
import logging
import multiprocessing
import os
import socket
import sys
import threading

import pytest

from penstock.errors import ConfigError
from penstock.loop import EventLoop
from penstock.loop.lanes import CallableExecutor
from penstock.loop.selector import SelectorEventLoop as SelectorLoop

LOOPS = list(dict.fromkeys((EventLoop, SelectorLoop)))


@pytest.fixture(params=LOOPS, ids=lambda made: made.__module__)
def loop(request):
    made = request.param()
    yield made
    made.close()


class Inline(concurrent.futures.Executor):
    """Runs at once, in the caller's thread, and counts."""

    def __init__(self):
        self.calls, self.is_shut = [], False

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append(fn)
        future = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.is_shut = True


async def thread_name():
    return await asyncio.get_running_loop().run_in_executor(None, lambda: threading.current_thread().name)


def test_any_executor_may_be_the_default_one(loop):
    inline = Inline()
    loop.set_default_executor(inline)
    assert loop.run_until_complete(thread_name()) == threading.current_thread().name
    loop.close()
    assert inline.is_shut


def test_what_is_no_executor_is_refused_with_what_is_allowed(loop):
    with pytest.raises(TypeError, match=r"any other concurrent\.futures\.Executor, not int"):
        loop.set_default_executor(5)
    with pytest.raises(TypeError, match="not NoneType"):
        loop.set_dns_executor(None)


def test_a_process_pool_may_be_the_default_one_and_is_shut(loop):
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    loop.set_default_executor(pool)
    assert loop.run_until_complete(loop.run_in_executor(None, os.getpid)) != os.getpid()
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(os.getpid)


def test_look_ups_do_not_wait_for_the_default_executor(loop):
    blocked, release = threading.Event(), threading.Event()

    async def main():
        work = loop.run_in_executor(None, lambda: (blocked.set(), release.wait(5)))
        assert blocked.wait(5)
        found = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        release.set()
        await work
        return found

    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
    assert loop.run_until_complete(main()) == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    loop.run_until_complete(loop.shutdown_default_executor())


def test_look_ups_run_on_the_lane_that_was_given(loop):
    lane = Inline()
    loop.set_dns_executor(lane)
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    host, port = loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST))
    assert (host, lane.calls) == ("127.0.0.1", [socket.getaddrinfo, socket.getnameinfo])
    assert port
    loop.run_until_complete(loop.shutdown_default_executor())
    assert lane.is_shut


def test_in_debug_mode_a_look_up_is_logged(loop, caplog):
    loop.set_debug(True)
    loop.set_dns_executor(Inline())
    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    assert any("Getting address info 127.0.0.1:80 took" in record.message for record in caplog.records)


class Direct(CallableExecutor):
    """Answers a loop at once and without a concurrent future; counts who called how."""

    def __init__(self, name="direct"):
        self.name, self.calls, self.shutdowns = name, [], []

    def call(self, loop, fn, args):
        self.calls.append("call")
        future = loop.create_future()
        future.set_result(fn(*args))
        return future

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append("submit")
        future = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.shutdowns.append(wait)


class Lanes:
    """A set that makes a `Direct` for every name."""

    def __init__(self):
        self.lanes, self.shutdowns = {}, []

    def get(self, name):
        return self.lanes.setdefault(name, Direct(name))

    def default(self):
        return self.get("io")

    def made(self):
        return list(self.lanes.values())

    def start(self, loop):
        pass

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.shutdowns.append(wait)
        for lane in self.made():
            lane.shutdown(wait, cancel_futures=cancel_futures)


@pytest.fixture
def lanes(loop):
    made = Lanes()
    loop.set_lanes(made)
    return made


def test_lanes_are_made_at_first_use(loop, lanes):
    assert loop.lanes is lanes
    assert lanes.lanes == {}
    loop.run_until_complete(thread_name())
    loop.run_until_complete(thread_name())
    assert list(lanes.lanes) == ["io"]
    loop.run_until_complete(loop.getaddrinfo("localhost", 80))
    loop.run_until_complete(loop.run_in_executor("db", int, "5"))
    assert list(lanes.lanes) == ["io", "dns", "db"]


def test_a_lane_of_a_loop_is_called_without_a_concurrent_future(loop, lanes):
    assert loop.run_until_complete(loop.run_in_executor("db", int, "5")) == 5
    assert lanes.get("db").calls == ["call"]
    mine = Direct()
    loop.run_until_complete(loop.run_in_executor(mine, int, "5"))
    assert mine.calls == ["call"]


def test_from_another_thread_a_lane_is_an_ordinary_executor(loop, lanes):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            await asyncio.wrap_future(other.submit(lambda: loop.run_in_executor("db", int, "5") and None))

    loop.run_until_complete(main())
    assert lanes.get("db").calls == ["submit"]


def test_a_name_without_lanes_is_one_clear_line(loop):
    with pytest.raises(ConfigError, match=r"no lane 'db': this loop was made without lanes") as caught:
        loop.run_in_executor("db", int)
    assert "\n" not in str(caught.value)


def test_in_debug_mode_a_lane_takes_no_coroutine_function(loop, lanes):
    loop.set_debug(True)
    with pytest.raises(TypeError, match="coroutines cannot be used with run_in_executor"):
        loop.run_in_executor("db", thread_name)


def test_a_closed_loop_calls_no_lane(loop, lanes):
    lane = lanes.get("db")
    loop.close()
    for name in ("db", None, lane):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.run_in_executor(name, int)
    assert lane.calls == []


def test_closing_shuts_every_lane_while_the_loop_is_still_open(loop, lanes):
    class Watching(Direct):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait)
            loop.remove_reader(0)

    lanes.lanes = {"io": Watching(), "cpu": Watching()}
    loop.run_until_complete(thread_name())
    made = lanes.made()
    loop.close()
    loop.close()
    assert all(lane.shutdowns and not any(lane.shutdowns) for lane in made)


def test_shutting_tells_every_lane_before_it_waits_for_one(loop, lanes):
    loop.run_until_complete(thread_name())
    loop.run_until_complete(loop.run_in_executor("cpu", int))
    given = Inline()
    loop.set_dns_executor(given)
    loop.run_until_complete(loop.shutdown_default_executor())
    assert lanes.shutdowns == [False, True]
    assert given.is_shut
    for name in ("cpu", None):
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(name, int)


def test_lanes_that_were_never_used_cost_no_thread_at_the_end(loop, lanes, monkeypatch):
    monkeypatch.setattr(threading, "Thread", None)
    loop.run_until_complete(loop.shutdown_default_executor())
    assert lanes.shutdowns == [False]


def test_after_shutdown_neither_lane_takes_work(loop):
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    loop.run_until_complete(loop.shutdown_default_executor())
    for again in (loop.getaddrinfo("127.0.0.1", 80), thread_name()):
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_until_complete(again)


def test_a_closed_loop_looks_nothing_up(loop):
    loop.close()
    coroutine = loop.getaddrinfo("127.0.0.1", 80)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        coroutine.send(None)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="3.11 has no timeout, 3.12.1 waits for the work all the same")
def test_a_look_up_that_hangs_does_not_outlast_the_timeout(loop):
    release = threading.Event()

    async def main():
        stuck = loop.run_in_executor(loop._dns_executor, release.wait, 5)
        with pytest.warns(RuntimeWarning, match="did not finishing joining"):
            await loop.shutdown_default_executor(0.01)
        release.set()
        await stuck

    loop.set_dns_executor(concurrent.futures.ThreadPoolExecutor(1))
    loop.run_until_complete(main())
