"""The loop's own gate: it bounds the intake of a loop that is behind, without a change to the application.

The native loop measures the wait of ready callbacks, and defers reads that add work (`penstock._core.overload.lag`).
This module does the rest, a few times a second during an overload: it scales the gates of the loop down, slows and
pauses accepts, and notifies. It knows gates by their registry alone.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from penstock.loop.native import native_core
from penstock.pressure.admission import registry
from penstock.pressure.overload.sheds import Counts, ShedLog, format_sheds, register_source
from penstock.pressure.renames import refuse_former_names

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from penstock.loop.native import NativeCore
    from penstock.pressure.overload.tasks import TaskLimit

__all__ = [
    "LOOP",
    "LoopGate",
    "LoopStatistics",
    "arrived_at",
    "is_overloaded",
    "loop_statistics",
    "pause_watch",
    "resume_watch",
]

logger = logging.getLogger("penstock.pressure")

CHECK_EVERY_S = 0.1
# at any lag some calls are admitted: without any, the end of the overload would not show
LEAST_SCALE = 0.1
# Checks in a row above the high watermark until accepts are paused. The native loop accepts nothing in late turns; a
# lag that stays high shows that its work comes from elsewhere.
CHECKS_UNTIL_PAUSE = 10
# A deferred connection of this age whose client has shut its side down is abandoned.
ABANDONED_AFTER_S = 1.0
LOG_EVERY_S = 10.0
LAG = "lag"
# the name of the loop's own gate in counts of sheds
LOOP = "loop"

# The time on the loop's clock, in seconds, at which the kernel reported the data of a deferred read. It is set while
# the protocol gets the data, so that tasks made there have it, and not set for data that was read in time.
arrived_at: ContextVar[float] = ContextVar("penstock_arrived_at")


@dataclass(frozen=True, slots=True)
class LoopStatistics:
    """The lag of one loop and its effects: gauges of now; counts and times since the loop was made."""

    # off: not measured; calm; deferring: reads are deferred; overloaded
    state: str = "off"
    # the wait of ready callbacks in seconds, averaged over time
    lag_s: float = 0.0
    overloaded_count: int = 0
    overloaded_s: float = 0.0
    # the factor of the limits of the loop's gates
    scale: float = 1.0
    # connections with unread data: now, their maximum, ever; and those closed unread, as their client had gone
    deferred_reads: int = 0
    deferred_reads_most: int = 0
    deferred_reads_total: int = 0
    deferred_reads_abandoned: int = 0
    # accepted connections without a transport: likewise
    deferred_accepts: int = 0
    deferred_accepts_most: int = 0
    deferred_accepts_total: int = 0
    deferred_accepts_abandoned: int = 0
    # requests answered unread, as they would have waited too long
    shed_unread: int = 0
    # health checks that were read before other requests
    health_checks: int = 0
    # reason -> number of sheds: lag, answered unread; left, the client had gone before it was read; closed, an accept
    # was deferred when its server closed; tasks, beyond `max_tasks`
    sheds: Mapping[str, int] = field(default_factory=dict)
    # connections that are read on after their last answer: now, ever, and those closed before their clients ended
    lingering: int = 0
    lingering_total: int = 0
    lingering_aborted: int = 0
    # whether accepts are paused by the lag, and how often that began
    accepts_paused: bool = False
    accept_pauses: int = 0
    # of `pressure.max_tasks`; 0 if that is not set
    tasks_live: int = 0
    tasks_refused: int = 0
    tasks_exceeded: int = 0
    tasks_waiting: int = 0

    if not TYPE_CHECKING:
        __getattr__ = refuse_former_names(
            {
                "held": "deferred_reads",
                "held_most": "deferred_reads_most",
                "held_total": "deferred_reads_total",
                "held_left": "deferred_reads_abandoned",
                "parked": "deferred_accepts",
                "parked_most": "deferred_accepts_most",
                "parked_total": "deferred_accepts_total",
                "parked_left": "deferred_accepts_abandoned",
                "turned_away": "shed_unread",
                "lingering_cut": "lingering_aborted",
            }
        )


class LoopGate:
    """The bound on one loop's intake.

    `lag` is the native loop's `penstock._core.overload.lag.Lag`, None without a measurement. `gates()` lists the gates
    of the process; those of this `loop` are scaled. `notify(kind, text, took_ns)` is called after each overload and for
    sheds. `tasks` is the bound on the loop's tasks, if there is one.
    """

    def __init__(
        self,
        loop: Any,
        *,
        lag: Any = None,
        gates: Callable[[], Iterable[Any]] = registry.registered,
        notify: Callable[[str, str, int], None] | None = None,
        tasks: TaskLimit | None = None,
    ) -> None:
        self._loop = ref(loop)
        self._lag, self._gates, self._notify, self._tasks = lag, gates, notify, tasks
        self._scale = 1.0
        self._closes_abandoned = True
        self._is_checking = self._is_paused = False
        self._late_checks = self._pauses = 0
        self._logged_s, self._unlogged = -LOG_EVERY_S, 0
        self._before = 0, 0, 0
        self._noted = self.sheds()
        self._log = ShedLog(loop, self.sheds, self._gate_sheds)
        _loop_gates[loop] = self
        register_source(self)

    def watch(self, *, closes_abandoned: bool = True) -> None:
        """Start to defer reads while the loop is behind. The lag's `report` must be `on_change`.

        `closes_abandoned`: close deferred connections unread when their client shuts its side down.
        """
        loop = self._loop()
        self._closes_abandoned = closes_abandoned
        if loop is not None and self._lag is not None:
            _core(loop).sheds.watch(self._on_shed)
            self.resume()

    def pause(self) -> None:
        """Suspend the measurement until `resume`: no client waits meanwhile."""
        loop = self._loop()
        if loop is not None and self._lag is not None:
            _core(loop).watch_lag(None)

    def resume(self) -> None:
        """Go on with the measurement after `pause`."""
        loop = self._loop()
        if loop is not None and self._lag is not None:
            _core(loop).watch_lag(self._lag, arrived_at, self._closes_abandoned)

    @property
    def is_overloaded(self) -> bool:
        """Whether the loop is overloaded now."""
        return self._lag is not None and bool(self._lag.is_overloaded)

    def on_change(self) -> None:
        """Act on the beginning or the end of an overload. Called between two turns."""
        loop = self._loop()
        if loop is None:
            return
        if self._lag.is_overloaded:
            self._begin_overload(loop)
        else:
            self._end_overload(loop)

    def sheds(self) -> Counts:
        """Return the sheds of this loop by (`loop`, reason). Callable from any thread."""
        found = Counts()
        loop = self._loop()
        if self._lag is not None and loop is not None:
            counts = zip(("lag", "left", "closed"), _core(loop).sheds.counts(), strict=True)
            found.update({(LOOP, reason): number for reason, number in counts})
        if self._tasks is not None:
            found[LOOP, "tasks"] = self._tasks.refused
        return found

    def statistics(self) -> LoopStatistics:
        """Return the loop's figures. Callable from the loop's thread, or from any while the loop does not run."""
        loop, lag, tasks = self._loop(), self._lag, self._tasks
        figures: dict[str, Any] = {"sheds": {reason: number for (_, reason), number in self.sheds().items()}}
        if lag is not None and loop is not None:
            core = _core(loop)
            held, parked, lingering = core.deferred_reads, core.deferred_accepts, core.sheds.lingering
            figures |= {
                "state": "overloaded" if lag.is_overloaded else "deferring" if lag.is_deferring else "calm",
                "lag_s": lag.lag_ns / 1e9,
                "overloaded_count": lag.overloaded_count,
                "overloaded_s": lag.overloaded_for_ns() / 1e9,
                "deferred_reads": held.count,
                "deferred_reads_most": held.most,
                "deferred_reads_total": held.total,
                "deferred_reads_abandoned": held.abandoned,
                "deferred_accepts": parked.count,
                "deferred_accepts_most": parked.most,
                "deferred_accepts_total": parked.total,
                "deferred_accepts_abandoned": parked.abandoned,
                "shed_unread": core.shed_unread_count,
                "health_checks": 0 if parked.urgent is None else parked.urgent.admitted,
                "lingering": lingering.count,
                "lingering_total": lingering.total,
                "lingering_aborted": lingering.cut,
            }
        if tasks is not None:
            figures |= {
                "tasks_live": tasks.live(),
                "tasks_refused": tasks.refused,
                "tasks_exceeded": tasks.exceeded,
                "tasks_waiting": tasks.waiting,
            }
        return LoopStatistics(**figures, scale=self._scale, accepts_paused=self._is_paused, accept_pauses=self._pauses)

    # --- sheds

    def _on_shed(self) -> None:
        """Notify of the sheds of a turn. Called between two turns."""
        sheds = self.sheds()
        if self._notify is not None:
            self._notify("shed", format_sheds(sheds - self._noted), 0)
        self._noted = sheds
        self._log.note()

    def _gate_sheds(self) -> Counts:
        """Return the sheds of the loop's gates, by gate and reason."""
        loop = self._loop()
        found = Counts()
        for gate in self._gates():
            if gate.loop is loop:
                found.update({(gate.name, reason): number for reason, number in gate.statistics().sheds.items()})
        return found

    # --- during an overload, and until the gates have their full limits again

    def _begin_overload(self, loop: Any) -> None:
        self._late_checks = 0
        self._before = self._lag.overloaded_for_ns(), *_deferred_and_shed(loop)
        self._adjust(loop)
        self._log_beginning()
        if not self._is_checking:
            self._is_checking = True
            loop.call_later(CHECK_EVERY_S, self._check)

    def _end_overload(self, loop: Any) -> None:
        self._resume_accepts(loop)
        took_ns = self._lag.overloaded_for_ns() - self._before[0]
        total, shed_total = _deferred_and_shed(loop)
        deferred, shed = total - self._before[1], shed_total - self._before[2]
        text = (
            f"the loop has caught up, after {took_ns / 1e9:.3f} s in which {deferred} reads were deferred and"
            f" {shed} requests shed unread"
        )
        logger.info("%s", text)
        if self._notify is not None:
            self._notify("overload", text, took_ns)

    def _check(self) -> None:
        loop = self._loop()
        self._is_checking = False
        if loop is None:
            return
        if self._lag.is_overloaded:
            self._adjust(loop)
        else:
            self._scale_gates(loop, 1.0)
        if self._lag.is_overloaded or self._scale < 1.0:
            self._is_checking = True
            loop.call_later(CHECK_EVERY_S, self._check)

    def _adjust(self, loop: Any) -> None:
        lag_ns, high_ns = self._lag.lag_ns, self._lag.high_ns
        self._scale_gates(loop, max(LEAST_SCALE, min(1.0, high_ns / lag_ns)) if lag_ns > 0 else 1.0)
        _core(loop).close_abandoned(int(ABANDONED_AFTER_S * 1e9))
        if lag_ns < self._lag.low_ns:
            self._late_checks = 0
            self._resume_accepts(loop)
        elif lag_ns > high_ns:
            self._late_checks += 1
            if self._late_checks >= CHECKS_UNTIL_PAUSE:
                self._pause_accepts(loop)

    def _scale_gates(self, loop: Any, wanted: float) -> None:
        """Scale the gates: down at once, up by doubling, so that the lag of admitted calls shows in time."""
        former, self._scale = self._scale, min(wanted, 2 * self._scale)
        if self._scale < 1.0 or former < 1.0:
            for gate in self._gates():
                if gate.loop is loop:
                    gate.scale = self._scale

    def _pause_accepts(self, loop: Any) -> None:
        # a client with an answer is better off than one in the kernel's backlog
        silent = [server for server in loop.servers() if not server._sheds_unread()]
        if silent and not self._is_paused:
            self._is_paused = True
            self._pauses += 1
        for server in silent:
            server._pause(LAG)

    def _resume_accepts(self, loop: Any) -> None:
        if self._is_paused:
            self._is_paused = False
            for server in loop.servers():
                server._resume(LAG)

    def _log_beginning(self) -> None:
        now_s = monotonic()
        if now_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} times more since this was last logged)" if self._unlogged else ""
        self._logged_s, self._unlogged = now_s, 0
        logger.warning("the loop is behind: %s%s%s", self._why(), self._scaled(), more)

    def _why(self) -> str:
        """Return the sign of overload: a long wait, or deferred reads, which keep the wait of ready callbacks short."""
        wait_ms, high_ms, for_s = self._lag.lag_ns / 1e6, self._lag.high_ns / 1e6, self._lag.for_ns / 1e9
        if wait_ms > high_ms:
            return f"ready callbacks wait {wait_ms:.1f} ms on average, above pressure.lag_high_s ({high_ms:g} ms)"
        return f"reads have been deferred for {for_s:g} s, so that ready callbacks wait {wait_ms:.1f} ms only"

    def _scaled(self) -> str:
        return f"; its gates are scaled to {self._scale * 100:.0f} % of their limits" if self._scale < 1 else ""


