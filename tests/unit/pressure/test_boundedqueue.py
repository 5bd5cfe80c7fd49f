"""Tests of queues: each claim holds for asyncio's and penstock's, except `shutdown()` before Python 3.13."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pressure import LifoQueue, PriorityQueue, Queue, QueueShutDown
from penstock.testing import explore
from tests.support.waiting import turns
from tests.unit.pressure.driving import cancelled

Make = Callable[[int], asyncio.Queue[Any]]
ONES = [asyncio.Queue, Queue]
# asyncio's queue has shutdown() since Python 3.13
SHUTTABLE = ONES if sys.version_info >= (3, 13) else [Queue]


@pytest.fixture(params=ONES, ids=["asyncio", "penstock"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def test_ours_is_asyncios_and_has_a_bound() -> None:
    assert isinstance(Queue(1), asyncio.Queue)
    assert isinstance(LifoQueue(1), asyncio.LifoQueue)
    assert isinstance(PriorityQueue(1), asyncio.PriorityQueue)
    with pytest.raises(ValueError, match="maxsize = 0: must be at least 1"):
        Queue(0)
    with pytest.raises(TypeError):
        Queue()  # type: ignore[call-arg]


async def test_items_come_out_in_the_queues_order() -> None:
    for kind, order in ((Queue, [2, 3, 1]), (LifoQueue, [1, 3, 2]), (PriorityQueue, [1, 2, 3])):
        queue = kind(3)
        for item in (2, 3, 1):
            queue.put_nowait(item)
        assert [await queue.get() for _ in range(3)] == order


async def test_calls_that_may_not_wait_raise(make: Make) -> None:
    queue = make(1)
    assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (1, 0, True, False)
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
    queue.put_nowait("a")
    assert (queue.qsize(), queue.empty(), queue.full()) == (1, False, True)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait("b")
    assert queue.get_nowait() == "a"


async def test_the_repr_counts_the_waiters(make: Make) -> None:
    queue = make(1)
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    await turns()
    assert str(queue) == "<Queue maxsize=1 _getters[2]>"
    await cancelled(*getters)
    putters = [asyncio.create_task(queue.put(item)) for item in range(3)]
    await turns()
    assert str(queue) == "<Queue maxsize=1 _queue=[0] _putters[2] tasks=1>"
    await cancelled(*putters[1:])


async def test_putters_wait_in_turn(make: Make) -> None:
    queue = make(1)
    putters = [asyncio.create_task(queue.put(item)) for item in range(4)]
    assert [await queue.get() for _ in range(4)] == [0, 1, 2, 3]
    await asyncio.gather(*putters)


async def test_getters_wait_in_turn(make: Make) -> None:
    queue, got = make(1), []

    async def get(name: int) -> None:
        got.append((name, await queue.get()))

    getters = [asyncio.create_task(get(name)) for name in range(4)]
    await turns()
    for item in range(4):
        await queue.put(item)
        await turns()
    await asyncio.gather(*getters)
    assert got == [(0, 0), (1, 1), (2, 2), (3, 3)]


async def test_a_getter_cancelled_when_it_is_woken_wakes_the_next(make: Make) -> None:
    queue = make(2)
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await turns()
    queue.put_nowait("item")
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.result() == "item"


async def test_a_putter_cancelled_when_it_is_woken_wakes_the_next(make: Make) -> None:
    queue = make(1)
    queue.put_nowait(0)
    first, second = (asyncio.create_task(queue.put(item)) for item in (1, 2))
    await turns()
    assert queue.get_nowait() == 0
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert queue.get_nowait() == 2


async def test_a_closed_wait_blocks_no_other(make: Make) -> None:
    queue = make(1)
    for closes in (1, 2):
        first, second = queue.get(), asyncio.create_task(queue.get())
        first.send(None)
        await turns()
        if closes == 2:
            queue.put_nowait("item")
        first.close()
        if closes == 1:
            queue.put_nowait("item")
        assert await second == "item"


async def test_join_waits_for_all_that_was_put(make: Make) -> None:
    queue = make(4)
    await queue.join()
    for item in range(3):
        queue.put_nowait(item)
    joining = asyncio.create_task(queue.join())
    for _ in range(3):
        await turns()
        assert not joining.done()
        queue.get_nowait()
        queue.task_done()
    await joining
    with pytest.raises(ValueError, match=r"^task_done\(\) called too many times$"):
        queue.task_done()


@pytest.mark.parametrize("make", SHUTTABLE)
async def test_a_shut_down_queue_gives_what_it_has_and_takes_nothing(make: Any) -> None:
    queue = make(2)
    queue.put_nowait("left")
    queue.shutdown()
    with pytest.raises(QueueShutDown):
        await queue.put("more")
    with pytest.raises(QueueShutDown):
        queue.put_nowait("more")
    assert await queue.get() == "left"
    with pytest.raises(QueueShutDown):
        await queue.get()
    with pytest.raises(QueueShutDown):
        queue.get_nowait()
    queue.task_done()
    await queue.join()
    assert str(queue).endswith(" shutdown>")


@pytest.mark.parametrize("make", SHUTTABLE)
async def test_shutting_down_at_once_throws_away_what_is_left_and_ends_join(make: Any) -> None:
    queue = make(3)
    for item in range(3):
        queue.put_nowait(item)
    queue.get_nowait()
    joining = asyncio.create_task(queue.join())
    await turns()
    queue.shutdown(immediate=True)
    with pytest.raises(QueueShutDown):
        queue.get_nowait()
    await turns()
    assert not joining.done()
    queue.task_done()
    await joining


@pytest.mark.parametrize("make", SHUTTABLE)
@pytest.mark.parametrize("immediate", [False, True])
async def test_shutting_down_wakes_all_that_wait(make: Any, immediate: bool) -> None:
    empty, full = make(1), make(1)
    full.put_nowait("item")
    getters = [asyncio.create_task(empty.get()) for _ in range(3)]
    putters = [asyncio.create_task(full.put(item)) for item in range(3)]
    await turns()
    empty.shutdown(immediate)
    full.shutdown(immediate)
    ends = await asyncio.gather(*getters, *putters, return_exceptions=True)
    assert [type(end) for end in ends] == [QueueShutDown] * 6


# Steps applied to the queue and to a plain list. A call that waits is cancelled, so that the model needs no waiters.
STEPS = st.lists(st.sampled_from(["put", "get", "put, cancelled", "get, cancelled", "done", "shutdown"]), max_size=40)


@pytest.mark.parametrize("make", SHUTTABLE)
@settings(max_examples=60, deadline=None)
@given(steps=STEPS, maxsize=st.integers(1, 4))
def test_any_steps_give_what_a_list_gives(make: Any, steps: list[str], maxsize: int) -> None:
    asyncio.run(_compare(make(maxsize), steps, maxsize))


async def _compare(queue: Any, steps: list[str], maxsize: int) -> None:
    model: list[int] = []
    unfinished, shut = 0, False
    for number, step in enumerate(steps):
        kind, _, end = step.partition(", ")
        if kind == "done":
            if unfinished:
                queue.task_done()
                unfinished -= 1
        elif kind == "shutdown":
            shut = True
            queue.shutdown()
        else:
            ended = await _tried(queue.put(number) if kind == "put" else queue.get(), end == "cancelled")
            if shut and (kind == "put" or not model):
                assert isinstance(ended, asyncio.CancelledError if end else QueueShutDown)
            elif isinstance(ended, asyncio.CancelledError):
                assert end or (len(model) == maxsize if kind == "put" else not model)
            elif kind == "put":
                model.append(number)
                unfinished += 1
            else:
                assert ended == model.pop(0)
        assert (queue.qsize(), queue.full(), queue.empty()) == (len(model), len(model) == maxsize, not model)
        assert "ters[" not in str(queue)


async def _tried(call: Any, cancel: bool) -> Any:
    """Return the result of a call that need not wait; otherwise cancel it."""
    task = asyncio.create_task(call)
    if not cancel:
        await turns()
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    return ended


def test_no_item_is_lost_wherever_a_task_is_cancelled() -> None:
    async def main() -> None:
        queue: Queue[int] = Queue(1)
        put: list[int] = []
        got: list[int] = []

        async def producer(first: int) -> None:
            for item in range(first, first + 3):
                await queue.put(item)
                put.append(item)

        async def consumer() -> None:
            for _ in range(3):
                got.append(await queue.get())

        tasks = [asyncio.create_task(producer(number * 10)) for number in range(2)]
        tasks += [asyncio.create_task(consumer()) for _ in range(2)]
        await asyncio.wait(tasks, timeout=1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not queue.empty():
            got.append(queue.get_nowait())
        assert sorted(got) == sorted(put)
        assert "ters[" not in str(queue)

    explore(main, seeds=range(10))
