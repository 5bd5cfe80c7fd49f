"""Rows: the records that the core returns of tasks, sites and queues. Times are nanoseconds of the monotonic clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from weakref import ReferenceType

__all__ = [
    "AuditedCall",
    "FlightRow",
    "HeartbeatRow",
    "LostRow",
    "Outcomes",
    "QueueFigures",
    "ScanRow",
    "SiteRow",
    "SiteScan",
    "StallEnd",
    "StallSighting",
    "TaskRow",
]

# (code object, instruction offset) of each frame, the innermost first
RawStack: TypeAlias = "tuple[tuple[Any, int], ...]"


class TaskRow(NamedTuple):
    """The record of a live task, as it was when the snapshot was taken."""

    number: int
    weak: ReferenceType[Any]
    site: int
    # 0: the task is older than the level `time`
    born_ns: int
    since_ns: int
    # 0 ready, 1 running, 2 waiting: `since_ns` is when this state began
    state: int
    running_ns: int
    ready_ns: int
    steps: int
    stack: RawStack | None


class ScanRow(NamedTuple):
    """The numbers of a live task's record, as they were when the scan copied it. `at` is its index in the ledger."""

    number: int
    at: int
    site: int
    born_ns: int
    since_ns: int
    state: int
    running_ns: int
    ready_ns: int
    steps: int


class SiteScan(NamedTuple):
    """The live tasks of one site: how many are in each state, the age of the oldest, the times of all."""

    site: int
    ready: int
    running: int
    waiting: int
    oldest_ns: int
    running_ns: int
    ready_ns: int


class LostRow(NamedTuple):
    """The record of a task that will not end: it was collected, or its loop is closed. `weak` may be None."""

    number: int
    site: int
    born_ns: int
    steps: int
    stack: RawStack | None
    weak: ReferenceType[Any] | None = None


class Outcomes(NamedTuple):
    """Counts of ended tasks by outcome."""

    returned: int
    raised: int
    cancelled: int
    lost: int


class SiteRow(NamedTuple):
    """The counts and times of the tasks of one site. `latency` is None before the first of them has ended.

    `step` and `schedule` are None unless one of them has run at level `trace`.
    """

    site: int
    created: int
    ended: Outcomes
    live: int
    running_ns: int
    ready_ns: int
    latency: Any
    # durations of steps, and times from ready to running
    step: Any
    schedule: Any


class FlightRow(NamedTuple):
    """An event of the flight recorder. `detail` is an outcome for the end of a task, a kind for a callback."""

    kind: int
    at_ns: int
    took_ns: int
    task: int
    site: int
    detail: int


class HeartbeatRow(NamedTuple):
    """The words of a heartbeat. The times are 0 while no turn or callback runs, `thread_id` while the loop does not."""

    turn_since_ns: int
    callback_since_ns: int
    turn_number: int
    callbacks_done: int
    thread_id: int


class AuditedCall(NamedTuple):
    """A blocking call that the audit hook saw: the event, and its calls in a row within one callback."""

    event: str
    calls: int
    first_ns: int
    newest_ns: int


class QueueFigures(NamedTuple):
    """The lengths of a loop's queues. `ready_age_ns` is the age of the oldest ready handle, 0 if it is not known."""

    ready_count: int
    ready_age_ns: int
    timer_count: int


class StallSighting(NamedTuple):
    """A stall as the watchdog has measured it so far. Nanoseconds; -1 is a time that is not known."""

    # a WatchedLoop of the watchdog, which imports this module
    watched: Any
    # the beginning, on time.monotonic_ns()'s clock, and the length so far
    since_ns: int
    lasted_ns: int
    # how long the watchdog waited for the GIL
    gil_wait_ns: int
    # the span of the figures below: from the first observation of the stall, which is in its first half, to now
    observed_ns: int
    # CPU time of the loop's thread, and its part of that while the watchdog waited for the GIL
    cpu_ns: int
    wait_cpu_ns: int
    # garbage collections, in any thread
    gc_ns: int
    # the time of the loop's thread on a run queue without a CPU
    runnable_ns: int
    # how much later than asked the watchdog itself has woken
    late_ns: int
    turn: int
    # callbacks of the turn that had ended
    callbacks: int
    # a turn of many callbacks, not one long callback
    is_turn: bool
    # a second report of the same stall
    again: bool
    # the stall had ended before it could be looked at
    is_over: bool


class StallEnd(NamedTuple):
    """The end of a stall that was reported while it lasted. Times are as in `StallSighting`."""

    # a WatchedLoop
    watched: Any
    is_turn: bool
    since_ns: int
    until_ns: int
