"""Tests of semaphores: each claim holds for asyncio's and for penstock's, unless it is marked penstock's alone."""

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from penstock.pressure import BoundedSemaphore, Semaphore
from penstock.testing import explore
from tests.support.loops import BOTH
from tests.support.waiting import turns
from tests.unit.pressure.driving import BOUNDED, SEMAPHORES, cancelled

Make = Callable[..., asyncio.Semaphore]
# asyncio's semaphore has known bugs before this version
MENDED = sys.version_info >= (3, 13)


@pytest.fixture(params=[asyncio.Semaphore, *SEMAPHORES.values()], ids=["asyncio", *SEMAPHORES])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@pytest.fixture(params=[asyncio.BoundedSemaphore, *BOUNDED.values()], ids=["asyncio", *BOUNDED])
def make_bounded(request: pytest.FixtureRequest) -> Make:
    return request.param


async def hold(semaphore: asyncio.Semaphore, into: list[Any], name: Any) -> None:
    await semaphore.acquire()
    into.append(name)


def test_ours_are_asyncios() -> None:
    assert isinstance(Semaphore(), asyncio.Semaphore)
    assert isinstance(BoundedSemaphore(), asyncio.BoundedSemaphore)
    assert isinstance(BoundedSemaphore(), Semaphore)


def test_a_negative_value_is_refused(make: Make, make_bounded: Make) -> None:
    for one in (make, make_bounded):
        with pytest.raises(ValueError, match=re.escape("Semaphore initial value must be >= 0")):
            one(-1)


async def test_permits_are_counted(make: Make) -> None:
    semaphore = make(2)
    assert not semaphore.locked()
    assert await semaphore.acquire() is True
    assert await semaphore.acquire() is True
    assert semaphore.locked()
    semaphore.release()
    assert not semaphore.locked()


async def test_an_unbounded_semaphore_may_get_more_permits_than_it_had(make: Make) -> None:
    semaphore = make(0)
    semaphore.release()
    semaphore.release()
    await semaphore.acquire()
    await semaphore.acquire()
    assert semaphore.locked()


async def test_a_bounded_semaphore_refuses_more_permits_than_it_had(make_bounded: Make) -> None:
    semaphore = make_bounded(1)
    with pytest.raises(ValueError, match=r"^BoundedSemaphore released too many times$"):
        semaphore.release()
    async with semaphore:
        assert semaphore.locked()
    with pytest.raises(ValueError):
        semaphore.release()
    assert not semaphore.locked()


async def test_the_repr_has_value_and_waiters(make: Make) -> None:
    semaphore = make(1)
    name = type(semaphore).__module__ + "." + type(semaphore).__qualname__
    pattern = rf"<{re.escape(name)} object at 0x[0-9a-f]+ \[%s\]>"
    assert re.fullmatch(pattern % "unlocked, value:1", repr(semaphore))
    await semaphore.acquire()
    assert re.fullmatch(pattern % "locked", repr(semaphore))
    waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(2)]
    await turns()
    assert re.fullmatch(pattern % "locked, waiters:2", repr(semaphore))
    semaphore.release()
    # the waiter is woken but has not run
    assert re.fullmatch(pattern % "locked, waiters:2", repr(semaphore))
    semaphore.release()
    await asyncio.gather(*waiting)
    assert re.fullmatch(pattern % "locked", repr(semaphore))


async def test_async_with_takes_and_gives_back_and_gives_nothing_to_as(make: Make) -> None:
    semaphore = make(1)
    async with semaphore as got:
        assert got is None
        assert semaphore.locked()
    assert not semaphore.locked()
    with pytest.raises(ZeroDivisionError):
        async with semaphore:
            raise ZeroDivisionError
    assert not semaphore.locked()


async def test_async_with_waits_in_turn(make: Make) -> None:
    semaphore, said = make(1), []

    async def speak(name: int) -> None:
        async with semaphore:
            said.append(name)
            await asyncio.sleep(0)
            said.append(name)

    await asyncio.gather(*map(speak, range(4)))
    assert said == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_first_come_first_served(make: Make) -> None:
    semaphore, served = make(0), []
    tasks = [asyncio.create_task(hold(semaphore, served, name)) for name in range(5)]
    await turns()
    for count in range(5):
        semaphore.release()
        await turns()
        assert served == list(range(count + 1))
    await asyncio.gather(*tasks)


async def test_a_new_waiter_queues_behind_a_woken_one(make: Make) -> None:
    semaphore, served = make(0), []
    first = asyncio.create_task(hold(semaphore, served, "first"))
    await turns()
    semaphore.release()
    assert semaphore.locked()
    semaphore.release()
    assert semaphore.locked()
    second = asyncio.create_task(hold(semaphore, served, "second"))
    await asyncio.gather(first, second)
    assert served == ["first", "second"]
    assert semaphore.locked()


async def test_permits_released_at_once_let_in_all_in_their_order(make: Make) -> None:
    semaphore, served = make(0), []

    async def release_and_take() -> None:
        for _ in range(3):
            semaphore.release()
        # one permit is granted to the first waiter, which has not run: no other task enters before it
        assert semaphore._value == 2
        assert semaphore.locked()
        await hold(semaphore, served, 2)

    first = asyncio.create_task(hold(semaphore, served, 1))
    others = asyncio.create_task(release_and_take()), asyncio.create_task(hold(semaphore, served, 3))
    await asyncio.gather(first, *others)
    assert served == [1, 2, 3]
    assert semaphore.locked()


