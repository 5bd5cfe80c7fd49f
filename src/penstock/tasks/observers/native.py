"""The observer of penstock's native loop: it reads the probe in the reactor.

The probe counts and measures, in native code; `nativerecords` makes records of its numbers when they are read. Any
thread may read: all of it holds the GIL, and the loop waits while the numbers are copied.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.loop.native import native_core
from penstock.tasks.detectors.stalls import stall_watch
from penstock.tasks.finding_log import FindingLog
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers.registry import LEVELS
from penstock.tasks.observers.sites import OTHER, UNKNOWN, place_at
from penstock.times import taken

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock._core.tasks.probe import Probe
    from penstock._core.tasks.rows import LostRow, ScanRow
    from penstock._core.tasks.scan import TaskScan
    from penstock.tasks.observers.livetasks import LiveTasks
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask, SiteStatistics, TaskStatistics
    from penstock.times import Times


__all__ = ["NativeObserver"]

MOST_NOTES = 4096
# records that a scan copies with the GIL: less than 0.1 ms
SCANNED_AT_ONCE = 2048
# events of the flight recorder that are read at once
PORTION = 256
_loop_numbers = count(1)


class NativeObserver:
    """The observer of one native loop. `name` is the loop's name in metrics and logs."""

    implementation = "penstock"

    def __init__(self, loop: Any, *, level: str = "time", trace_s: float = 10.0) -> None:
        self.name = f"penstock-{next(_loop_numbers)}"
        self.findings = FindingLog()
        self._loop = ref(loop)
        core = native_core(loop)
        assert core is not None
        self._probe: Probe = core.probe
        self._trace_ns = int(trace_s * 1e9)
        # events that the probe does not see: stalls, collections, jobs, sheds
        self._notes: deque[Event] = deque(maxlen=MOST_NOTES)
        # called with each level set: an expensive recorder of events listens at level trace only
        self.on_level: Callable[[str], object] | None = None
        self._probe.set_level(LEVELS.index(level))

    # --- the Observer protocol

    @property
    def level(self) -> str:
        """off, count, time or trace."""
        return LEVELS[self._probe.level]

    def set_level(self, level: str) -> None:
        """Set the level: off, count, time or trace. Live tasks are counted again from their next step."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        number = LEVELS.index(level)
        if loop.is_running() and loop._thread_id != threading.get_ident():
            loop.call_soon_threadsafe(self._probe.set_level, number)
        else:
            self._probe.set_level(number)
        if self.on_level is not None:
            self.on_level(level)

    def close(self) -> None:
        """Stop notifying of levels. The loop's watcher calls this when the loop closes."""
        # the listener holds its observer: without this the two are a reference cycle
        on_level, self.on_level = self.on_level, None
        if on_level is not None:
            on_level("off")

    def statistics(self) -> TaskStatistics:
        """Return the counts and times so far."""
        return self._statistics(self._probe.ledger.times_ns())

    def _statistics(self, times_ns: tuple[int, int]) -> TaskStatistics:
        from penstock.tasks.observers.nativerecords import statistics

        loop = self._loop()
        stalls = {} if loop is None else stall_watch.causes(loop)
        return statistics(
            self._probe,
            loop,
            self.findings,
            stalls,
            name=self.name,
            implementation=self.implementation,
            level=self.level,
            times_ns=times_ns,
        )

    def live(self) -> LiveTasks:
        """Return the tasks that have not ended, in no order; each record is made as it is read."""
        from penstock.tasks.observers.livetasks import LiveTasks
        from penstock.tasks.observers.nativerecords import live_row

        core = native_core(self._loop())
        if core is None:
            return LiveTasks((), lambda entry: live_row(entry, self.site), monotonic_ns())
        snapshot: Any = core.snapshot_tasks()
        return LiveTasks(snapshot, lambda entry: live_row(entry, self.site), snapshot.taken_ns)

    def scan(self, rest: Callable[[], object]) -> TaskScan | None:
        """Return a scan of the live tasks, and call `rest()` between its pieces; None for a loop that was collected."""
        core = native_core(self._loop())
        if core is None:
            return None
        scan, ledger = core.begin_scan(), self._probe.ledger
        while scan.take(ledger, SCANNED_AT_ONCE):
            rest()
        return scan

    def task_at(self, row: ScanRow | tuple[int, int, int]) -> Any:
        """Return the task of a scan's row, or of its number and index; None if it has ended."""
        weak = self._probe.ledger.weak_at(row[1], row[0])
        return None if weak is None else weak()

    def scanned_statistics(self, scan: TaskScan) -> TaskStatistics:
        """Return `statistics` without another walk over all tasks."""
        from penstock.tasks.observers.nativerecords import scanned_times

        return self._statistics(scanned_times(self._probe, scan))

    def scanned_sites(self, scan: TaskScan) -> list[SiteStatistics]:
        """Return `sites` without another walk over all tasks."""
        from penstock.tasks.observers.nativerecords import scanned_sites

        return scanned_sites(self._probe, scan, self.site)

    def scanned_task(self, scan: TaskScan, row: ScanRow) -> LiveTask:
        """Return the record of a live task of a scan."""
        from penstock.tasks.observers.nativerecords import scanned_row

        return scanned_row(row, lambda: self.task_at(row), self.site).record(scan.taken_ns)

    def numbered(self, number: int) -> tuple[LiveTask, Any] | None:
        """Return the record of the live task with this number, and the task; None without one."""
        from penstock.tasks.observers.nativerecords import live_row

        entry = self._probe.ledger.numbered(number)
        task = None if entry is None else entry.weak()
        return None if task is None else (live_row(entry, self.site).record(monotonic_ns()), task)

    def sites(self) -> list[SiteStatistics]:
        """Return the statistics of each site."""
        from penstock.tasks.observers.nativerecords import site_statistics

        return [site_statistics(self.site(row.site), row) for row in self._probe.ledger.site_counts()]

    def site_steps(self, number: int) -> tuple[Times, Times] | None:
        """Return the durations of a site's steps and their times from ready to running; None below level trace."""
        step, schedule = self._probe.ledger.steps_of(number)
        return None if step is None or schedule is None else (taken(step), taken(schedule))

    def events(self) -> list[Event]:
        """Return the flight recorder's events of the last `trace_s` seconds, oldest first."""
        since_ns = monotonic_ns() - self._trace_ns
        found = [note for note in self._notes.copy() if note.at_ns + note.took_ns >= since_ns]
        if self._probe.flight is not None:
            from penstock.tasks.observers.nativerecords import flight_event

            found += [flight_event(entry, self.site) for entry in self._probe.flight.read(since_ns)]
            found += self._collections(since_ns)
        return sorted(found)

    def portions(self, since_ns: int) -> Iterator[list[Event]]:
        """Yield the events that ended at `since_ns` or later, newest first by their end, some hundreds at a time.

        Each portion holds the GIL for about a millisecond; the caller may pause between two.
        """
        notes = [*self._notes.copy(), *self._collections(since_ns)]
        notes = sorted((note for note in notes if _end_ns(note) >= since_ns), key=_end_ns)
        for portion in self._flight_portions(since_ns):
            while notes and portion and _end_ns(notes[-1]) >= _end_ns(portion[-1]):
                portion.append(notes.pop())
            yield portion
        yield notes[::-1]

    def _flight_portions(self, since_ns: int) -> Iterator[list[Event]]:
        if self._probe.flight is None:
            return
        from penstock.tasks.observers.nativerecords import flight_event

        # a copy: a busy loop may overwrite its events sooner than they are read
        flight = self._probe.flight.copy()
        end = flight.written
        while end > flight.overwritten:
            rows = flight.read_range(since_ns, max(0, end - PORTION), end)
            is_last = len(rows) < PORTION
            yield [flight_event(row, self.site) for row in reversed(rows)]
            if is_last:
                return
            end -= PORTION

    @staticmethod
    def _collections(since_ns: int) -> list[Event]:
        """Return the garbage collections since then; one in any thread holds every loop."""
        collections = stall_watch.recent_collections(since_ns)
        return [Event(at_ns, took_ns, "gc", 0, f"generation {old}") for at_ns, took_ns, old in collections]

    # --- for the loop's watcher, in the loop's thread

    def set_check(self, check: Callable[[], None] | None, every_s: float = 0.0) -> None:
        """Have the loop call `check()` between two turns, every `every_s` seconds; None stops it."""
        self._probe.set_check(check, int(every_s * 1e9))

    def sweep(self) -> list[LostRow]:
        """Return the collected tasks that had not ended, and count them as lost."""
        return self._probe.ledger.sweep(monotonic_ns())

    def mark_lost(self, task: object) -> LostRow | None:
        """Count a task that is being collected now as lost, and return its record; None if it has none."""
        return self._probe.lose(task)

    def abandon(self) -> list[tuple[Place, str]]:
        """Close the records of the tasks that have not ended; return the site and name of each."""
        self._probe.stop()
        left = self._probe.ledger.abandon(monotonic_ns())
        return [(self.site(lost.site), _name(lost.weak and lost.weak())) for lost in left]

    def overdue(
        self, factor: float, least_s: float, least_samples: int, most: int
    ) -> list[tuple[asyncio.Task[Any], Place, float]]:
        """Return tasks older than `factor` times their site's 99th percentile, each once, with site and percentile.

        `least_s` is the least age in seconds; a site needs `least_samples` ended tasks.
        """
        p99_ns: dict[int, float] = {}
        for row in self._probe.ledger.site_counts():
            if row.live and row.latency is not None and row.latency.count >= least_samples:
                p99_ns[row.site] = taken(row.latency).p99_s * 1e9
        if not p99_ns:
            return []
        bounds = [0] * (max(p99_ns) + 1)
        for number, ns in p99_ns.items():
            bounds[number] = int(max(ns * factor, least_s * 1e9, 1))
        tasks = (weak() for weak in self._probe.ledger.overdue(monotonic_ns(), bounds, most))
        numbers = ((task, self._probe.site_of(task)) for task in tasks if task is not None)
        return [(task, self.site(number), p99_ns[number] / 1e9) for task, number in numbers]

    def waiting(self, since_ns: int, start: int, most: int) -> tuple[list[Any], int]:
        """Return weak references to tasks that have waited since before `since_ns`, and the next call's `start`."""
        found: tuple[list[Any], int] = self._probe.ledger.waiting(since_ns, start, most)
        return found

    def born_s(self, task: object) -> float:
        """Return the time of a live task's birth, on time.monotonic()'s clock; 0 if it was not recorded."""
        return float(self._probe.born_ns(task)) / 1e9

    # --- for other readers and sources of events

    def site(self, number: int) -> Place:
        """Return the site with a number of the probe's."""
        raw = self._probe.sites.sites[number]
        return (UNKNOWN, OTHER)[number] if raw is None else place_at(*raw)

    def number_of(self, task: object) -> int:
        """Return the number of a live task; 0 if it was not recorded."""
        return self._probe.number_of(task)

    def site_of_task(self, task: object) -> Place | None:
        """Return the site of a live task; None if it was not recorded."""
        number = self._probe.site_of(task)
        return self.site(number) if number else None

    def creation_stack(self, task: object) -> list[Place]:
        """Return the creation stack of a live task, innermost first, at most 8 frames; empty if it is not a sample."""
        return self.named_stack(self._probe.stack_of(task))

    @staticmethod
    def named_stack(raw: Any) -> list[Place]:
        """Return the places of a stack of the probe's."""
        return [place_at(*frame) for frame in raw or ()]

    def task_of(self, handle: object) -> asyncio.Task[Any] | None:
        """Return the task of which a handle is a step, or None."""
        task: asyncio.Task[Any] | None = self._probe.task_of(handle)
        return task

    def note(self, event: Event) -> None:
        """Add an event that the probe does not see to the flight recorder. Any thread may call it."""
        if self._probe.flight is not None:
            self._notes.append(event)

    def note_work(self, kind: str, text: str, took_ns: int) -> None:
        """Add an event that ends now and took `took_ns`: an executor's job, a shed request. Any thread may call it."""
        if self._probe.flight is not None:
            self._notes.append(Event(monotonic_ns() - took_ns, took_ns, kind, 0, text))

    @property
    def heartbeat(self) -> Heartbeat:
        """The heartbeat of the loop's thread, for a watchdog."""
        heartbeat: Heartbeat = self._probe.heartbeat
        return heartbeat


def _end_ns(event: Event) -> int:
    return event.at_ns + event.took_ns


def _name(task: Any) -> str:
    return "" if task is None else str(task.get_name())
