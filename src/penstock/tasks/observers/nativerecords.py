"""Records made of the native probe's numbers: the counts and times of a loop, of its sites, of its live tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from penstock.tasks.detectors.stalls import stall_watch
from penstock.tasks.observers.native import KINDS
from penstock.tasks.records import LiveTask, LoopFigures, SiteStatistics, TaskStatistics
from penstock.times import Times, merged, taken

if TYPE_CHECKING:
    import asyncio

    from penstock.tasks.finding import Site
    from penstock.tasks.observers.native import NativeObserver

__all__ = ["LiveTasks", "site_statistics", "statistics"]

# a record's state, as the probe numbers them
STATES = ("ready", "running", "waiting")


def statistics(observer: NativeObserver, probe: Any, loop: Any) -> TaskStatistics:
    """The counts and times so far; of a loop that is gone, None, no figures of its queues."""
    ledger = probe.ledger
    returned, raised, cancelled, lost = ledger.outcomes()
    running_ns, ready_ns = ledger.times_ns()
    flight = probe.flight
    return TaskStatistics(
        loop=observer.name,
        implementation=observer.implementation,
        level=observer.level,
        created=ledger.created,
        completed=returned,
        failed=raised,
        cancelled=cancelled,
        lost=lost,
        live=ledger.live,
        eager=ledger.eager,
        steps=ledger.steps,
        latency=taken(ledger.latency),
        step=taken(probe.took()[0]),
        start_delay=taken(probe.start_delay),
        running_s=running_ns / 1e9,
        ready_s=ready_ns / 1e9,
        findings=observer.findings.counts(),
        figures=_figures(probe, loop),
        dropped=observer.findings.dropped + (flight.overwritten if flight is not None else 0),
        errors=probe.errors,
    )


def _figures(probe: Any, loop: Any) -> LoopFigures:
    ready_count, ready_age_ns, timer_count = loop._queue_figures() if loop is not None else (0, 0, 0)
    return LoopFigures(
        turns=probe.turns,
        polls=probe.polls,
        events=probe.events,
        callbacks=dict(zip(KINDS, probe.callbacks(), strict=True)),
        active_s=probe.active_ns / 1e9,
        idle_s=probe.idle_ns / 1e9,
        ready_count=ready_count,
        ready_age_s=ready_age_ns / 1e9,
        timer_count=timer_count,
        turn=taken(probe.turn),
        callback=merged(map(taken, probe.took())),
        delay=taken(probe.delay),
        poll=taken(probe.poll),
        wake=taken(probe.wake),
        stalls={} if loop is None else stall_watch.causes(loop),
    )


def site_statistics(
    site: Site, created: int, ended: Any, live: int, running_ns: int, ready_ns: int, latency: Any
) -> SiteStatistics:
    """The figures of one site, as the ledger gives them."""
    returned, raised, cancelled, _ = ended
    times = Times() if latency is None else taken(latency)
    return SiteStatistics(site, created, returned, raised, cancelled, live, running_ns / 1e9, ready_ns / 1e9, times)


class LiveTasks(Sequence[LiveTask]):
    """The tasks that had not ended when this was taken, in no order: numbers copied at once, records made as read.

    A task that has ended since and is gone has no name any more. Times are as of the taking.
    """

    __slots__ = ("_observer", "_snapshot")

    def __init__(self, observer: NativeObserver, snapshot: Any) -> None:
        self._observer = observer
        self._snapshot = snapshot

    def __len__(self) -> int:
        return 0 if self._snapshot is None else len(self._snapshot)

    @overload
    def __getitem__(self, index: int) -> LiveTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[LiveTask]: ...
    def __getitem__(self, index: int | slice) -> LiveTask | list[LiveTask]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._record(*self._snapshot[index])

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks themselves, those that are still there; they live as long as the list."""
        found = (self._snapshot[at][1]() for at in range(len(self)))
        return [task for task in found if task is not None]

    def _record(
        self,
        number: int,
        weak: Any,
        site: int,
        born_ns: int,
        since_ns: int,
        state: int,
        running_ns: int,
        ready_ns: int,
        steps: int,
        _: Any,
    ) -> LiveTask:
        taken_ns, task = self._snapshot.taken_ns, weak()
        # a task that was born before the level was raised to time has no birth
        age_ns = max(taken_ns - born_ns, 0) if born_ns else 0
        word = STATES[state]
        if word == "running":
            running_ns += max(taken_ns - since_ns, 0)
        elif word == "ready":
            ready_ns += max(taken_ns - since_ns, 0)
        return LiveTask(
            number=number,
            name="" if task is None else str(task.get_name()),
            site=self._observer.site(site),
            age_s=age_ns / 1e9,
            state=word,
            running_s=running_ns / 1e9,
            ready_s=ready_ns / 1e9,
            waiting_s=max(age_ns - running_ns - ready_ns, 0) / 1e9,
            steps=steps,
        )
