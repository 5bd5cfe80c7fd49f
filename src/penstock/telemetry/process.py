"""The figures of this process, from the standard library and /proc: garbage collection, CPU time, memory, threads.

A figure that the platform does not report is left out.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["process_values"]

GC_COUNTS = (
    ("cpython.gc.collections", "collections"),
    ("cpython.gc.collected_objects", "collected"),
    ("cpython.gc.uncollectable_objects", "uncollectable"),
)


def process_values() -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield each value as (metric, values of its attributes, value)."""
    for generation, counts in enumerate(gc.get_stats()):
        for name, key in GC_COUNTS:
            yield name, (str(generation),), counts[key]
    spent = os.times()
    yield "process.cpu.time", ("user",), spent.user
    yield "process.cpu.time", ("system",), spent.system
    yield from _usage()
    yield from _from_proc()


def _usage() -> Iterator[tuple[str, tuple[str, ...], float]]:
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return
    usage = getrusage(RUSAGE_SELF)
    yield "process.context_switches", ("voluntary",), usage.ru_nvcsw
    yield "process.context_switches", ("involuntary",), usage.ru_nivcsw
    yield "process.paging.faults", ("minor",), usage.ru_minflt
    yield "process.paging.faults", ("major",), usage.ru_majflt


def _from_proc() -> Iterator[tuple[str, tuple[str, ...], float]]:
    try:
        with open("/proc/self/statm") as file:
            virtual, resident = (int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in file.read().split()[:2])
        thread_count = len(os.listdir("/proc/self/task"))
        # one is the listing's own
        descriptor_count = len(os.listdir("/proc/self/fd")) - 1
    except OSError:  # no such file here
        return
    yield "process.memory.usage", (), resident
    yield "process.memory.virtual", (), virtual
    yield "process.thread.count", (), thread_count
    yield "process.unix.file_descriptor.count", (), descriptor_count
