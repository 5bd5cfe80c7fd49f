"""What task telemetry hands out: frozen records, plain data, nothing that keeps a task alive.

Times are float seconds. Knows neither loops nor exporters: the observers fill these in, exporters read them.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (get_type_hints works on a record)
from dataclasses import dataclass, field

from penstock.tasks.finding import Site  # noqa: TC001 (as above)
from penstock.times import Times

__all__ = ["LiveTask", "LoopFigures", "SiteStatistics", "TaskStatistics"]


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """One loop's turns, over its life so far. Zeros where the loop is not penstock's own or the level is below time."""

    # (turns, polls that waited, I/O events they gave)
    turns: int = 0
    polls: int = 0
    events: int = 0
    # kind -> how many ran: task, callback, timer, io
    callbacks: Mapping[str, int] = field(default_factory=dict)
    # how long the loop ran callbacks, and how long it waited for something to do
    active_s: float = 0.0
    idle_s: float = 0.0
    # what is ready now, and how long the oldest of it has been
    ready_count: int = 0
    ready_age_s: float = 0.0
    timer_count: int = 0
    # of each turn that ran something; of each callback; from ready to running
    turn: Times = field(default_factory=Times)
    callback: Times = field(default_factory=Times)
    delay: Times = field(default_factory=Times)
    # of each wait for the OS; from the wait's end to the first callback
    poll: Times = field(default_factory=Times)
    wake: Times = field(default_factory=Times)
    # cause -> stalls: python, gil, gc, descheduled
    stalls: Mapping[str, int] = field(default_factory=dict)

    @property
    def utilization(self) -> float:
        """The share of its time that the loop ran callbacks, 0 to 1."""
        total_s = self.active_s + self.idle_s
        return self.active_s / total_s if total_s else 0.0


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """The tasks of a loop (or of all loops) so far. `created` is always the sum of the outcomes, `lost` and `live`."""

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
    # of `created`: those that ended in the very call that made them
    eager: int = 0
    steps: int = 0
    # from birth to end; of each step; from birth to the first step
    latency: Times = field(default_factory=Times)
    step: Times = field(default_factory=Times)
    start_delay: Times = field(default_factory=Times)
    # what all tasks together have spent running and ready to run
    running_s: float = 0.0
    ready_s: float = 0.0
    # kind of finding -> how many
    findings: Mapping[str, int] = field(default_factory=dict)
    figures: LoopFigures = field(default_factory=LoopFigures)
    # events that the flight recorder has overwritten, findings beyond their rate
    dropped: int = 0
    # exceptions of the telemetry itself, or of a task's own `done()`: the figures may be off by as many steps
    errors: int = 0


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A task that had not ended when this was taken. `waiting_s` is what is left of its age."""

    # one number for each task of the process, in the order of birth
    number: int
    name: str
    site: Site
    age_s: float
    # ready (to run), running, waiting
    state: str
    running_s: float
    ready_s: float
    waiting_s: float
    steps: int


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """The tasks that were created at one place, over the loops asked for."""

    site: Site
    created: int
    completed: int
    failed: int
    cancelled: int
    live: int
    running_s: float
    ready_s: float
    latency: Times = field(default_factory=Times)
