"""Telemetry that is always on: whatever a program does to its tasks, the loop goes on, and Ctrl-C still ends it."""

import asyncio
import functools
import gc
import os
import sys
from collections.abc import Coroutine

import pytest

from penstock._core.tasks import heartbeat
from penstock.loop import EventLoop
from penstock.loop.native import native_core

OFF, COUNT, TIME, TRACE = range(4)


@pytest.fixture(params=[COUNT, TIME, TRACE])
def loop(request):
    loop = EventLoop()
    native_core(loop).probe.set_level(request.param)
    loop.set_exception_handler(lambda *_: None)
    yield loop
    native_core(loop).probe.set_check(None, 0)
    loop.close()


async def noop():
    pass


async def waits():
    await asyncio.get_running_loop().create_future()


def shape(size, more=()):
    """A class of objects of a size, with a method."""
    words = (size - object.__basicsize__) // 8
    body = {"__slots__": (*more, *(f"field{at}" for at in range(words))), "hello": lambda self: None}
    return type("Shaped", (), body)


# one of them lies in memory as this Python's tasks do
SHAPES = [
    shape(asyncio.Task.__basicsize__ + extra, more)
    for extra in (-16, 0, 16)
    for more in ((), ("__dict__", "__weakref__"))
]


def test_a_method_of_what_has_a_lost_tasks_memory_is_no_step(loop):
    taken = []

    async def main():
        for _ in range(20):
            lost = set()
            for _ in range(100):
                lost.add(id(asyncio.gather(waits())._children[0]))
            await asyncio.sleep(0)
            gc.collect()
            made = [kind() for kind in SHAPES for _ in range(100)]
            taken.extend(one for one in made if id(one) in lost)
            steps = native_core(loop).probe.ledger.steps
            for one in made:
                loop.call_soon(one.hello)
            await asyncio.sleep(0)
            # this task's own
            assert native_core(loop).probe.ledger.steps == steps + 1

    loop.run_until_complete(main())
    assert native_core(loop).probe.errors == 0
    assert (
        sum(native_core(loop).probe.ledger.outcomes()) + native_core(loop).probe.ledger.live
        == native_core(loop).probe.ledger.created
    )
    # the sanitizers give no memory a second time
    assert taken or "PENSTOCK_SANITIZE" in os.environ, "no address was used again: this has tested nothing"


def test_a_method_of_a_live_task_that_is_no_step_is_none_whatever_its_class(loop):
    class Own(asyncio.Task):
        def hello(self):
            pass

    async def main():
        task = Own(asyncio.sleep(60), loop=loop)
        await asyncio.sleep(0)
        steps = native_core(loop).probe.ledger.steps
        loop.call_soon(task.hello)
        await asyncio.sleep(0)
        assert native_core(loop).probe.ledger.steps == steps + 1
        task.cancel()

    loop.run_until_complete(main())


class Duck(Coroutine):
    """A coroutine that is not CPython's own, as Cython's are."""

    def __init__(self, body):
        self.body = body

    def send(self, value):
        return self.body.send(value)

    def throw(self, *what):
        return self.body.throw(*what)

    def close(self):
        return self.body.close()

    def __await__(self):
        return self.body.__await__()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_of_coroutines_that_are_not_cpythons_leave_no_dangling_record(loop):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        asyncio.gather(*(Duck(waits()) for _ in range(300)))
        await asyncio.sleep(0)
        gc.collect()
        rubbish = [bytearray(100 + n % 60) for n in range(5000)]
        snapshot = native_core(loop).snapshot_tasks()
        assert {snapshot[at][1]() for at in range(len(snapshot))} <= {None, asyncio.current_task()}
        del rubbish

    loop.run_until_complete(main())
    native_core(loop).probe.ledger.sweep(0)
    assert native_core(loop).probe.ledger.outcomes() == (1, 0, 0, 300)


