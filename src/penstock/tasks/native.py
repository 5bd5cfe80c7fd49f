"""The observer of penstock's native loop: reads the probe that sits in the reactor, and names what it finds there.

Counting and timing is the probe's part, in native code; here numbers become records. Any thread may ask: all of it
holds the GIL, and the loop is held for as long as the numbers take to copy.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, overload
from weakref import ref

from penstock.tasks.findinglog import FindingLog
from penstock.tasks.records import LiveTask, LoopFigures, SiteStatistics, TaskStatistics
from penstock.tasks.sitetable import OTHER, UNKNOWN, site_of
from penstock.tasks.stalls import stall_watch
from penstock.tasks.trace import Event
from penstock.times import Times, merged, taken

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import TypeAlias

    from penstock._core.stamps import Stamps
    from penstock.tasks.records import Site

    # (number, number of its site, when born, steps, raw creation stack or None)
    Lost: TypeAlias = tuple[int, int, int, int, Any]

__all__ = ["LEVELS", "NativeObserver"]

LEVELS = ("off", "count", "time", "trace")
KINDS = ("task", "callback", "timer", "io")
# a record's state, and a flight entry's kind and outcome, as the probe numbers them
STATES = ("ready", "running", "waiting")
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
        if self.on_level is not None:
            self.on_level("off")

    def statistics(self) -> TaskStatistics:
        """The counts and times so far."""
        ledger = self._probe.ledger
        returned, raised, cancelled, lost = ledger.outcomes()
        running_ns, ready_ns = ledger.times_ns()
        flight = self._probe.flight
        return TaskStatistics(
            loop=self.name,
            implementation=self.implementation,
            level=self.level,
            created=ledger.created,
            completed=returned,
            failed=raised,
            cancelled=cancelled,
            lost=lost,
            live=ledger.live,
            eager=ledger.eager,
            steps=ledger.steps,
            latency=taken(ledger.latency),
            step=taken(self._probe.took()[0]),
            start_delay=taken(self._probe.start_delay),
            running_s=running_ns / 1e9,
            ready_s=ready_ns / 1e9,
            findings=self.findings.counts(),
            figures=self._figures(),
            dropped=self.findings.dropped + (flight.overwritten if flight is not None else 0),
        )

    def _figures(self) -> LoopFigures:
        probe, loop = self._probe, self._loop()
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

    def live(self) -> LiveTasks:
        """A record of each task that has not ended; written out when it is read."""
        loop = self._loop()
        return LiveTasks(self, None if loop is None else loop._snapshot_tasks())

    def sites(self) -> list[SiteStatistics]:
        """The tasks by where they were created."""
        return [self._site_statistics(*found) for found in self._probe.ledger.site_counts()]

    def _site_statistics(
        self, number: int, created: int, ended: Any, live: int, running_ns: int, ready_ns: int, latency: Any
    ) -> SiteStatistics:
        returned, raised, cancelled, _ = ended
        times = Times() if latency is None else taken(latency)
        site = self.site(number)
        return SiteStatistics(site, created, returned, raised, cancelled, live, running_ns / 1e9, ready_ns / 1e9, times)

    def events(self) -> list[Event]:
        """What the flight recorder holds of its last seconds, oldest first."""
        since_ns = monotonic_ns() - self._trace_ns
        found = [note for note in self._notes.copy() if note.at_ns + note.took_ns >= since_ns]
        if self._probe.flight is not None:
            found += [self._event(*entry) for entry in self._probe.flight.read(since_ns)]
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
        self._probe.settle()
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
        raw = self._probe.origins.sites[number]
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
    def stamps(self) -> Stamps:
        """What the loop's thread writes down for a watchdog."""
        stamps: Stamps = self._probe.stamps
        return stamps


def _name(task: Any) -> str:
    return "" if task is None else str(task.get_name())


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
            name=_name(task),
            site=self._observer.site(site),
            age_s=age_ns / 1e9,
            state=word,
            running_s=running_ns / 1e9,
            ready_s=ready_ns / 1e9,
            waiting_s=max(age_ns - running_ns - ready_ns, 0) / 1e9,
            steps=steps,
        )
