"""spawn(): tasks that are kept until they end, and whose failures are reported exactly once."""

import asyncio
import contextvars
import gc
import sys
import time
import weakref

import pytest

from penstock.tasks import spawning
from penstock.tasks.observers.factory import TaskFactory
from penstock.tasks.spawning import spawn
from tests.unit.tasks.conftest import settle


async def nothing():
    return 7


async def broken():
    await asyncio.sleep(0)
    raise LookupError("as asked")


@pytest.fixture
def told(loop):
    found = []
    loop.set_exception_handler(lambda _, context: found.append(context))
    return found


def finish(loop):
    for _ in range(3):
        settle(loop)
    gc.collect()


def test_a_task_without_another_reference_runs_to_its_end(loop):
    waits, ended = [], []

    async def forgotten():
        # only the task and the future refer to each other: asyncio alone would collect both
        future = asyncio.get_running_loop().create_future()
        waits.append(weakref.ref(future))
        await future
        ended.append(True)

    async def main():
        spawn(forgotten())
        await asyncio.sleep(0)
        gc.collect()
        waits.pop()().set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert ended == [True]


def test_it_is_kept_only_until_it_has_ended(loop):
    async def main():
        task = spawn(nothing())
        assert task in spawning._kept[loop]
        assert await task == 7
        await asyncio.sleep(0)
        assert loop not in spawning._kept

    loop.run_until_complete(main())


def test_the_tasks_of_a_closed_loop_are_released_by_the_next_loop():
    closed = asyncio.SelectorEventLoop()
    coro = nothing()
    task = spawn(coro, loop=closed)
    task._log_destroy_pending = False
    closed.close()
    coro.close()
    fresh = asyncio.SelectorEventLoop()
    try:
        assert fresh.run_until_complete(spawn(nothing(), loop=fresh)) == 7
        assert closed not in spawning._kept
    finally:
        fresh.close()


def test_name_and_context_are_the_tasks(loop):
    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()
    context.run(variable.set, "inside")

    async def read():
        return variable.get(), asyncio.current_task().get_name()

    async def main():
        return await spawn(read(), name="mine", context=context)

    assert loop.run_until_complete(main()) == ("inside", "mine")


def test_without_a_running_loop_it_says_so():
    coro = nothing()
    with pytest.raises(RuntimeError, match="no running event loop"):
        spawn(coro)
    coro.close()


def test_a_failure_that_is_not_awaited_reaches_the_exception_handler_once(loop, told):
    async def main():
        spawn(broken(), name="breaks")

    loop.run_until_complete(main())
    finish(loop)
    (context,) = told
    assert "task breaks failed and no code awaited it" in context["message"]
    assert "test_spawning.py" in context["message"] and "main" in context["message"]
    assert isinstance(context["exception"], LookupError)


async def by_await(task):
    with pytest.raises(LookupError):
        await task


async def by_gather(task):
    await asyncio.gather(task, return_exceptions=True)


async def by_wait(task):
    done, _ = await asyncio.wait([task])
    assert isinstance(done.pop().exception(), LookupError)


async def by_as_completed(task):
    for one in asyncio.as_completed([task]):
        with pytest.raises(LookupError):
            await one


async def by_wait_for(task):
    with pytest.raises(LookupError):
        await asyncio.wait_for(task, 5)


async def by_shield(task):
    with pytest.raises(LookupError):
        await asyncio.shield(task)


@pytest.mark.parametrize("awaits", [by_await, by_gather, by_wait, by_as_completed, by_wait_for, by_shield])
def test_an_awaited_failure_goes_to_its_awaiter_alone(loop, told, awaits):
    async def main():
        await awaits(spawn(broken()))

    loop.run_until_complete(main())
    finish(loop)
    assert told == []


def test_a_cancelled_task_is_no_failure(loop, told):
    factory = TaskFactory()
    loop.set_task_factory(factory)

    async def main():
        spawn(asyncio.sleep(60)).cancel()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    finish(loop)
    assert told == [] and factory.findings.all() == []


def test_a_failure_is_a_finding_at_once_with_its_traceback(loop, told):
    factory = TaskFactory()
    loop.set_task_factory(factory)

    async def main():
        task = spawn(broken(), name="breaks")
        with pytest.raises(LookupError):
            await task
        return factory.findings.all()

    (finding,) = loop.run_until_complete(main())
    assert (finding.kind, finding.task, finding.site.file) == ("failed", "breaks", __file__)
    assert finding.message.startswith("task breaks failed: LookupError: as asked (spawned at ")
    assert "raise LookupError" in finding.evidence["traceback"]
    finish(loop)
    assert told == []


def test_the_finding_of_a_failure_has_its_loop_and_the_age_of_the_task(loop, told):
    factory = TaskFactory(name="orders")
    loop.set_task_factory(factory)
    begun_s = time.monotonic()

    async def main():
        with pytest.raises(LookupError):
            await spawn(broken())

    loop.run_until_complete(main())
    (finding,) = factory.findings.all()
    assert finding.loop == "orders"
    assert begun_s <= finding.since_s <= time.monotonic()
    assert 0 < finding.evidence["age_s"] <= time.monotonic() - begun_s


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks from 3.12 on")
def test_a_task_that_fails_before_spawn_returns_is_reported_too(loop, told):
    async def breaks_at_once():
        raise LookupError("as asked")

    loop.set_task_factory(TaskFactory(asyncio.eager_task_factory))

    async def main():
        assert spawn(breaks_at_once()).done()

    loop.run_until_complete(main())
    finish(loop)
    assert len(told) == 1
