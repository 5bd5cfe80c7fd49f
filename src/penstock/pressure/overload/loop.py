"""The loop's own gate: what is done about a loop that is behind, without a change to the application.

The native loop measures how long what is ready waits, and holds the reads that add work
(`penstock._core.overload.lag`). The rest is done here, a few times a second and only during an overload: the gates of
the loop are scaled down, accepts slowed and then paused, and somebody is told. Knows gates by their registry alone.
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
# however far behind: some are let in, or nothing would tell that it is over
LEAST_SCALE = 0.1
# Looks in a row above the high watermark until nothing is accepted. The native loop accepts nothing in turns that are
# late; that it stays late tells that its work comes from elsewhere.
CHECKS_UNTIL_PAUSE = 10
# held for so long, and its client has shut its side down: it waits for no answer
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
    """How far one loop is behind, and what was done about it. Gauges are of now; counts and times so far."""

    # off: nobody looks; calm; holding: reads are held for a moment; overloaded
    state: str = "off"
    # how long what is ready has waited, averaged over time
    lag_s: float = 0.0
    overloaded_count: int = 0
    overloaded_s: float = 0.0
    # what the limits of the loop's gates are multiplied with
    scale: float = 1.0
    # connections whose data is not read yet: now, at most, ever; and those closed unread, their client gone
    deferred_reads: int = 0
    deferred_reads_most: int = 0
    deferred_reads_total: int = 0
    deferred_reads_abandoned: int = 0
    # connections accepted of which nothing is made yet: likewise
    deferred_accepts: int = 0
    deferred_accepts_most: int = 0
    deferred_accepts_total: int = 0
    deferred_accepts_abandoned: int = 0
    # answered unread since they would have waited too long
    shed_unread: int = 0
    # health checks that were read before all that waited
    health_checks: int = 0
    # reason -> all that were shed: lag, told unread; left, gone unread; closed, parked when their server closed; tasks,
    # refused by `max_tasks`
    sheds: Mapping[str, int] = field(default_factory=dict)
    # connections that have had their last answer and are read on: now, ever, and those closed before their clients were
    lingering: int = 0
    lingering_total: int = 0
    lingering_aborted: int = 0
    # whether nothing is accepted because the loop is behind, and how often that has begun
    accepts_paused: bool = False
    accept_pauses: int = 0
    # 0 where `pressure.max_tasks` is not set
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
    """Keeps one loop's intake to what it can do.

    `lag` is the native loop's (a `penstock._core.overload.lag.Lag`), None where nobody measures. `gates()` lists the
    gates that there are, of which those with this `loop` are scaled. `notify(kind, text, took_ns)`
    is called after each overload. `tasks` is the bound on the loop's tasks, if there is one.
    """

    def __init__(
        self,
        loop: Any,
        *,
        lag: Any = None,
        gates: Callable[[], Iterable[Any]] = registry.gates,
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
        """Begin to hold reads when the loop is behind; the lag's `report` is to be `on_change`."""
        loop = self._loop()
        self._closes_abandoned = closes_abandoned
        if loop is not None and self._lag is not None:
            _core(loop).sheds.watch(self._on_shed)
            self.resume()

    def pause(self) -> None:
        """Measure nothing until `resume`: time that passes meanwhile is no client's wait."""
        loop = self._loop()
        if loop is not None and self._lag is not None:
            _core(loop).watch_lag(None)

    def resume(self) -> None:
        """Measure again, with what was measured before the pause."""
        loop = self._loop()
        if loop is not None and self._lag is not None:
            _core(loop).watch_lag(self._lag, arrived_at, self._closes_abandoned)

    @property
    def is_overloaded(self) -> bool:
        """Whether the loop is behind, and has been for a time."""
        return self._lag is not None and bool(self._lag.is_overloaded)

    def on_change(self) -> None:
        """The loop is overloaded now, or is not any more. Called between two turns."""
        loop = self._loop()
        if loop is None:
            return
        if self._lag.is_overloaded:
            self._begin_overload(loop)
        else:
            self._end_overload(loop)

    def sheds(self) -> Counts:
        """How many this loop has shed, by (`loop`, reason). Any thread may ask."""
        found = Counts()
        loop = self._loop()
        if self._lag is not None and loop is not None:
            counts = zip(("lag", "left", "closed"), _core(loop).sheds.counts(), strict=True)
            found.update({(LOOP, reason): number for reason, number in counts})
        if self._tasks is not None:
            found[LOOP, "tasks"] = self._tasks.refused
        return found

    def statistics(self) -> LoopStatistics:
        """How it stands. From the loop's own thread, or while the loop stands still."""
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

    # --- what was shed

    def _on_shed(self) -> None:
        """Some were, in this turn. Called between two turns."""
        sheds = self.sheds()
        if self._notify is not None:
            self._notify("shed", format_sheds(sheds - self._noted), 0)
        self._noted = sheds
        self._log.note()

    def _gate_sheds(self) -> Counts:
        """Those of the loop's gates, by gate and reason."""
        loop = self._loop()
        found = Counts()
        for gate in self._gates():
            if gate.loop is loop:
                found.update({(gate.name, reason): number for reason, number in gate.statistics().sheds.items()})
        return found

    # --- while it is overloaded, and until the gates are as they were

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
        deferred, shed = _deferred_and_shed(loop)
        held, turned_away = deferred - self._before[1], shed - self._before[2]
        text = (
            f"the loop has caught up, after {took_ns / 1e9:.3f} s in which {held} reads were held and {turned_away}"
            " clients turned away"
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
        """Down at once, up by doubling: what is let in meanwhile is seen in time."""
        former, self._scale = self._scale, min(wanted, 2 * self._scale)
        if self._scale < 1.0 or former < 1.0:
            for gate in self._gates():
                if gate.loop is loop:
                    gate.scale = self._scale

    def _pause_accepts(self, loop: Any) -> None:
        # who is told at once is better off than in the kernel's backlog
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
        """Return which of the two signs of overload there is. Held reads keep the wait of ready callbacks short."""
        wait_ms, high_ms, for_s = self._lag.lag_ns / 1e6, self._lag.high_ns / 1e6, self._lag.for_ns / 1e9
        if wait_ms > high_ms:
            return f"what is ready waits {wait_ms:.1f} ms on average, above pressure.lag_high_s ({high_ms:g} ms)"
        return f"reads have been held back for {for_s:g} s, so that what is ready waits {wait_ms:.1f} ms only"

    def _scaled(self) -> str:
        return f"; its gates are scaled to {self._scale * 100:.0f} % of their limits" if self._scale < 1 else ""


_loop_gates: WeakKeyDictionary[Any, LoopGate] = WeakKeyDictionary()


def loop_statistics(loop: asyncio.AbstractEventLoop | None = None) -> LoopStatistics:
    """How far a loop is behind and what was done about it; of the running one by default.

    A loop whose config sets neither `pressure.lag_high_s` nor `pressure.max_tasks` has the state "off". Raises
    RuntimeError without a running loop, as asyncio does.
    """
    if loop is None:
        import asyncio

        loop = asyncio.get_running_loop()
    gate = _loop_gates.get(loop)
    return LoopStatistics() if gate is None else gate.statistics()


def pause_watch(loop: asyncio.AbstractEventLoop) -> None:
    """Do not measure the loop until `resume_watch`; a loop without a gate of its own is left alone."""
    gate = _loop_gates.get(loop)
    if gate is not None:
        gate.pause()


def resume_watch(loop: asyncio.AbstractEventLoop) -> None:
    """End `pause_watch`."""
    gate = _loop_gates.get(loop)
    if gate is not None:
        gate.resume()


def is_overloaded(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop is overloaded, as `loop_statistics` says; callable from any thread."""
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
