"""The task factory for other loops: its counts, the factories it composes with, and the tasks it must not disturb."""

import asyncio
import gc
import sys
import threading
import weakref

import pytest

from penstock.errors import ConfigError
from penstock.loop.selector import SelectorEventLoop as SelectorLoop
from penstock.tasks.observers import registry
from penstock.tasks.observers.factory import LEVELS, TaskFactory
from tests.unit.tasks.conftest import settle

EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks from 3.12 on")


async def nothing():
    pass


async def broken():
    raise LookupError("as asked")


def outcomes(factory):
    told = factory.statistics()
    return told.created, told.completed, told.failed, told.cancelled, told.lost, told.live


async def one_of_each():
    """Five tasks but this one: two return, one fails, one is cancelled, one is left."""
    await asyncio.create_task(nothing())
    await asyncio.create_task(asyncio.sleep(0))
    cancelled = asyncio.create_task(asyncio.sleep(60))
    cancelled.cancel()
    await asyncio.gather(cancelled, asyncio.create_task(broken()), return_exceptions=True)
    return asyncio.create_task(asyncio.sleep(60))


@pytest.mark.parametrize("level", LEVELS[1:])
def test_each_outcome_is_counted_once(loop, level):
    factory = TaskFactory(level=level)
    loop.set_task_factory(factory)
    left = loop.run_until_complete(one_of_each())
    settle(loop)
    # settle made one, and the main task was one
    assert outcomes(factory) == (7, 4, 1, 1, 0, 1)
    left.cancel()
    settle(loop)
    assert outcomes(factory) == (8, 5, 1, 2, 0, 0)


def test_off_counts_nothing_and_makes_plain_tasks(loop):
    factory = TaskFactory(level="off")
    loop.set_task_factory(factory)

    async def main():
        return type(asyncio.create_task(nothing())), list(asyncio.current_task()._callbacks)

    made, callbacks = loop.run_until_complete(main())
    assert made is asyncio.Task
    # only what run_until_complete itself adds
    assert not [callback for callback, _ in callbacks if getattr(callback, "__self__", None) is factory]
    assert outcomes(factory) == (0,) * 6
    assert registry.observer_of(loop) is None


def test_levels_change_while_tasks_live(loop):
    factory = TaskFactory(level="off")
    loop.set_task_factory(factory)

    async def main():
        gate = asyncio.Event()
        tasks = []
        for level in ("off", "count", "time", "trace", "count", "off"):
            factory.set_level(level)
            tasks.append(asyncio.create_task(gate.wait()))
        assert factory.statistics().live == 4
        gate.set()
        await asyncio.gather(*tasks)

    loop.run_until_complete(main())
    settle(loop)
    assert outcomes(factory) == (4, 4, 0, 0, 0, 0)
    # count looks at no clock
    assert factory.statistics().latency.count == 2


def test_an_unknown_level_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="off, count, time, trace"):
        TaskFactory(level="loud")
    factory = TaskFactory()
    with pytest.raises(ConfigError, match="'TIME'"):
        factory.set_level("TIME")
    assert factory.statistics().level == "time"


def test_latency_is_from_birth_to_end(loop):
    factory = TaskFactory()
    loop.set_task_factory(factory)
    loop.run_until_complete(asyncio.sleep(0.02))
    settle(loop)
    latency = factory.statistics().latency
    assert latency.count == 2
    assert 0.019 < latency.max_s < 5
    site = next(site for site in factory.sites() if site.latency.max_s == latency.max_s)
    assert site.site.function == "test_latency_is_from_birth_to_end"


def test_a_task_is_kept_alive_by_nothing_of_the_factory(loop):
    factory = TaskFactory(level="trace", stack_every=1)
    loop.set_task_factory(factory)

    async def main():
        return weakref.ref(asyncio.create_task(nothing()))

    gone = loop.run_until_complete(main())
    settle(loop)
    gc.collect()
    assert gone() is None


def test_a_task_collected_while_pending_is_lost_and_its_site_named(loop):
    factory = TaskFactory(level="trace", stack_every=1)
    loop.set_task_factory(factory)
    loop.set_exception_handler(lambda _, context: None)

    async def forgotten():
        await asyncio.get_running_loop().create_future()

    async def careless():
        asyncio.create_task(forgotten())  # noqa: RUF006 (what this test is about)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(careless())
    gc.collect()
    settle(loop)
    assert outcomes(factory)[4:] == (1, 0)
    (finding,) = factory.findings.all()
    assert finding.kind == "destroyed_pending"
    assert finding.site.function.endswith("careless") and finding.site.file == __file__
    assert finding.evidence["age_s"] > 0
    assert "careless" in finding.evidence["creation_stack"][0]
    assert factory.statistics().findings == {"destroyed_pending": 1}
    assert sum(site.created for site in factory.sites()) == factory.statistics().created


