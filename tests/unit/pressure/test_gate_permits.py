"""Tests of a gate's permits: as many as the limit, handed on, neither lost nor duplicated by any cancellation."""

import asyncio
import contextlib
import gc
import math
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.pressure.admission.gate import Gate
from tests.unit.pressure.driving import LOOPS, Crowd, settle

pytestmark = pytest.mark.runner("on_loop")

Run = Callable[..., Any]


async def test_as_many_come_in_as_the_limit_says_and_the_next_ones_follow_in_order(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(2, max_wait_s=math.inf))
    await crowd.come("a", "b", "c", "d", "e")
    assert crowd.came_in == ["a", "b"]
    await crowd.leave("b", "a")
    assert crowd.came_in == ["a", "b", "c", "d"]
    await crowd.leave("c")
    assert crowd.came_in[-1] == "e"
    await crowd.leave("d", "e")
    assert (crowd.gate.inflight, crowd.gate.queued()) == (0, 0)


async def test_no_task_overtakes_a_waiter_whose_permit_is_granted(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=math.inf)
    crowd = Crowd(gate)
    assert gate.try_enter()
    await crowd.come("waits")
    gate.leave()
    assert not crowd.came_in
    assert not gate.try_enter()
    await settle()
    assert crowd.came_in == ["waits"]
    await crowd.end()


