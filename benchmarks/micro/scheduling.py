"""Rows of the schedule: callbacks and timers.

A chain schedules each step from the step before, usually one a turn; a batch schedules a thousand at once. The first
shows the cost of a turn, the second that of a handle.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from benchmarks.micro.case import FAR_S, Case, Loop, nothing

__all__ = ["CASES", "chain", "chain_0"]

BATCH = 1000
PENDING, CHURNED = 100_000, 20 * BATCH


def chain(loop: Loop, count: int, schedule: Callable[..., object], *args: object) -> None:
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
    chain(loop, count, loop.call_soon)


def chain_3(loop: Loop, count: int) -> None:
    chain(loop, count, loop.call_soon, 1, 2, 3)


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
        call_soon, callback = loop.call_soon, nothing
        for _ in range(BATCH):
            call_soon(callback)

    _batches(loop, count, fill)


def batch_3(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_soon, callback = loop.call_soon, nothing
        for _ in range(BATCH):
            call_soon(callback, 1, 2, 3)

    _batches(loop, count, fill)


def timers_one(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_later, callback = loop.call_later, nothing
        for _ in range(BATCH):
            call_later(FAR_S, callback).cancel()

    _batches(loop, count, fill)


def timers_many(loop: Loop, count: int) -> None:
    def fill() -> None:
        call_later, callback = loop.call_later, nothing
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
            loop.call_at(due_s + index * apart_s, nothing)
        loop.call_at(due_s + BATCH * apart_s, batch)

    loop.call_soon(batch)
    loop.run_forever()


def timers_together(loop: Loop, count: int) -> None:
    _timer_batches(loop, count, 0.0)


def timers_spread(loop: Loop, count: int) -> None:
    """Set timers two microseconds apart: an exact loop takes many turns, one that rounds to milliseconds few."""
    _timer_batches(loop, count, 2e-6)


def timers_churn(loop: Loop, count: int) -> int:
    """Replace timers among 100,000 pending ones, in any order, and return the time of one in ns."""
    dice, left, took_ns = random.Random(1), CHURNED // BATCH, 0
    pending = [loop.call_later(FAR_S + dice.random() * FAR_S, nothing) for _ in range(PENDING)]

    def churn() -> None:
        nonlocal left, took_ns
        places = [(dice.randrange(PENDING), FAR_S + dice.random() * FAR_S) for _ in range(BATCH)]
        began_ns = time.process_time_ns()
        for place, delay_s in places:
            pending[place].cancel()
            pending[place] = loop.call_later(delay_s, nothing)
        took_ns += time.process_time_ns() - began_ns
        left -= 1
        loop.call_soon(churn if left else loop.stop)

    loop.call_soon(churn)
    loop.run_forever()
    for handle in pending:
        handle.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()  # a turn in which the loop may drop what is cancelled
    return took_ns // CHURNED


CASES: dict[str, Case] = {
    "call_soon chain, 0 arguments": Case(chain_0),
    "call_soon chain, 3 arguments": Case(chain_3),
    "call_soon batch, 0 arguments": Case(batch_0, step=BATCH),
    "call_soon batch, 3 arguments": Case(batch_3, step=BATCH),
    "timer set and cancelled, one": Case(timers_one, step=BATCH, last=True),
    "timer set and cancelled, 1000": Case(timers_many, step=BATCH, last=True),
    "timer replaced among 100,000": Case(timers_churn, once=True, last=True, counted=0),
    "timer fires, 1000 at once": Case(timers_together, step=BATCH),
    "timer fires, 2 µs apart": Case(timers_spread, step=BATCH),
}
