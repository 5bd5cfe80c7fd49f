"""How late a loop is while others work: probes due each millisecond, and each followed by a `call_soon`.

Idle, with CPU-bound jobs in the executor, and with the same jobs in the loop take turns in short slices, in one
process. Each figure is a p99 over all slices of its kind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.executors.arms import Call
from benchmarks.executors.jobs import burn
from benchmarks.trial import Sample

__all__ = ["BUSY", "IDLE", "INLINE", "KINDS", "PROBES", "delay_row", "measure"]

PERIOD_S = 0.001
JOB_S = 0.02  # what one job takes where nothing else runs
SETTLE_S = 0.03
SLICE_S = 0.2
IDLE, BUSY, INLINE = KINDS = ("idle", "jobs in the executor", "the same jobs in the loop")
TIMER, SOON = PROBES = ("timer", "call_soon")
Samples = dict[str, list[float]]


def delay_row(probe: str, kind: str) -> str:
    return f"loop delay p99, {probe}: {kind}"


class Probe:
    """The delays of one slice, in seconds, by probe.

    The timer's dues lie a millisecond apart whatever happens: a turn of 20 ms delays the twenty that fall due in it,
    and counts twenty times. Waiting for one probe before the next is due would count it once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.delays_s: Samples = {probe: [] for probe in PROBES}
        self._due_s = loop.time() + PERIOD_S
        self._handle = loop.call_at(self._due_s, self._fire)

    def stop(self) -> None:
        self._handle.cancel()
        self._note()

    def _fire(self) -> None:
        self._note()
        self._handle = self._loop.call_at(self._due_s, self._fire)
        self._loop.call_soon(self._next_turn, self._loop.time())

    def _note(self) -> None:
        now_s = self._loop.time()
        while self._due_s <= now_s:
            self.delays_s[TIMER].append(now_s - self._due_s)
            self._due_s += PERIOD_S

    def _next_turn(self, asked_s: float) -> None:
        self.delays_s[SOON].append(self._loop.time() - asked_s)


async def measure(call: Call, job_count: int, seconds: float) -> dict[str, Sample]:
    """The samples of all kinds and probes, `seconds` for each kind; `job_count` jobs are at work at any time."""
    count = _calibrate()
    handlers: dict[str, Callable[[], Awaitable[object]] | None] = {
        IDLE: None,
        BUSY: lambda: call(burn, count),
        INLINE: lambda: _inline(count),
    }
    await asyncio.gather(*[call(burn, 1000) for _ in range(2 * job_count)])
    delays_s: dict[str, Samples] = {kind: {probe: [] for probe in PROBES} for kind in KINDS}
    for _ in range(max(1, round(seconds / SLICE_S))):
        for kind, handler in handlers.items():
            probe = await _slice(handler, job_count)
            for name, found_s in probe.delays_s.items():
                delays_s[kind][name] += found_s
    return {delay_row(name, kind): Sample(_p99(delays_s[kind][name]) * 1e9) for name in PROBES for kind in KINDS}


async def _slice(handler: Callable[[], Awaitable[object]] | None, job_count: int) -> Probe:
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
    return probe


async def _inline(count: int) -> None:
    """A handler that does its work where it stands, and lets the others have a turn after it."""
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