async def test_a_cancelled_waiter_never_holds_a_permit(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in", "one", "two", "three")
    await crowd.cancel("two", "one")
    assert crowd.gate.queued() == 1
    await crowd.leave("in")
    assert crowd.came_in == ["in", "three"]
    await crowd.leave("three")
    assert crowd.gate.inflight == 0


async def test_a_permit_of_a_waiter_that_is_cancelled_before_it_runs_goes_to_the_next(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=math.inf)
    crowd = Crowd(gate)
    assert gate.try_enter()
    await crowd.come("one", "two")
    gate.leave()
    crowd.tasks["one"].cancel()
    assert (gate.inflight, gate.granted) == (1, 1)
    await settle()
    assert crowd.came_in == ["two"]
    assert crowd.tasks["one"].cancelled()
    await crowd.end()
    assert (gate.inflight, gate.granted, gate.statistics().admitted) == (0, 0, 2)


@pytest.mark.parametrize("turns", range(12))
async def test_whenever_it_is_cancelled_all_permits_come_back(gate_class: type[Gate], turns: int) -> None:
    async def worker(gate: Gate) -> None:
        for _ in range(2):
            async with gate:
                await asyncio.sleep(0)

    gate = gate_class(2, max_wait_s=math.inf)
    tasks = [asyncio.ensure_future(worker(gate)) for _ in range(5)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    found = gate.statistics()
    assert (gate.inflight, gate.granted, gate.queued()) == (0, 0, 0)
    assert found.admitted == found.finished


async def test_a_destroyed_task_gives_up_its_place_and_its_permit(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=math.inf)
    assert gate.try_enter()
    coroutines = [gate.enter() for _ in range(2)]
    waiters = [coroutine.send(None) for coroutine in coroutines]
    assert gate.queued() == 2
    coroutines[1].close()
    assert gate.queued() == 1
    gate.leave()
    assert waiters[0].done()  # type: ignore[attr-defined]
    coroutines[0].close()
    assert gate.inflight == 0


@pytest.mark.parametrize(("limit", "come_in"), [(3, 2), (4, 3), (9, 4)])
async def test_a_raised_limit_wakes_as_many_as_are_free_and_wait(
    gate_class: type[Gate], limit: int, come_in: int
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in", 1, 2, 3, 4)
    crowd.gate.resize(limit)
    assert crowd.gate.granted == come_in
    await settle()
    assert crowd.came_in == ["in", *range(1, come_in + 1)]
    await crowd.end()


async def test_a_lowered_limit_keeps_admitted_tasks_and_admits_no_other_before_there_is_room(
    gate_class: type[Gate],
) -> None:
    crowd = Crowd(gate_class(3, max_wait_s=math.inf))
    await crowd.come(1, 2, 3, 4)
    crowd.gate.resize(1)
    for name, inflight in ((1, 2), (2, 1)):
        await crowd.leave(name)
        assert (crowd.gate.inflight, len(crowd.came_in)) == (inflight, 3)
    await crowd.leave(3)
    assert crowd.came_in == [1, 2, 3, 4]
    await crowd.end()


async def test_the_scale_multiplies_the_limit_and_leaves_one_at_least(gate_class: type[Gate]) -> None:
    gate = gate_class(8, max_wait_s=0)
    gate.scale = 0.5
    assert [gate.try_enter() for _ in range(5)] == [True] * 4 + [False]
    gate.scale = 0.01
    for _ in range(4):
        gate.leave()
    assert [gate.try_enter(), gate.try_enter()] == [True, False]
    gate.scale = 1.0
    assert gate.try_enter()
    assert gate.statistics().limit == 8
    with pytest.raises(ValueError, match="scale = 0: allowed is more than 0, at most 1"):
        gate.scale = 0


async def test_leaving_without_a_permit_is_an_error(gate_class: type[Gate]) -> None:
    gate = gate_class(1)
    with pytest.raises(RuntimeError, match="no permit of the gate is in use"):
        gate.leave()
    entry = gate.entry()
    with pytest.raises(RuntimeError, match="this entry has no permit"):
        entry.leave()
    await entry.enter()
    with pytest.raises(RuntimeError, match="in use"):
        await entry.enter()
    entry.leave()
    with pytest.raises(RuntimeError, match="this entry has no permit"):
        entry.leave()
    async with entry:
        assert gate.inflight == 1


async def test_an_entry_that_was_refused_or_cancelled_can_be_used_again(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=1.0)
    await gate.enter()
    entry = gate.entry()
    task = asyncio.ensure_future(entry)
    await settle()
    task.cancel()
    await asyncio.wait([task])
    gate.leave()
    await entry
    entry.leave()
    assert gate.inflight == 0


async def test_a_guarded_function_passes_the_gate(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=0)

    @gate.guard
    async def double(number: int) -> int:
        """Return twice the number."""
        assert gate.inflight == 1
        return 2 * number

    assert await double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Return twice the number.")  # type: ignore[attr-defined]
    await gate.enter()
    with pytest.raises(Overloaded):
        await double(4)


async def test_an_exception_inside_gives_the_permit_back(gate_class: type[Gate]) -> None:
    gate = gate_class(1)
    for context in (gate, gate.entry()):
        with pytest.raises(ZeroDivisionError):
            async with context:
                raise ZeroDivisionError
    assert gate.inflight == 0


async def test_a_refusal_makes_no_task_and_no_future(gate_class: type[Gate], standing: Any) -> None:
    gate = gate_class(1, max_wait_s=0)
    await gate.enter()
    futures, tasks = standing.futures, len(asyncio.all_tasks())
    for context in (gate, gate.entry()):
        with pytest.raises(Overloaded):
            async with context:
                pass
    assert not gate.try_enter()
    assert (standing.futures, len(asyncio.all_tasks())) == (futures, tasks)


def test_a_gate_belongs_to_one_loop_until_that_is_closed(gate_class: type[Gate]) -> None:
    gate = gate_class(1)
    first, second = LOOPS["asyncio"](), LOOPS["asyncio"]()
    first.run_until_complete(gate.enter())
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        second.run_until_complete(gate.enter())
    first.close()
    second.run_until_complete(gate.enter())
    assert gate.inflight == 1
    second.close()


def test_wait_for_and_timeout_end_a_wait(gate_class: type[Gate]) -> None:
    async def main() -> None:
        gate = gate_class(1, max_wait_s=math.inf)
        await gate.enter()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.enter(), 0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), gate:
                pass
        assert (gate.inflight, gate.queued()) == (1, 0)

    asyncio.run(main())


async def test_ten_thousand_passages_of_each_kind_leave_nothing_behind(gate_class: type[Gate]) -> None:
    async def passages(count: int) -> None:
        gate = gate_class(1, max_wait_s=math.inf)
        for _ in range(count):
            async with gate, another_refused(gate):
                pass
            assert gate.try_enter()
            waiting = gate.enter()
            waiting.send(None)
            waiting.close()
            gate.leave()

    await passages(500)
    gc.collect()
    before = sys.getallocatedblocks()
    await passages(10_000)
    gc.collect()
    assert sys.getallocatedblocks() - before < 500


@contextlib.asynccontextmanager
async def another_refused(gate: Gate) -> AsyncIterator[None]:
    """Send one more request, which is shed, before the block begins."""
    with pytest.raises(Overloaded):
        gate.max_wait_s, before = 0.0, gate.max_wait_s
        try:
            await gate.enter()
        finally:
            gate.max_wait_s = before
    yield


async def test_an_entry_that_asks_has_a_permit_or_a_waiter_and_abandons_either(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=math.inf)
    first, second, third = gate.entry(), gate.entry(), gate.entry()
    assert first.ask() is None
    waiter, other = second.ask(), third.ask()
    assert waiter is not None
    assert other is not None
    assert (gate.inflight, gate.queued()) == (1, 2)
    third.abandon()
    third.abandon()
    assert gate.queued() == 1
    first.abandon()
    # the permit is granted, and the second entry does not want it any more
    assert waiter.done()
    second.abandon()
    assert (gate.inflight, gate.granted, gate.queued()) == (0, 0, 0)
    # each may be used again
    assert third.ask() is None
    again = first.ask()
    assert again is not None
    third.leave()
    await again
    assert first.is_inside
    first.abandon()
    first.abandon()
    assert gate.inflight == 0


async def test_an_entry_that_is_shed_raises_where_it_asks_or_where_its_waiter_is_awaited(
    gate_class: type[Gate],
) -> None:
    gate = gate_class(1, max_wait_s=math.inf, max_queued=1)
    assert gate.entry().ask() is None
    waiting = gate.entry()
    waiter = waiting.ask()
    assert waiter is not None
    with pytest.raises(Overloaded, match="full"):
        gate.entry().ask()
    gate.close()
    with pytest.raises(Overloaded, match="closed"):
        await waiter
    waiting.abandon()
