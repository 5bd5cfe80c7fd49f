"""Savings of the probe: clock reads, weak references and keyword arguments. Nothing is lost by them."""

import asyncio
import gc
import sys
import time
import weakref

import pytest

from penstock.loop import EventLoop
from penstock.loop.native import native_core

TIME = 2


@pytest.fixture
def loop():
    loop = EventLoop()
    native_core(loop).probe.set_level(TIME)
    yield loop
    loop.close()


async def sleep_a_turn():
    await asyncio.sleep(0)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio's registry of C tasks is a list")
def test_a_record_shares_the_weak_reference_of_asyncios_registry(loop):
    async def main():
        task = loop.create_task(sleep_a_turn())
        return weakref.getweakrefcount(task)

    assert loop.run_until_complete(main()) == 1


def test_a_weak_reference_of_the_programs_own_is_not_kept(loop):
    called, own = [], []

    def factory(loop, coro, **kwargs):
        task = asyncio.Task(coro, loop=loop, **kwargs)
        own.append(weakref.ref(task, called.append))
        return task

    async def main():
        loop.set_task_factory(factory)
        task = loop.create_task(sleep_a_turn())
        loop.set_task_factory(None)
        # without its weak reference the program does not hear of the task's end
        own.clear()
        await task

    loop.run_until_complete(main())
    gc.collect()
    assert called == []
    assert native_core(loop).probe.ledger.outcomes().returned == 2


def test_a_loop_that_made_tasks_is_freed_without_a_collection():
    gc.collect()
    gc.disable()
    try:
        loop = EventLoop()
        native_core(loop).probe.set_level(TIME)

        async def main():
            await asyncio.gather(*(asyncio.create_task(sleep_a_turn()) for _ in range(3)))

        loop.run_until_complete(main())
        loop.close()
        freed = weakref.ref(loop)
        del loop, main
        assert freed() is None
    finally:
        gc.enable()


def test_another_task_class_in_asyncios_module_makes_the_tasks(loop, monkeypatch):
    class Own(asyncio.Task):
        pass

    async def main():
        monkeypatch.setattr(asyncio.tasks, "Task", Own)
        return type(loop.create_task(sleep_a_turn()))

    assert loop.run_until_complete(main()) is Own


def test_the_latency_of_all_tasks_is_that_of_all_sites(loop):
    async def main():
        await loop.create_task(sleep_a_turn())
        await loop.create_task(sleep_a_turn())

    loop.run_until_complete(main())
    ledger = native_core(loop).probe.ledger
    each = [row.latency for row in ledger.site_counts()]
    assert ledger.latency.count == sum(one.count for one in each) == 3
    assert ledger.latency.total_ns == sum(one.total_ns for one in each)
    assert ledger.latency.longest_ns == max(one.longest_ns for one in each)


def test_code_that_runs_as_a_callback_is_released_delays_no_timer(loop):
    class Slow:
        def __del__(self):
            time.sleep(1)

    fired = []
    began = loop.time()
    loop.call_later(1.2, lambda: fired.append(loop.time() - began) or loop.stop())
    loop.call_soon(lambda _: None, Slow())
    loop.run_forever()
    # from the time before the release the wait would be 1.2 s, and the timer fire after 2.2 s
    assert 1.2 <= fired[0] < 2


def test_a_turn_begins_where_the_last_callback_ended(loop):
    async def main():
        for _ in range(100):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    probe = native_core(loop).probe
    ran_ns = sum(times.total_ns for times in probe.took())
    assert probe.active_ns == ran_ns == probe.turn.total_ns
    assert probe.turn.count == probe.turns >= 100