def test_a_task_collected_after_its_loop_was_closed_is_counted_and_reported():
    factory = TaskFactory()
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(factory)
    task = loop.create_task(nothing())
    task._log_destroy_pending = False
    coro = task.get_coro()
    loop.close()
    del task
    coro.close()
    gc.collect()
    assert outcomes(factory) == (1, 0, 0, 0, 1, 0)
    assert factory.statistics().findings == {"destroyed_pending": 1}


def test_a_failure_that_is_not_retrieved_is_still_reported_by_asyncio(loop):
    loop.set_task_factory(TaskFactory(level="trace"))
    told = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def main():
        asyncio.create_task(broken())  # noqa: RUF006
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    settle(loop)
    gc.collect()
    assert told == ["Task exception was never retrieved"]


# --- factories that make the tasks


def test_the_programs_own_factory_makes_the_tasks_with_the_callers_arguments(loop):
    seen = []

    def make(its_loop, coro, **kwargs):
        seen.append(kwargs)
        return asyncio.Task(coro, loop=its_loop, **kwargs)

    factory = TaskFactory(make)
    loop.set_task_factory(factory)

    async def main():
        await asyncio.create_task(nothing())
        await asyncio.create_task(nothing(), name="a name")

    loop.run_until_complete(main())
    settle(loop)
    assert outcomes(factory) == (4, 4, 0, 0, 0, 0)
    assert not any("eager_start" in kwargs for kwargs in seen)


@EAGER
def test_an_eager_task_that_ends_at_once_is_counted_without_a_callback(loop):
    factory = TaskFactory(asyncio.eager_task_factory)
    loop.set_task_factory(factory)

    async def main():
        at_once = asyncio.create_task(nothing())
        assert at_once.done() and not at_once._callbacks
        later = asyncio.create_task(asyncio.sleep(0))
        assert factory.statistics().eager == 1
        await later
        await asyncio.gather(asyncio.create_task(broken()), return_exceptions=True)

    loop.run_until_complete(main())
    settle(loop)
    told = factory.statistics()
    assert (told.created, told.completed, told.failed, told.eager, told.live) == (5, 4, 1, 2, 0)


@EAGER
def test_eager_start_of_one_task_reaches_asyncio(loop):
    factory = TaskFactory()
    loop.set_task_factory(factory)

    async def main():
        return factory(asyncio.get_running_loop(), nothing(), eager_start=True).done()

    assert loop.run_until_complete(main())
    assert factory.statistics().eager == 1


def test_names_and_contexts_pass_through(loop):
    loop.set_task_factory(TaskFactory())

    async def main():
        return asyncio.create_task(nothing(), name="first").get_name()

    assert loop.run_until_complete(main()) == "first"


def test_an_object_that_is_no_task_is_returned_as_it_is(loop):
    factory = TaskFactory(lambda loop, coro, **_: (coro.close(), 7)[1])
    assert factory(loop, nothing()) == 7
    assert outcomes(factory) == (0,) * 6


def test_penstocks_pure_loop_takes_it_as_a_hook_and_leaves_the_factory_free():
    loop = SelectorLoop()
    factory = TaskFactory()
    loop.set_task_hook(factory.hook)
    made = []

    def own(its_loop, coro, **kwargs):
        made.append(coro)
        return asyncio.Task(coro, loop=its_loop, **kwargs)

    try:
        loop.set_task_factory(own)
        assert loop.get_task_factory() is own
        loop.run_until_complete(nothing())
        settle(loop)
        assert len(made) == 2
        assert outcomes(factory) == (2, 2, 0, 0, 0, 0)
        assert {site.site.file for site in factory.sites()} == {__file__, settle.__code__.co_filename}
    finally:
        loop.close()


# --- its readings


