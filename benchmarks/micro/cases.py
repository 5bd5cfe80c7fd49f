"""The bodies of the micro rows: each runs `count` operations on a loop and returns, without arms or clocks.

A chain schedules each step from the step before, usually one a turn; a batch schedules a thousand at once. The first
shows the cost of a turn, the second that of a handle.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CASES", "Case", "Loop", "chain_0", "sleep_zero"]

Loop = asyncio.AbstractEventLoop
BATCH = 1000
FAR_S = 60.0  # a timer that never fires in a run


@dataclass(frozen=True, slots=True)
class Case:
    """The body of a row; a run has a multiple of `step` operations.

    A body may return its own time in ns, without its preparation. A body with `once` is too long to repeat.
    """

    run: Callable[[Loop, int], int | None]
    step: int = 1
    once: bool = False


def _nothing(*_: object) -> None:
    pass


def _chain(loop: Loop, count: int, schedule: Callable[..., object], *args: object) -> None:
    left = count

    def step(*_: object) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            schedule(step, *args)
        else:
            loop.stop()

    schedule(step, *args)
    loop.run_forever()


def chain_0(loop: Loop, count: int) -> None:
    _chain(loop, count, loop.call_soon)


def chain_2(loop: Loop, count: int) -> None:
    _chain(loop, count, loop.call_soon, 1, 2)


def threadsafe_own(loop: Loop, count: int) -> None:
    _chain(loop, count, loop.call_soon_threadsafe)


def _batches(loop: Loop, count: int, fill: Callable[[], None]) -> None:
    left = count // BATCH

    def batch() -> None:
        nonlocal left
        if not left:
            loop.stop()
            return
        left -= 1
        fill()
        loop.call_soon(batch)

    loop.call_soon(batch)
    loop.run_forever()


def batch_0(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_soon, callback = loop.call_soon, _nothing
        for _ in range(BATCH):
            call_soon(callback)

    _batches(loop, count, fill)


def batch_2(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_soon, callback = loop.call_soon, _nothing
        for _ in range(BATCH):
            call_soon(callback, 1, 2)

    _batches(loop, count, fill)


def timers_one(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_later, callback = loop.call_later, _nothing
        for _ in range(BATCH):
            call_later(FAR_S, callback).cancel()

    _batches(loop, count, fill)


def timers_many(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_later, callback = loop.call_later, _nothing
        for handle in [call_later(FAR_S + index, callback) for index in range(BATCH)]:
            handle.cancel()

    _batches(loop, count, fill)


def _timer_batches(loop: Loop, count: int, apart_s: float) -> None:
    left = count // BATCH

    def batch() -> None:
        nonlocal left
        if not left:
            loop.stop()
            return
        left -= 1
        due_s = loop.time() + 0.001
        for index in range(BATCH - 1):
            loop.call_at(due_s + index * apart_s, _nothing)
        loop.call_at(due_s + BATCH * apart_s, batch)

    loop.call_soon(batch)
    loop.run_forever()


def timers_together(loop: Loop, count: int) -> None:
    _timer_batches(loop, count, 0.0)


def timers_spread(loop: Loop, count: int) -> None:
    """Set timers two microseconds apart: an exact loop takes many turns, one that rounds to milliseconds few."""
    _timer_batches(loop, count, 2e-6)


def create_task(loop: Loop, count: int) -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        for _ in range(count):
            await loop.create_task(nothing())

    loop.run_until_complete(main())


def sleep_zero(loop: Loop, count: int) -> None:
    async def one() -> None:
        for _ in range(count // 100):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*[one() for _ in range(100)])

    loop.run_until_complete(main())


def threadsafe_other(loop: Loop, count: int) -> None:
    def post() -> None:
        for _ in range(count - 1):
            loop.call_soon_threadsafe(_nothing)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=post)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def executor(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await loop.run_in_executor(None, _nothing)

    loop.run_until_complete(main())


CASES: dict[str, Case] = {
    "call_soon chain, 0 arguments": Case(chain_0),
    "call_soon chain, 2 arguments": Case(chain_2),
    "call_soon batch, 0 arguments": Case(batch_0, step=BATCH),
    "call_soon batch, 2 arguments": Case(batch_2, step=BATCH),
    "timer set and cancelled, one": Case(timers_one, step=BATCH),
    "timer set and cancelled, 1000": Case(timers_many, step=BATCH),
    "timer fires, 1000 at once": Case(timers_together, step=BATCH),
    "timer fires, 2 µs apart": Case(timers_spread, step=BATCH),
    "create_task + await": Case(create_task),
    "sleep(0) among 100 tasks": Case(sleep_zero, step=100),
    "threadsafe call, own thread": Case(threadsafe_own),
    "threadsafe call, other thread": Case(threadsafe_other),
    "run_in_executor": Case(executor),
}
