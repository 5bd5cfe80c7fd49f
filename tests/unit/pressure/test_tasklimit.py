"""Tests of the bound on a loop's tasks: shedding, a warning or a wait, on the native loop and the pure one."""

import asyncio
import logging

import pytest

from penstock.config import Config, LoopConfig, PressureConfig, TasksConfig
from penstock.errors import Overloaded
from penstock.pressure import loop_statistics
from penstock.pressure.overload.tasks import TaskLimit
from penstock.runtime.build import build_loop
from penstock.tasks import spawn_when_free
from tests.support.loops import POLLERS
from tests.support.waiting import turns

TIMEOUT_S = 20.0


@pytest.fixture(params=POLLERS)
def make(request):
    made = []

    def make(most, full, level="time"):
        config = Config(
            loop=LoopConfig(poller=request.param),
            tasks=TasksConfig(level=level),
            pressure=PressureConfig(max_tasks=most, tasks_full=full),
        )
        made.append(build_loop(config))
        return made[-1]

    yield make
    for loop in made:
        loop.close()


async def forever(event):
    await event.wait()


@pytest.mark.parametrize("level", ["off", "time"])
def test_a_task_beyond_the_bound_is_shed_and_its_coroutine_closed(make, level):
    loop = make(4, "shed", level)

    async def main():
        event = asyncio.Event()
        tasks = [asyncio.create_task(forever(event)) for _ in range(3)]
        refused = forever(event)
        with pytest.raises(Overloaded, match=r"4 tasks live .* at most 4") as caught:
            asyncio.create_task(refused)  # noqa: RUF006 (never made)
        assert (caught.value.reason, caught.value.queued, caught.value.limit) == ("tasks", 4, 4)
        assert refused.cr_frame is None
        assert (loop_statistics().tasks_live, loop_statistics().tasks_refused) == (4, 1)
        event.set()
        await asyncio.gather(*tasks)
        # a turn that counts the ended tasks
        await asyncio.sleep(0)
        await asyncio.create_task(forever(event))

    loop.run_until_complete(main())


def test_the_first_task_beyond_the_bound_is_created_with_one_warning(make, caplog):
    loop = make(2, "warn")

    async def main():
        event = asyncio.Event()
        with caplog.at_level(logging.WARNING, "penstock.pressure"):
            tasks = [asyncio.create_task(forever(event)) for _ in range(5)]
        event.set()
        await asyncio.gather(*tasks)
        return loop_statistics().tasks_exceeded

    assert loop.run_until_complete(main()) == 4
    (record,) = caplog.records
    assert "2 tasks live in the loop, of at most 2 (pressure.max_tasks)" in record.getMessage()
    assert "test_tasklimit.py" in record.getMessage()


def test_tasks_that_wait_for_room_never_exceed_the_bound_and_are_served_in_order(make):
    loop = make(4, "wait")

    async def main():
        order, most = [], 0

        async def work(number):
            nonlocal most
            order.append(number)
            most = max(most, loop_statistics().tasks_live)
            await asyncio.sleep(0)

        tasks = []
        async with asyncio.timeout(TIMEOUT_S):
            for number in range(50):
                tasks.append(await spawn_when_free(work(number)))
            await asyncio.gather(*tasks)
        assert order == list(range(50))
        assert most == 4

    loop.run_until_complete(main())


