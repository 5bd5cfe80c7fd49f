"""A request of the screen to the sampler, and the sampler's answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.monitor.figures import Figures, figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.monitor.rules import Diagnosis

__all__ = ["EVERY", "TaskQuery", "TopState", "TopWish", "WatchedState"]

# the scope of all workers together
EVERY = 0


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """The tasks that the screen shows."""

    limit: int = 20
    sort: str = "age"
    descends: bool = True
    text: str = ""
    # "", "site" or "stack"
    group: str = ""


@dataclass(frozen=True, slots=True)
class TopWish:
    """The data that the screen needs now. Without `tasks` and `inspected` the process is not asked for tasks."""

    scope: int = EVERY
    tasks: TaskQuery | None = None
    # (pid, number) of the inspected task
    inspected: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class WatchedState:
    """One process, as it was seen last."""

    pid: int
    number: int | None
    figures: Figures
    # (utilization, p99 of the delay in seconds) of each interval, oldest first
    series: tuple[tuple[float, float], ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    has_answered: bool = False
    # why there is no answer; empty while there is one
    problem: str = ""
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class TopState:
    """The answers of one round."""

    scope: int = EVERY
    processes: tuple[WatchedState, ...] = ()
    figures: Figures = field(default_factory=lambda: figures(None, {}))
    diagnoses: tuple[tuple[int | None, Diagnosis], ...] = ()
    query: TaskQuery | None = None
    # rows or groups of tasks, each with its `pid`
    task_rows: tuple[Mapping[str, Any], ...] = ()
    task_total: int = 0
    task_matched: int = 0
    task_problem: str = ""
    inspected: tuple[int, int] | None = None
    inspection: Mapping[str, Any] = field(default_factory=dict)
    inspection_problem: str = ""
    problem: str = ""

    @property
    def shown(self) -> tuple[WatchedState, ...]:
        """The processes in the scope."""
        return tuple(each for each in self.processes if self.scope in (EVERY, each.pid))

    @property
    def has_ended(self) -> bool:
        """Whether all processes in the scope have ended."""
        return bool(self.shown) and all(each.has_ended for each in self.shown)

    @property
    def is_merged(self) -> bool:
        """Whether several processes are shown together."""
        return len(self.shown) > 1

    @property
    def blocked_s(self) -> float:
        """The age of the oldest callback that runs for long now; 0 without one."""
        loops = [loop for each in self.shown if not each.has_ended for loop in each.figures.loops]
        return max((loop.blocked.lasted_s for loop in loops if loop.blocked is not None), default=0.0)
