"""The cost of a gate by itself: a permit, a refusal, and thousands of waiters, beside asyncio.Semaphore.

Waiters are driven by hand, as a task drives an awaitable, so that only the guard is timed. The rows of waiting tasks
include the tasks.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import Any

from benchmarks.micro.case import Case, Loop
from benchmarks.pressure.handoffs import HANDOFFS, Asyncios, Penstocks, handoff_cases

__all__ = ["COSTS", "PERMIT", "REFUSALS", "WAITERS", "Gates", "Semaphores", "cases"]

COUNT = 20_000
PERMIT = "a permit, no waiters"
REFUSALS = ("a refusal, raised", "a refusal, asked for")
RELEASED = "20,000 waiters released"
CANCELLED = {f"20,000 waiters cancelled, {order} first": order for order in ("oldest", "newest", "random")}
WAITERS = (RELEASED, *CANCELLED)
TASKS = ("20,000 waiting tasks released", "20,000 waiting tasks cancelled, newest first")
COSTS = (PERMIT, *REFUSALS, *WAITERS, *TASKS, *HANDOFFS)


class Semaphores:
    """asyncio.Semaphore as a guard. It cannot refuse: a refusal is `locked()` and an exception."""

    refusal: type[Exception] = RuntimeError

    def make(self, permits: int, *, waits: bool) -> Any:
        return asyncio.Semaphore(permits)

    def enter(self, guard: asyncio.Semaphore) -> Any:
        return guard.acquire()

    def leave(self, guard: asyncio.Semaphore) -> None:
        guard.release()

    def asked(self, guard: asyncio.Semaphore) -> bool:
        return not guard.locked()

    async def refused(self, guard: asyncio.Semaphore) -> None:
        if guard.locked():
            raise RuntimeError("no permit is free")
        async with guard:
            pass


class Gates:
    """penstock.Gate with a fixed limit as a guard."""

    def __init__(self) -> None:
        # imported here, because the first call of a case is timed to choose the number of calls
        from penstock import Gate
        from penstock.errors import Overloaded

        self._gate: Any = Gate
        self.refusal: type[Exception] = Overloaded

    def make(self, permits: int, *, waits: bool) -> Any:
        if waits:
            return self._gate(permits, max_wait_s=float("inf"), max_queued=COUNT)
        return self._gate(permits, max_wait_s=0.0)

    def enter(self, guard: Any) -> Any:
        return guard.enter()

    def leave(self, guard: Any) -> None:
        guard.leave()

    def asked(self, guard: Any) -> bool:
        return bool(guard.try_enter())

    async def refused(self, guard: Any) -> None:
        async with guard:
            pass


Guards = Semaphores | Gates


def cases(guards: Guards) -> dict[str, Case]:
    """Return the bodies of the rows for one kind of guard."""
    return {
        PERMIT: Case(partial(_permit, guards)),
        REFUSALS[0]: Case(partial(_raised, guards)),
        REFUSALS[1]: Case(partial(_asked, guards)),
        RELEASED: Case(partial(_released, guards), once=True),
        **{row: Case(partial(_cancelled, guards, order), once=True) for row, order in CANCELLED.items()},
        TASKS[0]: Case(partial(_tasks_released, guards), once=True),
        TASKS[1]: Case(partial(_tasks_cancelled, guards), once=True),
        **handoff_cases(Asyncios() if isinstance(guards, Semaphores) else Penstocks()),
    }


def _permit(guards: Guards, loop: Loop, count: int) -> None:
    async def main() -> None:
        guard = guards.make(1, waits=True)
        for _ in range(count):
            async with guard:
                pass

    loop.run_until_complete(main())


def _raised(guards: Guards, loop: Loop, count: int) -> None:
    async def main() -> None:
        guard = await _full(guards, 1, waits=False)
        refusal, refused, seen = guards.refusal, guards.refused, 0
        for _ in range(count):
            try:
                await refused(guard)
            except refusal:
                seen += 1
        assert seen == count

    loop.run_until_complete(main())


def _asked(guards: Guards, loop: Loop, count: int) -> None:
    async def main() -> None:
        guard = await _full(guards, 1, waits=False)
        asked = guards.asked
        assert not any(asked(guard) for _ in range(count))

    loop.run_until_complete(main())


async def _full(guards: Guards, permits: int, *, waits: bool) -> Any:
    guard = guards.make(permits, waits=waits)
    for _ in range(permits):
        await guards.enter(guard)
    return guard


class Waiter:
    """A waiter driven by hand: resumed when its future is done, and given CancelledError when cancelled."""

    __slots__ = ("future", "steps")

    def __init__(self, awaitable: Any) -> None:
        self.steps = awaitable.__await__()
        self.future = self.steps.send(None)
        # as a task does with a future that it begins to wait for
        self.future._asyncio_future_blocking = False

    def resume(self) -> None:
        try:
            self.steps.send(None)
        except StopIteration:
            return
        raise AssertionError("it still waits")

    def throw(self) -> None:
        try:
            self.steps.throw(asyncio.CancelledError())
        except asyncio.CancelledError:
            return
        raise AssertionError("it was not cancelled")


def _released(guards: Guards, loop: Loop, count: int) -> int:
    async def main() -> int:
        guard = await _full(guards, COUNT, waits=True)
        waiters = [Waiter(guards.enter(guard)) for _ in range(COUNT)]
        leave = guards.leave
        began_ns = time.process_time_ns()
        for _ in range(COUNT):
            leave(guard)
        for waiter in waiters:
            waiter.resume()
        return time.process_time_ns() - began_ns

    return loop.run_until_complete(main())


def _cancelled(guards: Guards, order: str, loop: Loop, count: int) -> int:
    async def main() -> int:
        guard = await _full(guards, 1, waits=True)
        waiters = _ordered([Waiter(guards.enter(guard)) for _ in range(COUNT)], order)
        began_ns = time.process_time_ns()
        for waiter in waiters:
            waiter.future.cancel()
        for waiter in waiters:
            waiter.throw()
        return time.process_time_ns() - began_ns

    return loop.run_until_complete(main())


def _ordered(waiters: list[Any], order: str) -> list[Any]:
    if order == "random":
        random.Random(1).shuffle(waiters)
    return waiters[::-1] if order == "newest" else waiters


def _tasks_released(guards: Guards, loop: Loop, count: int) -> int:
    async def main() -> int:
        guard = await _full(guards, COUNT, waits=True)
        group = await Waiting.begin(guards, guard)
        began_ns = time.process_time_ns()
        for _ in range(COUNT):
            guards.leave(guard)
        await group.end()
        return time.process_time_ns() - began_ns

    return loop.run_until_complete(main())


def _tasks_cancelled(guards: Guards, loop: Loop, count: int) -> int:
    async def main() -> int:
        guard = await _full(guards, 1, waits=True)
        group = await Waiting.begin(guards, guard)
        began_ns = time.process_time_ns()
        for task in reversed(group.tasks):
            task.cancel()
        await group.end()
        return time.process_time_ns() - began_ns

    return loop.run_until_complete(main())


class Waiting:
    """Tasks that wait for a permit, and the number still waiting."""

    def __init__(self, guards: Guards, guard: Any) -> None:
        self.left = COUNT
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self._one(guards.enter(guard))) for _ in range(COUNT)]

    @classmethod
    async def begin(cls, guards: Guards, guard: Any) -> Waiting:
        group = cls(guards, guard)
        for _ in range(3):
            await asyncio.sleep(0)
        return group

    async def end(self) -> None:
        while self.left:  # noqa: ASYNC110 - an event would be timed too
            await asyncio.sleep(0)

    async def _one(self, entered: Any) -> None:
        try:
            await entered
        finally:
            self.left -= 1