def test_several_waiters_are_served_as_room_comes(make):
    loop = make(8, "wait")

    async def main():
        event, most = asyncio.Event(), 0

        async def work():
            nonlocal most
            most = max(most, loop_statistics().tasks_live)
            await event.wait()

        async def spawner():
            await (await spawn_when_free(work()))

        # waiting tasks count as tasks too, so they are created before the bound is set
        spawners = [asyncio.create_task(spawner()) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert loop_statistics().tasks_live == 8
        assert loop_statistics().tasks_waiting == 5
        event.set()
        await asyncio.wait_for(asyncio.gather(*spawners), TIMEOUT_S)
        assert (most, loop_statistics().tasks_waiting, loop_statistics().tasks_exceeded) == (8, 0, 0)

    loop.run_until_complete(main())


def test_a_cancelled_wait_closes_the_coroutine_and_takes_no_room(make):
    loop = make(3, "wait")

    async def main():
        event = asyncio.Event()
        busy = [asyncio.create_task(forever(event))]
        refused = forever(event)
        waiting = asyncio.create_task(spawn_when_free(refused))
        await asyncio.sleep(0)
        assert loop_statistics().tasks_waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert refused.cr_frame is None
        assert loop_statistics().tasks_waiting == 0
        event.set()
        await asyncio.gather(*busy)
        task = await asyncio.wait_for(spawn_when_free(forever(event)), TIMEOUT_S)
        await task

    loop.run_until_complete(main())


def test_without_a_bound_no_task_waits():
    loop = build_loop(Config())

    async def main():
        event = asyncio.Event()
        event.set()
        await (await spawn_when_free(forever(event)))

    loop.run_until_complete(main())
    loop.close()


class Counted:
    """A bound of one task over a count that the test sets, in place of a loop's own count."""

    def __init__(self, **options):
        self.live = 1
        self.on_room = None
        self.entered = []
        self.limit = TaskLimit(1, "wait", live=lambda: self.live, want_room=self.want_room, **options)

    def want_room(self, on_room):
        self.on_room = on_room

    async def enter(self, name):
        await self.limit.room()
        self.entered.append(name)
        self.live += 1

    async def come(self, *names):
        tasks = [asyncio.create_task(self.enter(name)) for name in names]
        await turns()
        return tasks

    def end_one(self):
        """End a task, which makes room and wakes the first waiter."""
        self.live -= 1
        self.on_room()


@pytest.fixture
def run_on(make):
    return make(1000, "warn").run_until_complete


def test_a_woken_waiter_whose_place_was_taken_is_still_the_first(run_on):
    async def main():
        counted = Counted()
        tasks = await counted.come("first", "second")
        counted.end_one()
        counted.live += 1
        await turns()
        assert counted.entered == []
        for expected in (["first"], ["first", "second"]):
            counted.end_one()
            await turns()
            assert counted.entered == expected
        await asyncio.gather(*tasks)

    run_on(main())


def test_no_later_waiter_overtakes_a_woken_one_whose_place_was_taken(run_on):
    async def main():
        counted = Counted()
        counted.limit.most = counted.live = 2
        tasks = await counted.come("first", "second", "third")
        counted.live = 0
        counted.on_room()
        counted.live = 2
        # the first waiter finds no place; before the second one runs, there is room again
        counted.limit.live = iter_live(counted, 2, 1)
        await turns()
        counted.limit.live = lambda: counted.live
        assert counted.entered in ([], ["first"])
        while len(counted.entered) < 3:
            counted.live = 0
            counted.on_room()
            await turns()
        assert counted.entered == ["first", "second", "third"]
        await asyncio.gather(*tasks)

    run_on(main())


def iter_live(counted, *first):
    """Return a function that returns these numbers one after another, and then the test's count."""
    numbers = iter(first)
    return lambda: next(numbers, counted.live)


def test_a_woken_waiter_that_is_cancelled_hands_its_place_on(run_on):
    async def main():
        counted = Counted()
        first, second = await counted.come("first", "second")
        counted.end_one()
        first.cancel()
        await turns()
        assert counted.entered == ["second"]
        assert first.cancelled()
        await second
        assert counted.limit.waiting == 0

    run_on(main())


def test_cancelling_waiters_takes_the_same_work_for_each_however_many_wait(run_on):
    async def calls_of(count):
        counted = Counted()
        tasks = await counted.come(*range(count))
        live_calls = 0

        def live():
            nonlocal live_calls
            live_calls += 1
            return counted.live

        counted.limit.live = live
        for task in reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        assert counted.limit.waiting == 0
        return live_calls

    async def main():
        assert await calls_of(200) <= 200
        assert isinstance(Counted().limit._waiters, dict)

    run_on(main())


def test_beyond_the_bound_of_waiters_the_next_is_shed_and_counted(run_on):
    async def main():
        counted = Counted(most_waiting=2)
        tasks = await counted.come("first", "second")
        with pytest.raises(Overloaded, match=r"2 callers wait .* at most 2") as caught:
            await counted.limit.room()
        assert (caught.value.reason, caught.value.queued, caught.value.limit) == ("tasks", 2, 2)
        assert (counted.limit.refused, counted.limit.waiting) == (1, 2)
        tasks[0].cancel()
        await turns()
        third = asyncio.create_task(counted.enter("third"))
        for expected in (["second"], ["second", "third"]):
            counted.end_one()
            await turns()
            assert counted.entered == expected
        await third

    run_on(main())


def test_a_shed_wait_closes_the_coroutine(make, monkeypatch):
    monkeypatch.setattr(TaskLimit, "room", shed_room)
    loop = make(1, "wait")

    async def main():
        refused = forever(asyncio.Event())
        with pytest.raises(Overloaded):
            await spawn_when_free(refused)
        assert refused.cr_frame is None

    loop.run_until_complete(main())


async def shed_room(limit):
    raise Overloaded(reason="tasks")
