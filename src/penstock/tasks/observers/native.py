"""The observer of penstock's native loop: reads the probe that sits in the reactor, and names what it finds there.

Counting and timing is the probe's part, in native code; records are made of the numbers, in `nativerecords.py`, once
somebody asks. Any thread may: all of it holds the GIL, and the loop is held for as long as the numbers take to copy.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.tasks.detectors.stalls import stall_watch
from penstock.tasks.finding import LEVELS
from penstock.tasks.finding_log import FindingLog
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers.sites import OTHER, UNKNOWN, site_of
from penstock.times import taken

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import TypeAlias

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock.tasks.finding import Site
    from penstock.tasks.observers.nativerecords import LiveTasks
    from penstock.tasks.records import SiteStatistics, TaskStatistics

    # (number, number of its site, when born, steps, raw creation stack or None)
    Lost: TypeAlias = tuple[int, int, int, int, Any]

__all__ = ["KINDS", "NativeObserver"]

KINDS = ("task", "callback", "timer", "io")
# a flight entry's kind and outcome, as the probe numbers them
FLIGHT_KINDS = ("birth", "step", "end", "callback")
OUTCOMES = ("returned", "raised", "cancelled")
MOST_NOTES = 4096
_loop_numbers = count(1)


class NativeObserver:
    """What watches the tasks of one native loop. `name` is the loop's, in metrics and logs."""

    implementation = "penstock"

    def __init__(self, loop: Any, *, level: str = "time", trace_s: float = 10.0) -> None:
        self.name = f"penstock-{next(_loop_numbers)}"
        self.findings = FindingLog()
        self._loop = ref(loop)
        self._probe = loop._probe
        self._trace_ns = int(trace_s * 1e9)
        # what others have seen: stalls, collections, jobs, what was refused
        self._notes: deque[Event] = deque(maxlen=MOST_NOTES)
        # called with each level that is set from now on: who notes work that is dear to note listens only for trace
        self.on_level: Callable[[str], object] | None = None
        self._probe.set_level(LEVELS.index(level))

    # --- the Observer of its loop

    @property
    def level(self) -> str:
        """off, count, time or trace."""
        return LEVELS[self._probe.level]

    def set_level(self, level: str) -> None:
        """off, count, time or trace, from now on; tasks that live are counted again from their next step."""
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
        """The loop is closed: nothing more is to be noted."""
        # a listener knows its observer: forgotten, the two leave the collector nothing to do
        on_level, self.on_level = self.on_level, None
        if on_level is not None:
            on_level("off")

    def statistics(self) -> TaskStatistics:
        """The counts and times so far."""
        from penstock.tasks.observers.nativerecords import statistics

        return statistics(self, self._probe, self._loop())

    def live(self) -> LiveTasks:
        """A record of each task that has not ended; written out when it is read."""
        from penstock.tasks.observers.nativerecords import LiveTasks

        loop = self._loop()
        return LiveTasks(self, None if loop is None else loop._snapshot_tasks())

    def sites(self) -> list[SiteStatistics]:
        """The tasks by where they were created."""
        from penstock.tasks.observers.nativerecords import site_statistics

        return [site_statistics(self.site(number), *found) for number, *found in self._probe.ledger.site_counts()]

    def events(self) -> list[Event]:
        """What the flight recorder holds of its last seconds, oldest first."""
        since_ns = monotonic_ns() - self._trace_ns
        found = [note for note in self._notes.copy() if note.at_ns + note.took_ns >= since_ns]
        if self._probe.flight is not None:
            found += [self._event(*entry) for entry in self._probe.flight.read(since_ns)]
            # a collection in any thread holds every loop
            collections = stall_watch.recent_collections(since_ns)
            found += [Event(at_ns, took_ns, "gc", 0, f"generation {old}") for at_ns, took_ns, old in collections]
        return sorted(found)

    def _event(self, kind: int, at_ns: int, took_ns: int, task: int, site: int, detail: int) -> Event:
        word = FLIGHT_KINDS[kind]
        if word == "callback":
            return Event(at_ns, took_ns, word, 0, KINDS[detail])
        text = str(self.site(site))
        return Event(at_ns, took_ns, word, task, f"{OUTCOMES[detail]}: {text}" if word == "end" else text)

    # --- for the loop's watcher, in the loop's thread

    def set_check(self, check: Callable[[], None] | None, every_s: float = 0.0) -> None:
        """Have the loop call `check()` between two turns, so often."""
        self._probe.set_check(check, int(every_s * 1e9))

    def sweep(self) -> list[Lost]:
        """The tasks that are gone without having ended; they are counted as lost now."""
        found: list[Lost] = self._probe.ledger.sweep(monotonic_ns())
        return found

    def lose(self, task: object) -> Lost | None:
        """The same for one that is being collected at this moment; None when it has no record."""
        found: Lost | None = self._probe.lose(task)
        return found

    def abandon(self) -> list[tuple[Site, str]]:
        """The site and name of each task that has not ended: none of them will."""
        self._probe.stop()
        left = self._probe.ledger.abandon(monotonic_ns())
        return [(self.site(site), _name(weak())) for _, site, _, _, _, weak in left]

    def overdue(
        self, factor: float, least_s: float, least_samples: int, most: int
    ) -> list[tuple[asyncio.Task[Any], Site, float]]:
        """Tasks older than `factor` times their site's 99th percentile, with that; each is given once."""
        p99_ns: dict[int, float] = {}
        for number, _, _, live, _, _, latency in self._probe.ledger.site_counts():
            if live and latency is not None and latency.count >= least_samples:
                p99_ns[number] = taken(latency).p99_s * 1e9
        if not p99_ns:
            return []
        bounds = [0] * (max(p99_ns) + 1)
        for number, ns in p99_ns.items():
            bounds[number] = int(max(ns * factor, least_s * 1e9, 1))
        tasks = (weak() for weak in self._probe.ledger.overdue(monotonic_ns(), bounds, most))
        numbers = ((task, self._probe.site_of(task)) for task in tasks if task is not None)
        return [(task, self.site(number), p99_ns[number] / 1e9) for task, number in numbers]

    def waiting(self, since_ns: int, start: int, most: int) -> tuple[list[Any], int]:
        """Weak references to tasks that have waited since before `since_ns`, and where the next call goes on."""
        found: tuple[list[Any], int] = self._probe.ledger.waiting(since_ns, start, most)
        return found

    def born_s(self, task: object) -> float:
        """When a live task was born, on time.monotonic()'s clock; 0 if nobody looked."""
        return float(self._probe.born_ns(task)) / 1e9

    # --- what others ask and tell

    def site(self, number: int) -> Site:
        """The site with a number of the probe's."""
        raw = self._probe.sites.sites[number]
        return (UNKNOWN, OTHER)[number] if raw is None else site_of(*raw)

    def site_of_task(self, task: object) -> Site | None:
        """Where a live task was created; None where nobody noted it."""
        number = self._probe.site_of(task)
        return self.site(number) if number else None

    def creation_stack(self, task: object) -> list[Site]:
        """Who created a live task, innermost first, at most 8 frames. Empty unless it is one of the sampled ones."""
        return self.named_stack(self._probe.stack_of(task))

    @staticmethod
    def named_stack(raw: Any) -> list[Site]:
        """A stack of the probe's, named."""
        return [site_of(*frame) for frame in raw or ()]

    def task_of(self, handle: object) -> asyncio.Task[Any] | None:
        """The task of which a handle is a step, or None."""
        task: asyncio.Task[Any] | None = self._probe.task_of(handle)
        return task

    def note(self, event: Event) -> None:
        """Have the flight recorder keep something that the probe does not see. Any thread may call it."""
        if self._probe.flight is not None:
            self._notes.append(event)

    def note_work(self, kind: str, text: str, took_ns: int) -> None:
        """The same for what has just ended: an executor's job, a refusal."""
        if self._probe.flight is not None:
            self._notes.append(Event(monotonic_ns() - took_ns, took_ns, kind, 0, text))

    @property
    def heartbeat(self) -> Heartbeat:
        """What the loop's thread writes down for a watchdog."""
        heartbeat: Heartbeat = self._probe.heartbeat
        return heartbeat


def _name(task: Any) -> str:
    return "" if task is None else str(task.get_name())
