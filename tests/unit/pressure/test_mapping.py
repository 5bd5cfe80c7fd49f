"""Tests of `map_bounded`: running calls, items read, order of results, and cleanup after every kind of end."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from penstock.pressure import map_bounded
from penstock.testing import explore
from tests.support.waiting import turns
from tests.unit.pressure.driving import cancelled


class Counted:
    """Calls that each run for as many turns as their item says, with counts of items read and of running calls."""

    def __init__(self) -> None:
        self.read = self.running = self.most = self.handed = 0
        self.closed = False

    def items(self, lengths: list[int]) -> Iterator[int]:
        try:
            for length in lengths:
                self.read += 1
                yield length
        finally:
            self.closed = True

    async def aitems(self, lengths: list[int]) -> AsyncIterator[int]:
        try:
            for length in lengths:
                await asyncio.sleep(0)
                self.read += 1
                yield length
        finally:
            await asyncio.sleep(0)
            self.closed = True

    async def call(self, length: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await turns(length)
            if length == 13:
                raise ZeroDivisionError("13")
            return length
        finally:
            self.running -= 1


@pytest.fixture(params=["sync", "async"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def taken(counted: Counted, source: str, lengths: list[int]) -> Any:
    return counted.items(lengths) if source == "sync" else counted.aitems(lengths)


async def test_results_come_in_the_order_of_the_items(source: str) -> None:
    counted, lengths = Counted(), [5, 0, 3, 9, 1, 1, 7, 2]
    assert [one async for one in map_bounded(counted.call, taken(counted, source, lengths), 3)] == lengths
    assert counted.most == 3 if source == "sync" else counted.most <= 3
    assert counted.closed


async def test_or_as_they_are_done(source: str) -> None:
    counted = Counted()
    mapped = map_bounded(counted.call, taken(counted, source, [60, 0, 30, 0]), 3, ordered=False)
    assert [one async for one in mapped] == [0, 0, 30, 60]
    assert counted.most <= 3


async def test_a_plain_list_and_an_empty_one_are_sources() -> None:
    assert [one async for one in map_bounded(Counted().call, [1, 2], 5)] == [1, 2]
    assert [one async for one in map_bounded(Counted().call, [], 5)] == []


def test_a_limit_is_at_least_one_and_a_source_gives_items() -> None:
    with pytest.raises(ValueError, match="limit = 0"):
        map_bounded(Counted().call, [1], 0)
    with pytest.raises(TypeError):
        map_bounded(Counted().call, 5, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_slow_consumer_holds_the_source_back(source: str, ordered: bool) -> None:
    counted = Counted()
    async with aclosing(map_bounded(counted.call, taken(counted, source, [1] * 50), 4, ordered=ordered)) as mapped:
        async for _ in mapped:
            counted.handed += 1
            await turns(20)
            assert counted.read - counted.handed <= 4
    assert counted.handed == 50


async def test_the_source_is_read_on_while_the_consumer_is_busy() -> None:
    counted = Counted()
    async with aclosing(map_bounded(counted.call, counted.items([1] * 9), 4)) as mapped:
        await anext(mapped)
        await turns(20)
        assert (counted.read, counted.running) == (5, 0)


@pytest.mark.parametrize("ordered", [True, False])
async def test_the_first_failure_ends_the_rest_and_is_raised(source: str, ordered: bool) -> None:
    counted, got = Counted(), []
    with pytest.raises(ZeroDivisionError, match="13"):
        async for one in map_bounded(counted.call, taken(counted, source, [0, 13, 1000, 13, 0]), 3, ordered=ordered):
            got.append(one)
    assert got == [0]
    assert counted.running == 0
    assert counted.closed


async def test_a_failure_cancels_at_once_not_when_the_consumer_comes_back() -> None:
    counted = Counted()
    mapped = map_bounded(counted.call, counted.items([0, 13, 1000, 1000]), 3)
    assert await anext(mapped) == 0
    await turns(40)
    assert counted.running == 0
    with pytest.raises(ZeroDivisionError):
        await anext(mapped)


async def test_a_call_is_cancelled_once_and_may_take_its_time() -> None:
    seen = []

    async def slow_to_end(item: int) -> None:
        if item:
            await turns(2)
            raise ZeroDivisionError
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await turns(20)
            seen.append("ended")
            raise

    with pytest.raises(ZeroDivisionError):
        async for _ in map_bounded(slow_to_end, [0, 1], 2):
            pass
    assert seen == ["ended"]


async def test_a_source_that_fails_is_a_failure(source: str) -> None:
    counted = Counted()

    def bad() -> Iterator[int]:
        yield 1000
        raise LookupError

    async def abad() -> AsyncIterator[int]:
        yield 1000
        raise LookupError

    with pytest.raises(LookupError):
        async for _ in map_bounded(counted.call, bad() if source == "sync" else abad(), 2):
            pass
    assert counted.running == 0


async def test_a_source_that_fails_as_the_last_result_is_awaited_is_heard() -> None:
    # the consumer that the last result wakes may run before the feeder's end is recorded
    async def items(length: int) -> AsyncIterator[int]:
        yield length
        await turns(6)
        raise LookupError

    for length in range(12):
        with pytest.raises(LookupError):
            async for _ in map_bounded(Counted().call, items(length), 2):
                pass


async def test_a_function_that_fails_before_it_gives_something_to_await_is_a_failure() -> None:
    with pytest.raises(TypeError):
        async for _ in map_bounded(lambda item: item, [1], 2):  # type: ignore[arg-type, return-value]
            pass


async def test_closing_cancels_and_awaits_what_runs(source: str) -> None:
    counted = Counted()
    mapped = map_bounded(counted.call, taken(counted, source, [0, 1000, 1000, 1000]), 2)
    assert await anext(mapped) == 0
    await turns(10)
    assert counted.running == 2
    await mapped.aclose()
    assert counted.running == 0
    assert counted.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_break_ends_the_iteration_soon(source: str) -> None:
    counted = Counted()
    async for _ in map_bounded(counted.call, taken(counted, source, [0, 1000, 1000, 1000]), 2):
        break
    await turns(20)
    gc.collect()
    assert counted.running == 0
    assert counted.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_what_never_began_is_nothing() -> None:
    await map_bounded(Counted().call, [1, 2], 2).aclose()


async def test_a_cancelled_consumer_leaves_nothing_even_if_it_is_cancelled_twice() -> None:
    counted, ended = Counted(), []

    async def stubborn(item: int) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await turns(10)
            ended.append(item)

    async def consume() -> None:
        async for _ in map_bounded(stubborn, counted.items([0, 1, 2]), 2):
            pass

    task = asyncio.create_task(consume())
    await turns(5)
    task.cancel()
    await turns(3)
    assert not ended
    await cancelled(task)
    assert sorted(ended) == [0, 1]


async def test_a_source_that_holds_back_its_cancellation_starts_no_more() -> None:
    counted = Counted()

    async def stubborn() -> AsyncIterator[int]:
        yield 0
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass
            yield 1000

    mapped = map_bounded(counted.call, stubborn(), 2)
    await anext(mapped)
    await turns(5)
    await mapped.aclose()
    assert (counted.running, counted.most) == (0, 1)


@pytest.mark.parametrize("ordered", [True, False])
def test_nothing_is_left_wherever_a_task_is_cancelled(ordered: bool) -> None:
    async def main() -> None:
        counted = Counted()

        async def consume() -> None:
            got = [one async for one in map_bounded(counted.call, counted.aitems([2, 0, 1, 0]), 2, ordered=ordered)]
            assert sorted(got) == [0, 0, 1, 2]

        (end,) = await asyncio.gather(asyncio.create_task(consume()), return_exceptions=True)
        assert end is None or isinstance(end, asyncio.CancelledError)
        assert (counted.running, counted.most <= 2) == (0, True)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    explore(main, seeds=range(8))
