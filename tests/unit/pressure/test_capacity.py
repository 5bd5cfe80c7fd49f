"""Tests of the capacity limiter: borrowers, waiters and changes of the total."""

import asyncio
import math

import pytest

from penstock.errors import Overloaded
from penstock.pressure import CapacityLimiter, CapacityStatistics
from penstock.testing import explore
from tests.support.waiting import turns
from tests.unit.pressure.driving import cancelled


@pytest.mark.parametrize(("total", "error"), [(-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_total_is_a_whole_number_or_endless(total: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="total_tokens = "):
        CapacityLimiter(total)
    limiter = CapacityLimiter(1)
    with pytest.raises(error):
        limiter.total_tokens = total
    assert limiter.total_tokens == 1


async def test_tokens_are_counted() -> None:
    limiter = CapacityLimiter(2)
    async with limiter:
        assert (limiter.borrowed_tokens, limiter.available_tokens) == (1, 1)
        await limiter.acquire_on_behalf_of("other")
        task = asyncio.current_task()
        assert limiter.statistics() == CapacityStatistics(2, 2, (task, "other"), 0)
    limiter.release_on_behalf_of("other")
    assert limiter.statistics() == CapacityStatistics(0, 2, (), 0)


async def test_an_infinite_limiter_lends_to_all() -> None:
    limiter = CapacityLimiter(math.inf)
    for borrower in range(100):
        limiter.acquire_on_behalf_of_nowait(borrower)
    assert limiter.available_tokens == math.inf


async def test_a_borrower_has_one_token_at_most() -> None:
    limiter = CapacityLimiter(2)
    await limiter.acquire()
    with pytest.raises(RuntimeError, match="already holding"):
        await limiter.acquire()
    with pytest.raises(RuntimeError, match="already holding"):
        limiter.acquire_nowait()
    limiter.release()
    with pytest.raises(RuntimeError, match="isn't holding"):
        limiter.release()


async def test_a_borrower_waits_once() -> None:
    limiter = CapacityLimiter(0)
    waiting = asyncio.create_task(limiter.acquire_on_behalf_of("me"))
    await turns()
    with pytest.raises(RuntimeError, match="already waiting"):
        await limiter.acquire_on_behalf_of("me")
    waiting.cancel()
    again = asyncio.create_task(limiter.acquire_on_behalf_of("me"))
    await turns()
    assert waiting.cancelled()
    assert limiter.statistics().tasks_waiting == 1
    limiter.total_tokens = 1
    await again
    assert limiter.statistics().borrowers == ("me",)


async def test_a_full_limiter_sheds_calls_that_may_not_wait() -> None:
    limiter = CapacityLimiter(1)
    limiter.acquire_nowait()
    with pytest.raises(Overloaded, match="all 1 tokens are borrowed") as refused:
        limiter.acquire_on_behalf_of_nowait("other")
    assert (refused.value.reason, refused.value.limit, refused.value.queued) == ("limit", 1, 0)


async def test_no_task_overtakes_a_waiter() -> None:
    limiter, served = CapacityLimiter(1), []
    await limiter.acquire()

    async def borrow(name: int) -> None:
        async with limiter:
            served.append(name)

    tasks = [asyncio.create_task(borrow(name)) for name in range(4)]
    await turns()
    limiter.release()
    with pytest.raises(Overloaded):
        limiter.acquire_nowait()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3]


async def test_a_higher_total_wakes_as_many_as_there_is_room_for() -> None:
    limiter = CapacityLimiter(1)
    tasks = [asyncio.create_task(limiter.acquire_on_behalf_of(number)) for number in range(6)]
    await turns()
    limiter.total_tokens = 4
    await turns()
    assert [task.done() for task in tasks] == [True] * 4 + [False] * 2
    limiter.total_tokens = 2
    assert limiter.available_tokens == -2
    for number in range(2):
        limiter.release_on_behalf_of(number)
    await turns()
    assert not tasks[4].done()
    limiter.release_on_behalf_of(2)
    await turns()
    assert tasks[4].done()
    await cancelled(tasks[5])


async def test_a_token_lent_to_a_cancelled_task_goes_to_the_next() -> None:
    limiter = CapacityLimiter(1)
    await limiter.acquire()
    tasks = [asyncio.create_task(limiter.acquire_on_behalf_of(number)) for number in range(3)]
    await turns()
    tasks[0].cancel()
    limiter.release()
    tasks[1].cancel()
    await turns()
    assert limiter.statistics().borrowers == (2,)


def test_no_token_is_lost_wherever_a_task_is_cancelled() -> None:
    async def main() -> None:
        limiter = CapacityLimiter(1)

        async def work() -> None:
            async with limiter:
                assert limiter.borrowed_tokens <= limiter.total_tokens
                await asyncio.sleep(0)

        async def widen() -> None:
            await asyncio.sleep(0)
            limiter.total_tokens = 2

        jobs = widen(), *(work() for _ in range(5))
        await asyncio.gather(*(asyncio.create_task(job) for job in jobs), return_exceptions=True)
        assert limiter.borrowed_tokens == limiter.statistics().tasks_waiting == 0

    explore(main, seeds=range(20))