async def test_a_waiter_can_be_cancelled(make: Make) -> None:
    semaphore = make(0)
    waiting = asyncio.create_task(semaphore.acquire())
    await turns()
    await cancelled(waiting)
    assert semaphore.locked()
    semaphore.release()
    assert not semaphore.locked()


async def test_cancelled_waiters_alone_do_not_lock(make: Make) -> None:
    semaphore = make(1)
    await semaphore.acquire()
    waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
    await turns()
    for task in waiting:
        task.cancel()
    semaphore.release()
    # none of the tasks has run
    assert not semaphore.locked()
    assert await semaphore.acquire()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert semaphore.locked()


async def test_a_permit_handed_to_a_cancelled_task_goes_to_the_next(make: Make) -> None:
    semaphore = make(0)
    first, second = (asyncio.create_task(semaphore.acquire()) for _ in range(2))
    await turns()
    semaphore.release()
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert semaphore.locked()


async def test_a_cancelled_first_waiter_is_passed_over(make: Make) -> None:
    semaphore = make(0)
    first, second = (asyncio.create_task(semaphore.acquire()) for _ in range(2))
    await turns()
    first.cancel()
    semaphore.release()
    await turns()
    assert first.cancelled()
    assert second.result() is True


async def test_cancel_and_release_in_one_turn_lose_no_permit(make: Make) -> None:
    semaphore = make(1)
    await semaphore.acquire()
    waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(4)]
    await turns()
    waiting[0].cancel()
    semaphore.release()
    waiting[1].cancel()
    await turns()
    assert [task.cancelled() for task in waiting] == [True, True, False, False]
    assert [task.done() for task in waiting] == [True, True, True, False]
    semaphore.release()
    await waiting[3]
    assert semaphore.locked()


@pytest.mark.parametrize("make", [*([asyncio.Semaphore] if MENDED else []), Semaphore])
async def test_a_waiter_is_not_forgotten_while_there_are_permits(make: Make) -> None:
    # python/cpython#111693: a new waiter queues behind a woken one, which is then cancelled
    semaphore = make(1)
    await semaphore.acquire()
    first = asyncio.create_task(semaphore.acquire())
    await turns()
    semaphore.release()
    semaphore.release()
    second = asyncio.create_task(semaphore.acquire())
    third = asyncio.create_task(semaphore.acquire())
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert third.done()


def test_the_first_wait_binds_it_to_its_loop(make: Make) -> None:
    semaphore = make(0)
    for factory in BOTH.values():
        with asyncio.Runner(loop_factory=factory) as runner:

            async def wait() -> None:
                task = asyncio.create_task(semaphore.acquire())
                await turns()
                if task.done():
                    await task
                await cancelled(task)

            if factory is asyncio.SelectorEventLoop:
                runner.run(wait())
            else:
                with pytest.raises(RuntimeError, match=r"is bound to a different event loop$"):
                    runner.run(wait())


def test_it_is_made_outside_of_any_loop(make: Make) -> None:
    semaphore = make(1)
    asyncio.run(semaphore.acquire())
    assert semaphore.locked()


async def test_a_subclass_that_takes_over_acquire_or_release_is_asked(make: Any) -> None:
    asked = []

    class Asking(make):
        async def acquire(self) -> Any:
            asked.append(self._value)
            return await super().acquire()

    class Telling(make):
        def release(self) -> None:
            asked.append(self._value)
            super().release()

    async with Asking(3):
        pass
    async with Telling(5):
        pass
    assert asked == [3, 4]


async def test_ours_is_tried_without_waiting_or_overtaking() -> None:
    semaphore = Semaphore(1)
    assert semaphore.try_acquire()
    assert not semaphore.try_acquire()
    waiting = asyncio.create_task(semaphore.acquire())
    await turns()
    semaphore.release()
    semaphore.release()
    assert not semaphore.try_acquire()
    await waiting
    assert semaphore.try_acquire()


async def test_a_wait_that_is_closed_gives_back_what_it_was_handed() -> None:
    semaphore = Semaphore(0)
    wait = semaphore.acquire()
    wait.send(None)
    semaphore.release()
    wait.close()
    assert not semaphore.locked()
    wait = semaphore.acquire()
    await wait
    wait = semaphore.acquire()
    wait.send(None)
    wait.close()
    semaphore.release()
    assert not semaphore.locked()
    assert "waiters" not in repr(semaphore)


@pytest.mark.parametrize("make", [*([asyncio.Semaphore] if MENDED else []), Semaphore], ids=lambda one: one.__module__)
def test_no_permit_is_lost_or_doubled_wherever_a_task_is_cancelled(make: Make) -> None:
    async def main() -> None:
        semaphore, inside = make(2), 0

        async def work() -> None:
            nonlocal inside
            async with semaphore:
                inside += 1
                try:
                    assert inside <= 2
                    await asyncio.sleep(0)
                finally:
                    inside -= 1

        await asyncio.gather(*(asyncio.create_task(work()) for _ in range(5)), return_exceptions=True)
        assert semaphore._value == 2
        assert not semaphore.locked()

    explore(main, seeds=range(20))


def test_a_released_permit_is_taken_or_left_wherever_a_task_is_cancelled() -> None:
    async def main() -> None:
        semaphore, got = Semaphore(0), []
        takers = [asyncio.create_task(hold(semaphore, got, name)) for name in range(4)]
        await asyncio.sleep(0)
        for _ in range(3):
            semaphore.release()
        await asyncio.wait(takers, timeout=1)
        left = [task for task in takers if not task.done()]
        assert len(got) + semaphore._value == 3
        assert not (left and semaphore._value)
        for task in left:
            task.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
        assert len(got) + semaphore._value == 3

    explore(main, seeds=range(20))
