"""The task trials: chosen rows of the loops, and a process for each arm that holds 100,000 tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from benchmarks.http import suite as http
from benchmarks.machine import Placement, module_command, read_line, spawn, stop
from benchmarks.method.trial import Sample, Trial, base_arm
from benchmarks.micro import suite as micro
from benchmarks.net import suite as net
from benchmarks.tasks.cases import TASK_CASES

__all__ = ["BYTES", "SERVED", "SNAPSHOT", "SNAPSHOT_READ", "notes", "trials"]

SERVED = ("echo streams 10 x 1 KiB", "echo protocol 10 x 1 KiB", http.OWN)
# goals of a few percent need many pairs, each close together in time
MICRO_TIMES, SERVED_TIMES = 5, 2
BYTES = "a live task among 100,000, bytes"
SNAPSHOT = "a snapshot of 100,000 live tasks"
SNAPSHOT_READ = "the same, each record read"
SNAPSHOT_NOTE = f"{SNAPSHOT!r}: live() on penstock's loop, elsewhere asyncio.all_tasks(), which has fewer details"
# takes tens of seconds to make 100,000 tasks
TOO_SLOW = ("asyncio-debug",)
TOO_SLOW_NOTE = f"without 100,000 tasks, too slow for them: {', '.join(TOO_SLOW)}"


def trials(workers: micro.Workers, bench: net.Bench) -> list[Trial]:
    served = [*net.trials(bench), *http.trials(bench)]
    # the server in C has no tasks
    chosen = [
        replace(trial, limit=False, quick=True, times=SERVED_TIMES) for trial in served if trial.rows[0] in SERVED
    ]
    held = Trial((BYTES, SNAPSHOT, SNAPSHOT_READ), partial(_hold, bench.placement))
    micros = [replace(trial, times=MICRO_TIMES) for trial in micro.trials(workers, TASK_CASES)]
    return [*micros, *chosen, held]


def notes(rows: Iterable[str]) -> list[str]:
    """Return what the rows leave out, a line each."""
    if SNAPSHOT not in rows:
        return []
    return [TOO_SLOW_NOTE, SNAPSHOT_NOTE]


def _hold(placement: Placement, arm: str) -> dict[str, Sample]:
    if base_arm(arm) in TOO_SLOW:
        return {}
    process = spawn(module_command("benchmarks.tasks.worker", arm), placement.server)
    try:
        found = json.loads(read_line(process))
    finally:
        stop(process)
    names = {BYTES: "bytes", SNAPSHOT: "snapshot_ns", SNAPSHOT_READ: "read_ns"}
    return {row: Sample(found[name]) for row, name in names.items() if name in found}
