"""Tests of bounded groups: no task before its permit, no permit after its task, otherwise asyncio's group."""

import asyncio
import contextvars
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.pressure import BoundedTaskGroup, CapacityLimiter, Semaphore
from penstock.pressure.sync.permits import Permit
from penstock.testing import explore
from tests.support.waiting import turns
from tests.unit.pressure.driving import cancelled


class Gate:
    """A minimal gate: `limit` entries inside, one waits, the next is shed."""

    def __init__(self, limit: int) -> None:
        self.semaphore, self.waiting = Semaphore(limit), 0

    def try_enter(self) -> bool:
        return self.semaphore.try_acquire()

    def entry(self) -> "Gate":
        return self

    async def enter(self) -> None:
        if self.semaphore.locked() and self.waiting:
            raise Overloaded("no place to wait", reason="full")
        self.waiting += 1
        try:
            await self.semaphore.acquire()
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        self.semaphore.release()

    @property
    def free(self) -> float:
        return self.semaphore._value


def free(limit: Any) -> float:
    if isinstance(limit, CapacityLimiter):
        return limit.available_tokens
    return limit.free if isinstance(limit, Gate) else limit._value  # type: ignore[no-any-return]


@pytest.fixture(params=[Semaphore, CapacityLimiter, Gate])
def make(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    return request.param


class Crowd:
    """A count of running calls, which stay until the test lets them go."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.open = asyncio.Event()

    async def stay(self, *_: object) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit = {limit}"):
        BoundedTaskGroup(limit)


def test_a_group_takes_exactly_one_valid_limit() -> None:
    for arguments, named in (((), {}), ((3,), {"gate": Gate(1)})):
        with pytest.raises(TypeError, match="takes a limit"):
            BoundedTaskGroup(*arguments, **named)
    with pytest.raises(TypeError, match="must be an int, or penstock's Semaphore"):
        BoundedTaskGroup(asyncio.Semaphore(1))  # type: ignore[arg-type]


async def test_as_many_tasks_as_permits_exist_and_each_gives_its_own_back(make: Callable[[int], Any]) -> None:
    limit, crowd = make(2), Crowd()
    async with BoundedTaskGroup(limit) as group:
        await group.spawn(crowd.stay)
        await group.spawn(crowd.stay, 1, 2)
        third = asyncio.create_task(group.spawn(crowd.stay))
        await turns()
        assert (crowd.inside, free(limit), third.done()) == (2, 0, False)
        crowd.open.set()
        await third
    assert (crowd.most, free(limit)) == (2, 2)


async def test_spawn_gives_the_task_with_its_result_and_name() -> None:
    async def add(one: int, other: int) -> int:
        return one + other

    async with BoundedTaskGroup(1) as group:
        task = await group.spawn(add, 1, 2, name="adder")
        assert task.get_name() == "adder"
        assert await task == 3
        context = contextvars.copy_context()
        assert await (await group.spawn(add, 3, 4, context=context)) == 7


async def test_a_gate_refuses_and_no_task_is_made() -> None:
    gate, crowd = Gate(1), Crowd()
    async with BoundedTaskGroup(gate=gate) as group:
        await group.spawn(crowd.stay)
        waiting = asyncio.create_task(group.spawn(crowd.stay))
        await turns()
        with pytest.raises(Overloaded):
            await group.spawn(crowd.stay)
        assert crowd.most == 1
        crowd.open.set()
        await waiting
    assert gate.free == 1


async def test_the_first_failure_cancels_the_others_and_frees_all(make: Callable[[int], Any]) -> None:
    limit, crowd = make(3), Crowd()

    async def fail() -> None:
        await turns()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with BoundedTaskGroup(limit) as group:
            await group.spawn(crowd.stay)
            await group.spawn(fail)
            await group.spawn(crowd.stay)
            # no permit is free, and the failure ends this wait
            await group.spawn(crowd.stay)
    assert [type(one) for one in caught.value.exceptions] == [ZeroDivisionError]
    assert (crowd.inside, free(limit)) == (0, 3)


async def test_a_cancelled_spawn_leaves_no_permit_no_task_and_no_coroutine(make: Callable[[int], Any]) -> None:
    limit, crowd = make(1), Crowd()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with BoundedTaskGroup(limit) as group:
            await group.spawn(crowd.stay)
            waiting = asyncio.create_task(group.spawn(crowd.stay))
            await turns()
            await cancelled(waiting)
            waiting = asyncio.create_task(group.spawn(crowd.stay))
            await turns()
            crowd.open.set()
            waiting.cancel()
        gc.collect()
    assert (crowd.most, free(limit)) == (1, 1)


async def test_a_task_cancelled_before_it_began_gives_its_permit_back(make: Callable[[int], Any]) -> None:
    limit, crowd = make(1), Crowd()
    async with BoundedTaskGroup(limit) as group:
        (await group.spawn(crowd.stay)).cancel()
    assert (crowd.most, free(limit)) == (0, 1)


async def test_a_call_that_returns_no_coroutine_keeps_no_permit(make: Callable[[int], Any]) -> None:
    limit = make(1)
    with pytest.raises(ExceptionGroup):
        async with BoundedTaskGroup(limit) as group:
            with pytest.raises(TypeError):
                await group.spawn(int, "no coroutine")  # type: ignore[arg-type]
            await group.spawn(dict.fromkeys)  # type: ignore[arg-type]
    assert free(limit) == 1


@pytest.mark.parametrize("state", ["not entered", "finished"])
async def test_a_group_that_takes_no_tasks_keeps_no_permit(state: str) -> None:
    limit, crowd = Semaphore(1), Crowd()
    group = BoundedTaskGroup(limit)
    if state == "finished":
        async with group:
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            RuntimeError, match=rf"^TaskGroup <BoundedTaskGroup.*> (has not been|is) {state.split()[-1]}"
        ):
            await group.spawn(crowd.stay)
        gc.collect()
    assert free(limit) == 1


async def test_create_task_takes_a_free_permit_or_refuses_at_once(make: Callable[[int], Any]) -> None:
    limit, crowd = make(1), Crowd()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with BoundedTaskGroup(limit) as group:
            task = group.create_task(crowd.stay(), name="named")
            assert task.get_name() == "named"
            with pytest.raises(Overloaded, match=r"wait for one with `await group\.spawn") as refused:
                group.create_task(crowd.stay())
            assert refused.value.reason == "limit"
            crowd.open.set()
        gc.collect()
    assert free(limit) == 1


async def test_groups_that_share_a_limit_are_bounded_together(make: Callable[[int], Any]) -> None:
    limit, crowd = make(3), Crowd()
    async with BoundedTaskGroup(limit) as one, BoundedTaskGroup(limit) as other:
        for group in (one, other, one):
            await group.spawn(crowd.stay)
        waiting = asyncio.create_task(other.spawn(crowd.stay))
        await turns()
        assert (crowd.inside, waiting.done()) == (3, False)
        crowd.open.set()
        await waiting
    assert crowd.most == 3


async def test_nested_groups_of_one_limit_do_not_wait_in_a_circle(make: Callable[[int], Any]) -> None:
    limit, leaves = make(2), []
    running = most = 0

    async def tree(depth: int) -> None:
        nonlocal running, most
        if not depth:
            running += 1
            most = max(most, running)
            await turns()
            leaves.append(1)
            running -= 1
            return
        async with BoundedTaskGroup(limit) as group:
            await asyncio.gather(*(spawned(group, depth) for _ in range(3)))

    async def spawned(group: BoundedTaskGroup, depth: int) -> None:
        # a full gate sheds, so its callers retry
        while True:
            try:
                await group.spawn(tree, depth - 1)
                return
            except Overloaded:
                await asyncio.sleep(0)

    async with BoundedTaskGroup(limit) as group:
        await group.spawn(tree, 3)
    assert (len(leaves), free(limit)) == (27, 2)
    assert most <= 2


async def test_limits_that_cross_do_not_wait_in_a_circle() -> None:
    one, other = Semaphore(1), Semaphore(1)
    done = []

    async def leaf() -> None:
        done.append(1)

    async def middle() -> None:
        async with BoundedTaskGroup(one) as group:
            await group.spawn(leaf)

    async def outer() -> None:
        async with BoundedTaskGroup(other) as group:
            await group.spawn(middle)

    async with BoundedTaskGroup(one) as group:
        for _ in range(3):
            await group.spawn(outer)
    assert (len(done), one._value, other._value) == (3, 1, 1)


async def test_tasks_that_spawn_their_successors_keep_nothing_of_those_before() -> None:
    counts = []

    async def link(group: BoundedTaskGroup, left: int) -> None:
        await turns(1)
        if left % 10 == 0:
            gc.collect()
            counts.append(sum(isinstance(one, Permit) for one in gc.get_objects()))
        if left:
            await group.spawn(link, group, left - 1)

    async with BoundedTaskGroup(3) as group:
        await group.spawn(link, group, 50)
    assert 0 < max(counts) < 10


def test_no_permit_is_lost_wherever_a_task_is_cancelled() -> None:
    async def main() -> None:
        limit, running = Semaphore(2), 0

        async def work() -> None:
            nonlocal running
            running += 1
            try:
                assert running <= 2
                await asyncio.sleep(0)
            finally:
                running -= 1

        async def run() -> None:
            async with BoundedTaskGroup(limit) as group:
                for _ in range(4):
                    await group.spawn(work)

        await asyncio.gather(asyncio.create_task(run()), asyncio.create_task(run()), return_exceptions=True)
        assert (limit._value, running) == (2, 0)

    explore(main, seeds=range(10))