_loop_gates: WeakKeyDictionary[Any, LoopGate] = WeakKeyDictionary()


def loop_statistics(loop: asyncio.AbstractEventLoop | None = None) -> LoopStatistics:
    """Return the overload figures of a loop, by default the running one.

    A loop whose config sets neither `pressure.lag_high_s` nor `pressure.max_tasks` has the state "off". Raises
    RuntimeError without a running loop, as asyncio does.
    """
    if loop is None:
        import asyncio

        loop = asyncio.get_running_loop()
    gate = _loop_gates.get(loop)
    return LoopStatistics() if gate is None else gate.statistics()


def pause_watch(loop: asyncio.AbstractEventLoop) -> None:
    """Suspend the loop's measurement until `resume_watch`; do nothing for a loop without a gate of its own."""
    gate = _loop_gates.get(loop)
    if gate is not None:
        gate.pause()


def resume_watch(loop: asyncio.AbstractEventLoop) -> None:
    """Go on after `pause_watch`."""
    gate = _loop_gates.get(loop)
    if gate is not None:
        gate.resume()


def is_overloaded(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop is overloaded, as `loop_statistics` does. Callable from any thread."""
    gate = _loop_gates.get(loop)
    return gate is not None and gate.is_overloaded


def _core(loop: Any) -> NativeCore:
    """Return the native core of a loop with a lag: no other loop has one."""
    core = native_core(loop)
    assert core is not None
    return core


def _deferred_and_shed(loop: Any) -> tuple[int, int]:
    """Return how many reads were deferred and how many connections shed unread, so far."""
    core = _core(loop)
    return core.deferred_reads.total, core.shed_unread_count
