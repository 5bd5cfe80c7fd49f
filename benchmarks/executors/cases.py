"""The bodies of the executor rows: each makes calls for a while and returns the wall-clock cost of one."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.executors import delay, jobs
from benchmarks.executors.arms import Call
from benchmarks.method.trial import Sample

__all__ = ["CASES", "NUMPY_MISSING", "Bench", "Case"]

IN_FLIGHT = 64
LEAST = 5  # calls, whatever they take
MIB = 1 << 20
NUMPY_MISSING = "no NumPy rows: numpy is not installed"
Samples = dict[str, Sample]
Body = Callable[["Bench"], Coroutine[Any, Any, Samples]]


@dataclass(frozen=True, slots=True)
class Bench:
    """The arm's call, the time at which its executor began to be made, its workers, and the measuring time."""

    call: Call
    opened_ns: int
    worker_count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """The body of a trial and its rows; `per_core` is the number of workers for each core."""

    rows: tuple[str, ...]
    run: Body
    per_core: int = 1
    numpy: bool = False
    quick: bool = True


async def _latency(rows: tuple[str, str], at: Bench) -> Samples:
    """Call one at a time; return the median and the 99th percentile."""
    await _warm(at)
    taken_ns = await _one_by_one(lambda: at.call(jobs.identity, 1), at.seconds)
    p50_ns, p99_ns = statistics.median(taken_ns), sorted(taken_ns)[int(len(taken_ns) * 0.99)]
    return {rows[0]: _sample(p50_ns, taken_ns), rows[1]: Sample(p99_ns)}


async def _in_flight(row: str, at: Bench) -> Samples:
    """Call from 64 tasks, one call each at a time; return the elapsed time per call."""
    await _warm(at)
    until_ns = time.perf_counter_ns() + int(at.seconds * 1e9)
    taken_ns: list[int] = []

    async def caller() -> None:
        while (began_ns := time.perf_counter_ns()) < until_ns:
            await at.call(jobs.identity, 1)
            taken_ns.append(time.perf_counter_ns() - began_ns)

    began_ns = time.perf_counter_ns()
    await asyncio.gather(*[caller() for _ in range(IN_FLIGHT)])
    return {row: _sample((time.perf_counter_ns() - began_ns) / len(taken_ns), taken_ns)}


async def _bulk(row: str, make: Callable[[], Any], is_returned: bool, at: Bench) -> Samples:
    """Send one large argument at a time; with `is_returned` it is the result too."""
    data = make()
    function, expected = (jobs.identity, data) if is_returned else (jobs.size, len(data))
    await _warm(at)
    for _ in range(at.worker_count + 1):
        found = await at.call(function, data)
        if type(found) is not type(expected) or not _is_equal(found, expected):
            raise RuntimeError(f"{row}: the result is not what was sent")
    taken_ns = await _one_by_one(lambda: at.call(function, data), at.seconds)
    return {row: _sample(statistics.median(taken_ns), taken_ns)}


async def _start(row: str, at: Bench) -> Samples:
    """Return the time from the making of the executor to its first result, in a fresh process with its imports done."""
    await at.call(jobs.identity, 1)
    return {row: Sample(time.perf_counter_ns() - at.opened_ns)}


async def _delay(at: Bench) -> Samples:
    return await delay.measure(at.call, at.worker_count, at.seconds)


async def _warm(at: Bench) -> None:
    """Call until every worker has started and has run a job."""
    for _ in range(5):
        await asyncio.gather(*[at.call(jobs.burn, 10_000) for _ in range(4 * at.worker_count)])


async def _one_by_one(call: Callable[[], Awaitable[object]], seconds: float) -> list[int]:
    taken_ns: list[int] = []
    now_ns = time.perf_counter_ns()
    until_ns = now_ns + int(seconds * 1e9)
    while now_ns < until_ns or len(taken_ns) < LEAST:
        began_ns = now_ns
        await call()
        now_ns = time.perf_counter_ns()
        taken_ns.append(now_ns - began_ns)
    return taken_ns


def _sample(cost_ns: float, taken_ns: list[int]) -> Sample:
    ordered = sorted(taken_ns)
    p50_us, p99_us = (ordered[int(len(ordered) * share)] / 1e3 for share in (0.5, 0.99))
    return Sample(cost_ns, 1e9 / cost_ns, p50_us, p99_us)


def _is_equal(found: Any, expected: Any) -> bool:
    return bool((found == expected).all()) if hasattr(found, "all") else bool(found == expected)


def _bytes(size_mib: int) -> bytes:
    return bytes(range(256)) * (size_mib * MIB // 256)


def _numpy(size_mib: int) -> Any:
    import numpy as np

    return np.frombuffer(_bytes(size_mib), dtype=np.uint8).copy()


def _bulk_case(kind: str, size_mib: int, is_returned: bool, quick: bool = True) -> Case:
    row = f"{size_mib} MiB of {kind}, {'there and back' if is_returned else 'there'}"
    make = partial(_numpy if kind == "NumPy" else _bytes, size_mib)
    return Case((row,), partial(_bulk, row, make, is_returned), numpy=kind == "NumPy", quick=quick)


ONE = ("one call, median", "one call, p99")
FLIGHT = f"a call of {IN_FLIGHT} in flight"
START = "start and first result"
# The delay case runs two jobs per core at once, so it needs two workers per core.
CASES: dict[str, Case] = {
    case.rows[0]: case
    for case in (
        Case(ONE, partial(_latency, ONE)),
        Case((FLIGHT,), partial(_in_flight, FLIGHT)),
        _bulk_case("bytes", 1, is_returned=False, quick=False),
        _bulk_case("bytes", 10, is_returned=False),
        _bulk_case("NumPy", 10, is_returned=False),
        _bulk_case("bytes", 10, is_returned=True),
        _bulk_case("NumPy", 10, is_returned=True),
        Case((START,), partial(_start, START)),
        Case(delay.ROWS, _delay, per_core=2),
    )
}
