"""Tests that compare semaphores with asyncio's: seeded programs of every call give the same diary, turn by turn.

Each program runs on asyncio's loop and on penstock's, with tasks in C and in Python, on both cores. Before Python 3.13,
asyncio's semaphore has bugs that were fixed later; there the two cores are compared with each other.
"""

import asyncio
import gc
import math
import random
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.pressure import CapacityLimiter
from tests.support.loops import BOTH
from tests.support.waiting import turns
from tests.unit.pressure.driving import LIMITERS, SEMAPHORES, cancelled

MENDED = sys.version_info >= (3, 13)
TASKS: dict[str, Callable[..., Any]] = {"C": asyncio.Task, "Python": asyncio.tasks._PyTask}  # type: ignore[attr-defined]
SEEDS, STEPS = 40, 60


class Diary:
    """A seeded program of tasks that acquire, release and are cancelled, and the record of its observations."""

    def __init__(self, kind: Callable[[int], asyncio.Semaphore], task: Callable[..., Any], seed: int) -> None:
        self.dice = random.Random(seed)
        self.semaphore = kind(self.dice.randrange(3))
        self.make_task = task
        self.tasks: list[asyncio.Task[None]] = []
        self.lines: list[object] = []

    async def come(self, name: int, within: bool) -> None:
        try:
            if within:
                async with self.semaphore:
                    self.lines.append(("in", name))
                    await asyncio.sleep(0)
            else:
                assert await self.semaphore.acquire() is True
                self.lines.append(("got", name))
        except asyncio.CancelledError as problem:
            self.lines.append(("cancelled", name, problem.args))
            raise

    def step(self) -> None:
        act = self.dice.choice(["come", "come", "within", "release", "release", "cancel", "twice", "look"])
        if act in ("come", "within"):
            name = len(self.tasks)
            loop = asyncio.get_running_loop()
            self.tasks.append(self.make_task(self.come(name, act == "within"), loop=loop))
        elif act == "release":
            self.semaphore.release()
        elif self.tasks and act in ("cancel", "twice"):
            for _ in range(1 + (act == "twice")):
                self.dice.choice(self.tasks).cancel(self.dice.choice([None, "enough"]))
        self.lines.append((act, self.semaphore.locked(), self.semaphore._value, repr(self.semaphore).partition("[")[2]))

    async def run(self) -> list[object]:
        for _ in range(STEPS):
            self.step()
            if self.dice.random() < 0.5:
                await asyncio.sleep(0)
                self.lines.append("turn")
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert not self.semaphore._waiters
        return [*self.lines, self.semaphore._value]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
@pytest.mark.parametrize("factory", BOTH.values(), ids=BOTH.keys())
def test_every_program_goes_as_with_asyncios(
    factory: Callable[[], asyncio.AbstractEventLoop], task: Callable[..., Any]
) -> None:
    rivals = [*([asyncio.Semaphore] if MENDED else []), *SEMAPHORES.values()]
    waited = 0
    with asyncio.Runner(loop_factory=factory) as runner:
        for seed in range(SEEDS):
            first, *others = (runner.run(Diary(kind, task, seed).run()) for kind in rivals)
            for other in others:
                assert other == first, seed
            waited += sum("waiters" in str(line) for line in first)
    assert waited > 100


