"""The records of task telemetry: frozen, plain data, without references to tasks.

Times are float seconds. Observers make them, exporters read them. Knows neither loops nor exporters.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (get_type_hints works on a record)
from dataclasses import dataclass, field

from penstock.tasks.place import Place  # noqa: TC001 (as above)
from penstock.times import Times

__all__ = ["LiveTask", "LoopFigures", "SiteStatistics", "TaskStatistics"]


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """The figures of one loop's turns so far. Zeros for a loop that is not penstock's own, or a level below time."""

    # turns, polls that waited, and the I/O events of the polls
    turns: int = 0
    polls: int = 0
    events: int = 0
    # callbacks that ran, by kind: task, callback, timer, io
    callbacks: Mapping[str, int] = field(default_factory=dict)
    # time in callbacks, and time in polls that waited
    active_s: float = 0.0
    idle_s: float = 0.0
    # handles that are ready now, and how long the oldest of them has been
    ready_count: int = 0
    ready_age_s: float = 0.0
    timer_count: int = 0
    # duration of each turn with a callback; of each callback; from ready to running
    turn: Times = field(default_factory=Times)
    callback: Times = field(default_factory=Times)
    delay: Times = field(default_factory=Times)
    # duration of each poll that waited; from its end to the first callback
    poll: Times = field(default_factory=Times)
    wake: Times = field(default_factory=Times)
    # stalls by cause: python, gil, gc, descheduled
    stalls: Mapping[str, int] = field(default_factory=dict)

    @property
    def utilization(self) -> float:
        """The share of time in callbacks, 0 to 1."""
        total_s = self.active_s + self.idle_s
        return self.active_s / total_s if total_s else 0.0


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """The counts and times of a loop's tasks, or of several loops', so far.

    `created` is always the sum of completed, failed, cancelled, lost and live.
    """

    loop: str
    implementation: str
    level: str
    created: int = 0
    # outcomes: returned, raised, cancelled
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    # collected while pending
    lost: int = 0
    live: int = 0
    # of `created`: tasks that ended in the call that made them
    eager: int = 0
    steps: int = 0
    # from birth to end; duration of each step; from birth to the first step
    latency: Times = field(default_factory=Times)
    step: Times = field(default_factory=Times)
    start_delay: Times = field(default_factory=Times)
    # time of all tasks together, running and ready to run
    running_s: float = 0.0
    ready_s: float = 0.0
    # findings by kind
    findings: Mapping[str, int] = field(default_factory=dict)
    figures: LoopFigures = field(default_factory=LoopFigures)
    # events that the flight recorder has overwritten, and findings beyond their rate
    dropped: int = 0
    # exceptions of the telemetry itself or of a task's own `done()`; the figures may be off by as many steps
    errors: int = 0


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A task that had not ended when the record was made. `waiting_s` is the rest of its age."""

    # one number for each task of the process, in the order of birth
    number: int
    name: str
    site: Place
    age_s: float
    # ready (to run), running, waiting
    state: str
    running_s: float
    ready_s: float
    waiting_s: float
    steps: int


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """The counts and times of the tasks that were created at one place."""

    site: Place
    created: int
    completed: int
    failed: int
    cancelled: int
    live: int
    running_s: float
    ready_s: float
    latency: Times = field(default_factory=Times)
    # of steps at level trace on the native loop: durations, and times from ready to running
    step: Times = field(default_factory=Times)
    schedule: Times = field(default_factory=Times)
