"""The schedule: the same seed gives the same run, another seed another, and cancellations come at counted moments."""

import asyncio
import os
import subprocess
import sys

import pytest

from penstock.errors import Deadlock, ExplorationFailed
from penstock.testing import VirtualLoop, explore, run


async def crowd() -> list[str]:
    """Run tasks, groups, sets, timeouts and queues that interfere with each other."""
    seen: list[str] = []
    queue: asyncio.Queue[int] = asyncio.Queue(2)

    async def producer(name: int) -> None:
        for item in range(5):
            await queue.put(name * 10 + item)
            await asyncio.sleep(0.001 * (item % 2))

    async def consumer(name: str) -> None:
        while True:
            seen.append(f"{name} {await queue.get()}")

    async def sleeper() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            seen.append(f"{asyncio.current_task().get_name()} ends")  # type: ignore[union-attr]

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(sleeper())
            for name in range(4):
                group.create_task(producer(name))
            for letter in "abc":
                group.create_task(consumer(letter))
            await asyncio.sleep(0.1)
            raise ValueError
    done, pending = await asyncio.wait(
        [asyncio.ensure_future(asyncio.sleep(0.001 * n)) for n in range(5)], timeout=0.002
    )
    seen += [f"{task!r}"[:20] for task in [*done, *pending]]
    return seen


def history(seed: int | None) -> tuple[list[str], list[str]]:
    loop = VirtualLoop(seed, record=True)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        seen = runner.run(crowd())
    return seen, loop.history


@pytest.mark.parametrize("seed", [None, 0, 1, 12345])
def test_the_same_seed_gives_the_same_run(seed: int | None) -> None:
    first = history(seed)
    # other addresses: what would be told apart by them is told
    ballast = [object() for _ in range(1001)]
    assert history(seed) == first
    assert ballast


def test_the_same_seed_gives_the_same_run_in_another_process() -> None:
    program = "from tests.unit.testing.test_schedule import history; print(history(5))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {str(history(5))}


def test_different_seeds_give_different_orders() -> None:
    assert len({tuple(history(seed)[0]) for seed in range(20)}) > 10


def test_without_a_seed_the_order_is_asyncios() -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        async def worker(number: int) -> None:
            for _ in range(3):
                seen.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(worker(number) for number in range(10)))
        return seen

    assert run(main) == asyncio.run(main())
    assert run(main, seed=1) != asyncio.run(main())


def test_plain_callbacks_keep_the_order_that_call_soon_promises() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(10)]
        for number in range(20):
            asyncio.get_running_loop().call_soon(seen.append, number)
        await asyncio.gather(*tasks)
        return seen

    for seed in range(20):
        assert run(main, seed=seed) == list(range(20))


def test_every_order_of_three_tasks_comes_up() -> None:
    async def main() -> str:
        seen: list[str] = []

        async def note(letter: str) -> None:
            seen.append(letter)

        await asyncio.gather(*(note(letter) for letter in "abc"))
        return "".join(seen)

    assert {run(main, seed=seed) for seed in range(100)} == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_cancel_at_hits_the_chosen_task_at_its_own_moment() -> None:
    async def main(moment: int) -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        seen: list[str] = []

        async def victim() -> None:
            try:
                seen.append("begins")
                await asyncio.sleep(1)
                seen.append(f"slept at {loop.time():g}")
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                seen.append(f"cancelled at {loop.time():g}")
                raise

        task = loop.create_task(victim())
        loop.cancel_at(moment, task)
        await asyncio.gather(task, return_exceptions=True)
        return seen

    assert run(main(1)) == []
    assert run(main(2)) == ["begins", "cancelled at 0"]
    assert run(main(3)) == ["begins", "cancelled at 1"]
    assert run(main(4)) == ["begins", "slept at 1", "cancelled at 1"]
    assert run(main(5)) == ["begins", "slept at 1", "cancelled at 2"]


class NaiveSemaphore:
    """A common faulty semaphore: it wakes a waiter that may be cancelled before it resumes."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.waiters: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> None:
        while self.value == 0:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter
        self.value -= 1

    async def __aexit__(self, *_: object) -> None:
        self.value += 1
        while self.waiters:
            waiter = self.waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                break


async def shared(kind: type[NaiveSemaphore] | type[asyncio.Semaphore]) -> None:
    semaphore = kind(1)

    async def worker() -> None:
        async with semaphore:
            await asyncio.sleep(0.01)

    await asyncio.gather(*(worker() for _ in range(4)), return_exceptions=True)


def test_explore_finds_a_lost_wakeup_and_its_seed_brings_it_back() -> None:
    with pytest.raises(ExplorationFailed, match="nothing can ever happen") as caught:
        explore(lambda: shared(NaiveSemaphore), seeds=range(50))
    failed = caught.value
    assert "\n" not in str(failed)
    assert f"again: run(main, seed={failed.seed}, cancel_at={failed.moment})" in str(failed)
    assert failed.moment is not None
    for _ in range(3):
        with pytest.raises(Deadlock, match="NaiveSemaphore"):
            run(lambda: shared(NaiveSemaphore), seed=failed.seed, cancel_at=failed.moment)


def test_explore_finds_nothing_in_asyncios_semaphore() -> None:
    seen = explore(lambda: shared(asyncio.Semaphore), seeds=range(10))
    assert (seen.seeds, seen.runs) == (10, 10 + seen.cancels)
    assert seen.cancels > 100


def test_explore_takes_a_bounded_number_of_moments_and_only_of_the_tasks_wanted() -> None:
    seen = explore(lambda: shared(NaiveSemaphore), seeds=range(3), cancel=False)
    assert (seen.runs, seen.cancels) == (3, 0)
    seen = explore(lambda: shared(asyncio.Semaphore), seeds=range(3), most_cancels=4)
    assert seen.cancels == 12
    seen = explore(lambda: shared(NaiveSemaphore), seeds=range(3), cancel=lambda task: False)
    assert seen.cancels == 0


def test_explore_reports_a_failure_that_nobody_asked_for() -> None:
    async def main() -> None:
        async def lost() -> None:
            raise ValueError("unseen")

        task = asyncio.create_task(lost())
        await asyncio.sleep(1)
        assert task.done()

    with pytest.raises(ExplorationFailed, match=r"seed 0: ValueError: unseen; again: run\(main, seed=0\)"):
        explore(main, cancel=False)


def test_explore_reports_a_callback_that_raises() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(1)

    with pytest.raises(ExplorationFailed, match="seed 0: ValueError: invalid literal"):
        explore(main)
