"""The echo trials: 1, 10 and 100 connections by 1, 16 and 128 KiB, by protocol and by streams.

Small messages cost the same fresh and warm, so they have one row. Large ones have two: allocators and kernel buffers
reach their size during the first requests.
"""

from __future__ import annotations

from benchmarks.machine import Placement, module_command
from benchmarks.method.trial import LIMIT, Effort, Sample, Trial
from benchmarks.net.build import build
from benchmarks.net.load import drive

__all__ = ["trials"]

CONNECTIONS = (1, 10, 100)
SIZES_KIB = (1, 16, 128)
QUICK = {("protocol", 10, 1), ("protocol", 100, 1), ("protocol", 10, 128), ("streams", 10, 1)}


def trials(placement: Placement, effort: Effort) -> list[Trial]:
    shapes = [(kind, n, kib) for kind in ("protocol", "streams") for n in CONNECTIONS for kib in SIZES_KIB]
    return [_trial(*shape, placement, effort) for shape in shapes]


def _trial(kind: str, connections: int, size_kib: int, placement: Placement, effort: Effort) -> Trial:
    name = f"echo {kind} {connections} x {size_kib} KiB"
    rows = {"warm": name} if size_kib == 1 else {"fresh": f"{name}, fresh", "warm": f"{name}, warm"}

    def run(arm: str) -> dict[str, Sample]:
        command = [build("server")] if arm == LIMIT else module_command("benchmarks.net.echo", arm, kind)
        windows = drive(command, connections, size_kib * 1024, effort, placement)
        return {row: windows[window] for window, row in rows.items()}

    quick = (kind, connections, size_kib) in QUICK
    return Trial(tuple(rows.values()), run, limit=kind == "protocol", quick=quick)