def test_it_speaks_for_its_loop_and_goes_with_it():
    loop = asyncio.SelectorEventLoop()
    factory = TaskFactory()
    loop.set_task_factory(factory)
    loop.run_until_complete(nothing())
    assert registry.observer_of(loop) is factory
    told = factory.statistics()
    assert (told.loop, told.implementation, told.level) == (factory.name, "asyncio", "time")
    assert factory in registry.observers()
    loop.close()
    assert factory not in registry.observers()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_an_observer_that_is_there_already_stays(loop):
    first, second = TaskFactory(), TaskFactory()
    loop.set_task_factory(first)
    loop.run_until_complete(nothing())
    loop.set_task_factory(second)
    loop.run_until_complete(nothing())
    assert registry.observer_of(loop) is first
    settle(loop)
    assert outcomes(second)[:2] == (2, 2)


def test_live_tasks_have_name_site_age_and_state(loop):
    factory = TaskFactory()
    loop.set_task_factory(factory)

    async def main():
        waits = asyncio.create_task(asyncio.sleep(60), name="waits")
        await asyncio.sleep(0)
        ready = asyncio.create_task(nothing(), name="is ready")
        live = factory.live()
        assert len(live) == 3
        found = {task.name: task for task in live}
        current = found[asyncio.current_task().get_name()]
        waits.cancel()
        await asyncio.wait([waits, ready])
        return current, found["waits"], found["is ready"], live

    current, waits, ready, live = loop.run_until_complete(main())
    assert [task.state for task in (current, waits, ready)] == ["running", "waiting", "ready"]
    assert waits.site.function.endswith("main") and waits.site.file == __file__
    assert current.age_s >= waits.age_s >= ready.age_s >= 0
    assert waits.age_s == waits.waiting_s
    assert [task.number for task in live] == sorted(task.number for task in live)
    # a snapshot does not change, except that collected tasks have no name
    assert len(live) == 3 and [task.number for task in live[1:]] == [waits.number, ready.number]


def test_live_can_be_read_from_another_thread_while_tasks_come_and_go(loop):
    factory = TaskFactory()
    loop.set_task_factory(factory)
    problems, done = [], threading.Event()

    def read():
        while not done.is_set():
            try:
                for task in factory.live():
                    assert task.site.file
                told = factory.statistics()
                assert told.created == told.completed + told.live and told.live >= 0
            except BaseException as problem:
                problems.append(problem)
                return

    async def main():
        for _ in range(40):
            await asyncio.gather(*[asyncio.create_task(asyncio.sleep(0)) for _ in range(50)])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        loop.run_until_complete(main())
    finally:
        done.set()
        reader.join()
    assert not problems
    settle(loop)
    assert outcomes(factory) == (2002, 2002, 0, 0, 0, 0)


def test_trace_keeps_births_ends_and_creation_stacks(loop):
    factory = TaskFactory(level="trace", stack_every=1)
    loop.set_task_factory(factory)

    async def outer():
        return await inner()

    async def inner():
        task = asyncio.create_task(asyncio.sleep(0))
        stack = factory.creation_stack(task)
        await task
        return stack

    stack = loop.run_until_complete(outer())
    assert [frame.function.rpartition(".")[2] for frame in stack[:2]] == ["inner", "outer"]
    assert len(stack) <= 8
    events = factory.events()
    assert [event.kind for event in events[:3]] == ["birth", "birth", "end"]
    assert events[1].task == events[2].task and events[1].at_ns <= events[2].at_ns
    assert "inner" in events[1].text


def test_stacks_are_kept_of_a_sample_only(loop):
    factory = TaskFactory(level="trace", stack_every=4)
    loop.set_task_factory(factory)

    async def main():
        tasks = [asyncio.create_task(nothing()) for _ in range(40)]
        kept = sum(bool(factory.creation_stack(task)) for task in tasks)
        await asyncio.gather(*tasks)
        return kept

    assert loop.run_until_complete(main()) == 10


def test_events_beyond_the_ring_are_counted_as_dropped(loop, monkeypatch):
    monkeypatch.setattr("penstock.tasks.observers.factory.MOST_EVENTS", 10)
    factory = TaskFactory(level="trace")
    loop.set_task_factory(factory)
    for _ in range(10):
        loop.run_until_complete(nothing())
    settle(loop)
    assert len(factory.events()) == 10
    assert factory.statistics().dropped == 12


def test_a_factory_of_two_loops_is_one_observer():
    factory, loops = TaskFactory(), [asyncio.SelectorEventLoop() for _ in range(2)]
    try:
        for loop in loops:
            loop.set_task_factory(factory)
            loop.run_until_complete(nothing())
        assert [registry.observer_of(loop) for loop in loops] == [factory, factory]
        assert registry.observers().count(factory) == 1
        assert factory.statistics().created == 2
    finally:
        for loop in loops:
            loop.close()
