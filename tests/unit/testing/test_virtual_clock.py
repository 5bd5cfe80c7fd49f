"""The virtual clock: it jumps, never runs backwards, and a deadlock raises."""

import asyncio
import threading
import time

import pytest

from penstock.errors import Deadlock
from penstock.testing import VirtualLoop, run

pytestmark = pytest.mark.runner("virtual")


def test_an_hour_runs_in_milliseconds() -> None:
    async def main() -> float:
        for _ in range(60):
            await asyncio.sleep(60)
        return asyncio.get_running_loop().time()

    began_s = time.perf_counter()
    assert run(main, start_s=1000.0) == 4600.0
    assert time.perf_counter() - began_s < 1.0


def test_statistics_count_jumps_turns_and_the_time_gone_by() -> None:
    loop = VirtualLoop(start_s=5.0)
    loop.run_until_complete(asyncio.sleep(2))
    seen = loop.statistics()
    loop.close()
    assert (seen.now_s, seen.advanced_s, seen.jumps) == (7.0, 2.0, 1)
    assert seen.callbacks >= seen.turns - 1 > 0


def test_a_timer_never_fires_before_its_time() -> None:
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, float]] = []
        for when in (0.3, 0.1 + 0.2, 0.1, 0.7, 0.7):
            loop.call_at(when, lambda when=when: seen.append((when, loop.time())))
        await asyncio.sleep(1)
        return seen

    seen = run(main)
    assert [when for when, _ in seen] == sorted(when for when, _ in seen)
    assert all(now >= when for when, now in seen)


def test_timers_of_one_moment_fire_in_the_order_they_were_set() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        for number in range(50):
            asyncio.get_running_loop().call_later(1, seen.append, number)
        await asyncio.sleep(2)
        return seen

    assert run(main) == list(range(50))


def test_a_cancelled_timer_never_fires_and_moves_no_clock() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        for handle in [loop.call_later(60, pytest.fail, "fired") for _ in range(1000)]:
            handle.cancel()
        await asyncio.sleep(1)
        return loop.time()

    assert run(main) == 1.0


def test_advance_makes_timers_late_as_code_does_that_holds_the_loop_up() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        woken = loop.create_future()
        loop.call_later(0.1, lambda: woken.set_result(loop.time()))
        loop.advance(0.5)
        with pytest.raises(ValueError, match="backwards"):
            loop.advance(-1)
        return float(await woken)

    assert run(main) == 0.5


def test_a_deadlock_is_named_not_waited_for() -> None:
    async def worker(lock: asyncio.Lock) -> None:
        async with lock:
            raise AssertionError

    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        await asyncio.create_task(worker(lock), name="second")

    with pytest.raises(Deadlock, match="nothing can ever happen") as caught:
        run(main)
    text = str(caught.value)
    assert "2 tasks wait: Task-1" in text
    assert "for second" in text
    assert "second (test_a_deadlock_is_named_not_waited_for.<locals>.worker) in Lock.acquire" in text
    assert "test_virtual_clock.py:" in text


def test_a_poll_without_time_is_told_instead_of_turning_for_ever() -> None:
    async def main() -> None:
        while asyncio.get_running_loop().time() < 1:
            await asyncio.sleep(0)

    with pytest.raises(Deadlock, match="time stands still: 1000 turns at 0 s"):
        run(main, standstill_turns=1000)


async def test_wait_all_blocked_resumes_when_all_others_wait_and_before_the_clock_moves() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    steps: list[int] = []

    async def worker() -> None:
        for number in range(20):
            await asyncio.sleep(0)
            steps.append(number)
        await asyncio.sleep(5)

    async with asyncio.TaskGroup() as group:
        group.create_task(worker())
        await asyncio.gather(loop.wait_all_blocked(), loop.wait_all_blocked())
        assert (len(steps), loop.time()) == (20, 0.0)


async def test_wait_all_blocked_lets_late_timers_fire_first() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    fired: list[float] = []
    loop.call_later(1, fired.append, 1)
    loop.advance(2)
    await loop.wait_all_blocked()
    assert fired == [1]


async def test_to_thread_runs_inline_and_its_failure_is_the_callers() -> None:
    assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)


def test_another_thread_is_refused_and_the_deadlock_says_so() -> None:
    refused: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        never = loop.create_future()

        def call() -> None:
            try:
                loop.call_soon_threadsafe(never.set_result, None)
            except RuntimeError as error:
                refused.append(str(error))

        thread = threading.Thread(target=call, name="outsider")
        thread.start()
        thread.join()
        await never

    with pytest.raises(Deadlock, match="thread 'outsider' was refused"):
        run(main)
    assert "a VirtualLoop has one thread" in refused[0]
