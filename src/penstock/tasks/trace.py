"""The flight recorder's events, and the file they are written to: a trace that ui.perfetto.dev opens.

The format is Chrome's JSON trace: each loop a process track, its steps slices, its tasks' lives asynchronous slices.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Event"]


class Event(NamedTuple):
    """One thing that happened. `kind` is birth, step, end, stall, shed, job, gc, finding or mark."""

    # when it began, on time.monotonic_ns()'s clock, and how long it took; 0 for an instant
    at_ns: int
    took_ns: int
    kind: str
    # the task it is about (`LiveTask.number`), 0 for none
    task: int
    # for people: a site, a lane, a cause
    text: str