def test_tasks_are_counted_right_though_call_soon_is_wrapped(loop):
    async def main():
        before = asyncio.create_task(asyncio.sleep(0.001))
        plain = loop.call_soon
        loop.call_soon = lambda callback, *args, context=None: plain(
            functools.partial(callback, *args), context=context
        )
        await asyncio.gather(*(noop() for _ in range(50)), before)
        never = asyncio.create_task(noop())
        never.cancel()
        await asyncio.gather(never, asyncio.create_task(fails()), return_exceptions=True)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert native_core(loop).probe.ledger.sweep(0) == []
    assert (native_core(loop).probe.ledger.outcomes(), native_core(loop).probe.ledger.live) == ((52, 1, 1, 0), 0)


async def fails():
    raise ValueError


def test_a_class_that_wraps_call_soon_is_seen_to_do_so():
    class Instrumented(EventLoop):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(functools.partial(callback, *args), context=context)

    loop = Instrumented()
    native_core(loop).probe.set_level(TIME)
    loop.run_until_complete(noop())
    loop.run_until_complete(asyncio.sleep(0))
    assert native_core(loop).probe.ledger.sweep(0) == []
    assert native_core(loop).probe.ledger.outcomes()[0] >= 1
    loop.close()


class Odd(asyncio.tasks._PyTask):
    """A task that raises `problem` when anything but asyncio asks whether it is done."""

    problem: type[BaseException] | None = None

    def done(self):
        if self.problem is not None and sys._getframe(1).f_globals["__name__"] != "asyncio.tasks":
            raise self.problem
        return super().done()


def make_odd(loop, coro):
    loop.set_task_factory(lambda loop, coro, **kwargs: Odd(coro, loop=loop, **kwargs))
    task = loop.create_task(coro)
    loop.set_task_factory(None)
    return task


def test_a_task_that_raises_when_asked_for_its_state_ends_nothing(loop, caplog):
    ran = []

    async def body():
        ran.append(1)
        await asyncio.sleep(0)
        ran.append(2)

    task = make_odd(loop, body())
    task.problem = LookupError
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert (ran, task._state) == ([1, 2], "FINISHED")
    assert native_core(loop).probe.errors == 2
    assert len([record for record in caplog.records if record.name == "penstock.tasks"]) == 1


def test_a_task_that_cannot_be_told_at_its_birth_is_made_all_the_same(loop):
    ran = []

    async def body():
        ran.append(1)

    class Raises(Odd):
        problem = LookupError

    loop.set_task_factory(lambda loop, coro, **kwargs: Raises(coro, loop=loop, **kwargs))
    task = loop.create_task(body())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (ran, task._state) == ([1], "FINISHED")
    assert native_core(loop).probe.errors >= 1


def test_ctrl_c_while_a_task_is_asked_ends_the_run_and_loses_no_callback(loop):
    ran = []
    task = make_odd(loop, noop())
    task.problem = KeyboardInterrupt
    loop.call_soon(ran.append, "after")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (ran, task._state) == (["after"], "FINISHED")
    assert native_core(loop).probe.errors == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_to_end_the_program_goes_through_the_check(loop, kind):
    ran = []

    def check():
        raise kind

    native_core(loop).probe.set_check(check, 1)
    loop.call_soon(ran.append, "kept")
    with pytest.raises(kind):
        loop.run_forever()
    native_core(loop).probe.set_check(None, 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == ["kept"]
    assert native_core(loop).probe.errors == 0


def test_what_runs_is_known_no_more_once_the_level_has_sunk():
    loop = EventLoop()
    native_core(loop).probe.set_level(TIME)
    seen = []

    def sinks():
        native_core(loop).probe.set_level(COUNT)

    loop.call_soon(sinks)
    loop.call_soon(lambda: seen.append(native_core(loop).probe.heartbeat.running_now()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [None]
    loop.close()


def test_stamps_hold_what_python_says_runs():
    one = heartbeat.Heartbeat()
    one.begin_callback([])
    gc.collect()
    assert one.running_now() == []
    one.end_callback()
    assert one.running_now() is None
