"""The loop's delay: the time from a timer's due time until a callback that it schedules has run.

That is a wake-up and a whole turn, which every request waits for. Short slices alternate in one process: idle, with
CPU-bound jobs in the executor, and with the same jobs in the loop. A figure is the p99 over all slices of its kind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.executors.arms import Call
from benchmarks.executors.jobs import burn
from benchmarks.method.trial import Sample

__all__ = ["ROWS", "measure"]

PERIOD_S = 0.001
JOB_S = 0.02  # the time of one job on an idle machine
SETTLE_S = 0.03
SLICE_S = 0.2
Handler = Callable[[], Awaitable[object]]
IDLE, BUSY, INLINE = ROWS = (
    "loop delay p99, idle",
    "loop delay p99, jobs in the executor",
    "loop delay p99, the same jobs in the loop",
)


class Probe:
    """The delays of one slice, in seconds.

    Due times lie a millisecond apart whatever happens: a turn of 20 ms delays twenty of them and counts twenty times.
    Waiting for one probe before setting the next would count it once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.delays_s: list[float] = []
        self._due_s = loop.time() + PERIOD_S
        self._handle = loop.call_at(self._due_s, self._fire)

    def stop(self) -> None:
        self._handle.cancel()
        self._note(self._loop.time())

    def _fire(self) -> None:
        self._loop.call_soon(self._next_turn, self._loop.time())

    def _next_turn(self, fired_s: float) -> None:
        self._note(fired_s)
        self._handle = self._loop.call_at(self._due_s, self._fire)

    def _note(self, fired_s: float) -> None:
        """Record the delay of every probe that was due when the timer fired."""
        now_s = self._loop.time()
        while self._due_s <= fired_s:
            self.delays_s.append(now_s - self._due_s)
            self._due_s += PERIOD_S


async def measure(call: Call, job_count: int, seconds: float) -> dict[str, Sample]:
    """Measure for `seconds` and return the sample of each row; `job_count` jobs run at any time."""
    count = _calibrate()
    handlers: dict[str, Handler | None] = {
        IDLE: None,
        BUSY: lambda: call(burn, count),
        INLINE: lambda: _inline(count),
    }
    await asyncio.gather(*[call(burn, 1000) for _ in range(2 * job_count)])
    delays_s: dict[str, list[float]] = {row: [] for row in ROWS}
    for _ in range(max(1, round(seconds / SLICE_S))):
        for row, handler in handlers.items():
            delays_s[row] += await _slice(handler, job_count)
    return {row: Sample(_p99(found_s) * 1e9) for row, found_s in delays_s.items()}


async def _slice(handler: Handler | None, job_count: int) -> list[float]:
    is_over = asyncio.Event()

    async def work() -> None:
        while handler and not is_over.is_set():
            await handler()

    workers = [asyncio.create_task(work()) for _ in range(job_count)]
    await asyncio.sleep(SETTLE_S)
    probe = Probe(asyncio.get_running_loop())
    await asyncio.sleep(SLICE_S)
    probe.stop()
    is_over.set()
    await asyncio.gather(*workers)
    return probe.delays_s


async def _inline(count: int) -> None:
    """Run the job in the loop, then yield a turn."""
    burn(count)
    await asyncio.sleep(0)


def _calibrate() -> int:
    count = 1000
    while (taken_s := _timed_s(count)) < JOB_S / 4:
        count *= 2
    return round(count * JOB_S / taken_s)


def _timed_s(count: int) -> float:
    began_s = time.perf_counter()
    burn(count)
    return time.perf_counter() - began_s


def _p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[int(len(ordered) * 0.99)] if ordered else 0.0
