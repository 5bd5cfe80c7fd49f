"""The process that holds 100,000 tasks on one arm's loop; it prints JSON.

`bytes` is the resident memory of a task and its telemetry. `snapshot_ns` is the time for which one snapshot blocks the
loop, the least of several; `read_ns` includes the reading of each record.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.arms import new_loop
from benchmarks.tasks.arms import observer

__all__ = ["TASKS", "main"]

TASKS = 100_000
SNAPSHOTS = 5
Loop = asyncio.AbstractEventLoop


async def waits(future: asyncio.Future[None]) -> None:
    await future


async def hold(loop: Loop) -> dict[str, float]:
    """Make the tasks, let them wait, and measure memory and snapshots."""
    # the first thousand pay for code, caches and arenas
    first = await _tasks(loop, 1000)
    gc.collect()
    before_bytes = _resident_bytes()
    held = await _tasks(loop, TASKS)
    gc.collect()
    found = {"bytes": (_resident_bytes() - before_bytes) / TASKS, **_snapshots(loop)}
    for _, future in [*first, *held]:
        future.set_result(None)
    await asyncio.wait([task for task, _ in [*first, *held]])
    return found


async def _tasks(loop: Loop, count: int) -> list[tuple[asyncio.Task[None], asyncio.Future[None]]]:
    futures = [loop.create_future() for _ in range(count)]
    made = [(asyncio.create_task(waits(future)), future) for future in futures]
    for _ in range(2):
        await asyncio.sleep(0)
    return made


def _snapshots(loop: Loop) -> dict[str, float]:
    """Time snapshots of the observer, or of asyncio where there is none."""
    watching = observer(loop)
    take = watching.live if watching is not None else lambda: asyncio.all_tasks(loop)
    took = {"snapshot_ns": min(_timed_ns(lambda: len(take())) for _ in range(SNAPSHOTS))}
    if watching is not None:
        took["read_ns"] = min(_timed_ns(lambda: sum(1 for _ in take())) for _ in range(2))
        assert len(watching.live()) >= TASKS
    return took


def _timed_ns(call: Any) -> float:
    began_ns = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - began_ns


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    loop = new_loop(sys.argv[1])
    asyncio.set_event_loop(loop)
    print(json.dumps(loop.run_until_complete(hold(loop))), flush=True)
    loop.close()


if __name__ == "__main__":
    main()
