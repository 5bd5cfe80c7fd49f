"""Rules about the machine's limits: the CPU quota, file descriptors, memory."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from penstock.monitor.rules.diagnosis import Diagnosis
from penstock.monitor.texts import MIB_BYTES, duration, share_text, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.monitor.rules.diagnosis import Observed, Rule

__all__ = ["RULES"]

# A quota stops a process for whole periods of 0.1 s: at a twentieth of the time, latencies show it.
THROTTLED_SHARE = 0.05
# the rest is used up within minutes at the pace of most leaks, and accept() fails then
DESCRIPTORS_SHARE = 0.9
# Memory grows if it rose in each third of an observation of a minute or more, by a fifth and by 50 MiB in all: a
# program that fills its caches after the start is slower or stops earlier.
MEMORY_LEAST_S = 60.0
MEMORY_SHARE, MEMORY_BYTES = 0.2, 50 * MIB_BYTES
MEMORY_PARTS = 3
# the kernel's letter for a process's state -> the sentence and the next step
STATES = {
    "T": ("the process is stopped by a signal", "continue it: kill -CONT"),
    "t": ("the process is stopped by a debugger", "continue it there"),
    "Z": ("the process has ended and its parent has not collected it", "look at the parent"),
    "D": ("the process waits for a device in the kernel", "look at its disks and network file systems"),
}
ANY_STATE = ("the process does not answer", "look for a machine without memory or CPU to spare")


def silent(seen: Observed) -> Iterator[Diagnosis]:
    """Name a process that gives no answer, not even a partial one, by its state in the kernel."""
    if seen.silence is None:
        return
    lasted_s, state = seen.silence
    sentence, step = STATES.get(state, ANY_STATE)
    yield Diagnosis(
        kind="silent",
        sentence=f"{sentence} (no answer for {duration(lasted_s)})",
        next_step=step,
        rank=100.0,
        severity="error",
        evidence={"lasted_s": lasted_s, "state": state},
    )


def throttled(seen: Observed) -> Iterator[Diagnosis]:
    """Name a CPU quota that stops the process."""
    process = seen.figures.process
    if process.throttled_share < THROTTLED_SHARE or seen.figures.seconds <= 0:
        return
    quota = f" of {process.quota_cores:g} cores" if process.quota_cores else ""
    yield Diagnosis(
        kind="throttled",
        sentence=(
            f"the CPU quota{quota} stops the process for {share_text(min(1.0, process.throttled_share))} of the time"
        ),
        next_step="raise the quota, or run fewer workers and threads in it",
        rank=92.0,
        severity="error",
        evidence={"throttled_share": process.throttled_share, "quota_cores": process.quota_cores},
    )


def descriptors(seen: Observed) -> Iterator[Diagnosis]:
    """Name a number of open files that is near its limit."""
    process = seen.figures.process
    limit = process.descriptor_limit
    if not limit or process.descriptors < DESCRIPTORS_SHARE * limit:
        return
    yield Diagnosis(
        kind="descriptors",
        sentence=f"{process.descriptors:,} of {limit:,} file descriptors are open: new connections will fail soon",
        next_step="close connections, bound them by pressure.max_connections, or raise `ulimit -n`",
        rank=78.0,
        severity="error",
        evidence={"descriptors": process.descriptors, "limit": limit},
    )


def memory(seen: Observed) -> Iterator[Diagnosis]:
    """Name memory that grows in every part of a long observation."""
    series = [each for each in seen.series if each.process.rss_bytes]
    if not series or series[-1].at_s - series[0].at_s < MEMORY_LEAST_S:
        return
    first_s, step_s = series[0].at_s, (series[-1].at_s - series[0].at_s) / MEMORY_PARTS
    bounds = [first_s + step_s * part for part in range(MEMORY_PARTS)]
    sizes = [next(each.process.rss_bytes for each in series if each.at_s >= at_s) for at_s in bounds]
    sizes.append(series[-1].process.rss_bytes)
    grown = sizes[-1] - sizes[0]
    part = max(MEMORY_BYTES, MEMORY_SHARE * sizes[0]) / MEMORY_PARTS / 2
    rises = all(later - former >= part for former, later in pairwise(sizes))
    if not rises or grown < max(MEMORY_BYTES, MEMORY_SHARE * sizes[0]):
        return
    lasted = duration(step_s * MEMORY_PARTS)
    yield Diagnosis(
        kind="memory",
        sentence=f"memory grows without end: from {size(sizes[0])} to {size(sizes[-1])} in {lasted}",
        next_step="bound caches and queues; compare two snapshots of tracemalloc to find the place",
        rank=52.0,
        evidence={"rss_bytes": sizes},
        explained_by=("growing",),
    )


RULES: tuple[Rule, ...] = (silent, throttled, descriptors, memory)