@pytest.mark.parametrize("kind", SEMAPHORES.values(), ids=SEMAPHORES.keys())
async def test_the_awaitable_of_async_with_can_be_passed_to_asyncio(kind: Any) -> None:
    semaphore = kind(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(semaphore.__aenter__(), 0.001)
    assert not semaphore._waiters
    wanted = asyncio.ensure_future(semaphore.__aenter__())
    await turns()
    assert len(semaphore._waiters) == 1
    semaphore.release()
    await asyncio.wait_for(wanted, 1)
    assert semaphore.locked()


@pytest.mark.parametrize("kind", SEMAPHORES.values(), ids=SEMAPHORES.keys())
async def test_a_waiter_that_was_not_awaited_is_not_queued(kind: Any) -> None:
    semaphore = kind(0)
    entering = semaphore.__aenter__()
    semaphore.release()
    assert not entering.cancel()
    entering.close()
    assert not semaphore.locked()
    # once awaited, it takes the permit that is free then
    await entering
    assert semaphore.locked()
    with pytest.raises(RuntimeError, match="was awaited before"):
        await entering
    semaphore.release()
    assert not semaphore.locked()


@pytest.mark.parametrize("kind", SEMAPHORES.values(), ids=SEMAPHORES.keys())
async def test_awaiting_twice_is_an_error_and_loses_no_permit(kind: Any) -> None:
    semaphore = kind(0)
    entering = semaphore.__aenter__()

    async def wait() -> None:
        await entering

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    await turns()
    with pytest.raises(RuntimeError, match="awaited by another task"):
        await second
    semaphore.release()
    await turns()
    assert first.done()
    assert (semaphore._granted, semaphore._unfinished) == (0, 0)


@pytest.mark.parametrize("kind", SEMAPHORES.values(), ids=SEMAPHORES.keys())
def test_a_queue_without_references_is_collected(kind: Any) -> None:
    async def main() -> Any:
        semaphore = kind(0)
        waits = [semaphore.acquire() for _ in range(3)]
        for wait in waits:
            wait.send(None)
        semaphore.release()
        return weakref.ref(semaphore)

    there = asyncio.run(main())
    gc.collect()
    assert there() is None


@pytest.mark.parametrize("kind", LIMITERS.values(), ids=LIMITERS.keys())
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
async def test_a_limiter_lends_each_token_once_whatever_is_called(kind: type[CapacityLimiter], task: Any) -> None:
    if sys.version_info >= (3, 14) and task is not asyncio.Task:
        pytest.skip("asyncio.current_task() knows no such task there, and a limiter asks it who borrows")
    dice, loop = random.Random(3), asyncio.get_running_loop()
    limiter, served, waited, tasks = kind(2), 0, 0, []

    async def borrow() -> None:
        nonlocal served
        async with limiter:
            assert limiter.borrowed_tokens <= max(limiter.total_tokens, most)
            served += 1
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)

    most: float = 2
    for _ in range(2000):
        act = dice.randrange(5)
        if act < 2:
            tasks.append(task(borrow(), loop=loop))
        elif act == 2 and tasks:
            dice.choice(tasks[-8:]).cancel()
        elif act == 3:
            limiter.total_tokens = dice.randrange(4)
            most = max(limiter.borrowed_tokens, limiter.total_tokens)
        else:
            await asyncio.sleep(0)
        waiting = limiter.statistics().tasks_waiting
        waited += waiting > 0
        # no task waits while a token is free
        assert not waiting or limiter.available_tokens <= 0
    limiter.total_tokens = math.inf
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (limiter.borrowed_tokens, limiter.statistics().tasks_waiting) == (0, 0)
    assert served > 200
    assert waited > 200


@pytest.mark.parametrize("kind", LIMITERS.values(), ids=LIMITERS.keys())
async def test_a_cancelled_task_leaves_the_limiters_queue_at_once(kind: type[CapacityLimiter]) -> None:
    limiter = kind(1)
    limiter.acquire_on_behalf_of_nowait("held")
    first, second = (asyncio.create_task(limiter.acquire_on_behalf_of(name)) for name in ("first", "second"))
    await turns()
    first.cancel("enough")
    # the cancelled task has not run yet
    assert limiter.statistics().tasks_waiting == 1
    limiter.release_on_behalf_of("held")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await first
    await second
    with pytest.raises(Overloaded):
        limiter.acquire_on_behalf_of_nowait("third")
    assert limiter.statistics().borrowers == ("second",)
    third = asyncio.create_task(limiter.acquire_on_behalf_of("third"))
    await turns()
    await cancelled(third)
