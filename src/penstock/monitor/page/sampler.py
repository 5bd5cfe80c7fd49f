"""The sampler of a page: a thread for each process, and one that follows the list of processes."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.monitor.history import History
from penstock.monitor.page.points import PagePoint, merged_point, point_of, with_gauges
from penstock.monitor.rules import Diagnosis, diagnose

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.monitor.sources import ProcessSource, ProcessTarget

__all__ = ["MERGED", "PageSampler", "PageSeries"]

Answer = dict[str, Any]
# the name of all processes together
MERGED = 0
# between two samples: while a page is open, and else
WATCHED_S, UNWATCHED_S = 0.5, 1.0
# ten minutes of points, one each half second
HISTORY_S = 600.0
MOST_POINTS = 1200
# the last snapshots, for the rules: a minute or two
MOST_SNAPSHOTS = 120
# sites of a snapshot
MOST_SITES = 20
# the longest wait for a snapshot
ANSWER_S = 2.0
# processes that have ended stay in the list for this time, and at most this many
ENDED_S, MOST_ENDED = 60.0, 8


@dataclass
class PageSeries:
    """The history of one process, or of all together. Its sampler's thread alone changes it."""

    pid: int
    number: int | None = None
    points: deque[PagePoint] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    history: History = field(default_factory=lambda: History(MOST_SNAPSHOTS))
    # the diagnoses, the cause first
    diagnoses: list[Diagnosis] = field(default_factory=list)
    # the time of the last answer on this process's clock
    answered_s: float = 0.0
    # why there is no answer: empty while there is one
    problem: str = ""
    ended_s: float | None = None

    def add(self, point: PagePoint) -> None:
        """Add a point, and drop points that are too old."""
        self.points.append(point)
        while self.points and self.points[0].at_s < point.at_s - HISTORY_S:
            self.points.popleft()

    def present(self) -> PagePoint:
        """Return the newest point, with the gauges of the last whole one while the GIL is held."""
        newest = self.points[-1]
        whole = next((point for point in reversed(self.points) if not point.is_partial), None)
        return newest if whole is None or not newest.is_partial else with_gauges(newest, whole)


class PageSampler:
    """The histories of all processes of a source. Reading them is safe from any thread."""

    def __init__(self, source: ProcessSource, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self._now_s = now_s
        self._lock = threading.Lock()
        self._series: dict[int, PageSeries] = {}
        self._merged = PageSeries(MERGED)
        self._watchers = 0
        self._watched = threading.Event()
        self._ending = threading.Event()
        # the reason why the list of processes is unknown
        self.problem = ""

    def start(self) -> None:
        """Start to sample."""
        threading.Thread(target=self._follow, name="penstock-page-processes", daemon=True).start()

    def close(self) -> None:
        """End the threads; each ends within one interval."""
        self._ending.set()
        self._watched.set()

    # --- from any thread

    def series(self) -> list[PageSeries]:
        """Return the processes, ended ones too, ordered by worker number and pid."""
        with self._lock:
            every = list(self._series.values())
        return sorted(every, key=lambda each: (each.ended_s is not None, each.number or 0, each.pid))

    def of(self, scope: int) -> PageSeries | None:
        """Return the series of a process, or the merged one."""
        if scope == MERGED:
            return self._merged
        with self._lock:
            return self._series.get(scope)

    def history(self, scope: int) -> list[PagePoint]:
        """Return the points of a scope, oldest first."""
        series = self.of(scope)
        with self._lock:
            return [] if series is None else list(series.points)

    def findings(self, scope: int) -> list[Answer]:
        """Return the findings of a scope, each with its `pid`, the newest first."""
        with self._lock:
            chosen = [each for each in self._series.values() if scope in (MERGED, each.pid)]
            rows = [{**found, "pid": each.pid} for each in chosen for found in each.history.findings]
        return sorted(rows, key=lambda row: row.get("wall_time_s") or 0.0, reverse=True)

    def watch(self) -> None:
        """Count a page that is open: sampling is faster while there is one."""
        with self._lock:
            self._watchers += 1
            self._watched.set()

    def unwatch(self) -> None:
        """Count a page that was closed."""
        with self._lock:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()

    @property
    def is_watched(self) -> bool:
        """Whether a page is open."""
        return self._watched.is_set()

    # --- the threads

    def _follow(self) -> None:
        while not self._ending.is_set():
            began_s = self._now_s()
            try:
                self._update(self.source.targets())
                self.problem = ""
            except (OSError, PenstockError) as error:
                self.problem = str(error)
            self._merge()
            self._pause(began_s)

    def _update(self, targets: list[ProcessTarget]) -> None:
        present = {target.pid: target for target in targets}
        started = []
        with self._lock:
            for pid, target in present.items():
                known = self._series.get(pid)
                if known is None or known.ended_s is not None:
                    self._series[pid] = PageSeries(pid, target.number)
                    started.append(self._series[pid])
            for series in self._series.values():
                if series.pid not in present and series.ended_s is None:
                    series.ended_s, series.problem = self._now_s(), "the process has ended"
            self._drop_ended()
        for series in started:
            name = f"penstock-page-{series.pid}"
            threading.Thread(target=self._sample_all, args=(series,), name=name, daemon=True).start()

    def _drop_ended(self) -> None:
        ended = sorted((each for each in self._series.values() if each.ended_s is not None), key=_end_of)
        has_live = len(ended) < len(self._series)
        for at, series in enumerate(reversed(ended)):
            # the last process stays: the page shows its end
            if at >= MOST_ENDED or (has_live and self._now_s() - _end_of(series) > ENDED_S):
                del self._series[series.pid]

    def _merge(self) -> None:
        every = [each for each in self.series() if each.ended_s is None and each.points]
        point = merged_point(each.present() for each in every if not each.problem)
        if point is not None:
            with self._lock:
                self._merged.add(point)

    def _sample_all(self, series: PageSeries) -> None:
        while series.ended_s is None and not self._ending.is_set():
            began_s = self._now_s()
            try:
                self._sample(series)
            except (OSError, PenstockError) as error:
                self._note(series, str(error))
            except Exception as error:
                # an answer of another version: the page shows the other processes
                self._note(series, f"its answer cannot be read: {error!r}")
            self._pause(began_s)

    def _note(self, series: PageSeries, problem: str) -> None:
        with self._lock:
            if series.ended_s is None:
                series.problem = problem

    def _sample(self, series: PageSeries) -> None:
        answer = self.source.ask(series.pid, "snapshot", within_s=ANSWER_S, sites=MOST_SITES)
        with self._lock:
            is_first = series.history.latest is None
            series.history.add(answer)
            # the figures of a first sample are means since the process's start, no moment of a chart
            if not is_first or answer.get("partial"):
                series.add(point_of(series.history.series(1)[-1]))
            series.answered_s, series.problem = self._now_s(), ""
        if not answer.get("partial") and answer.get("mark") != series.history.mark:
            self._take_findings(series)
        series.diagnoses = diagnose(series.history)

    def _take_findings(self, series: PageSeries) -> None:
        try:
            found = self.source.ask(series.pid, "findings", within_s=ANSWER_S, since=series.history.mark)
        except (OSError, PenstockError):
            # the next sample asks again
            return
        if not found.get("partial"):
            with self._lock:
                series.history.add_findings(found)

    def _pause(self, began_s: float) -> None:
        every_s = WATCHED_S if self.is_watched else UNWATCHED_S
        left_s = began_s + every_s - self._now_s()
        # the first watcher ends a long pause
        waits_for = self._ending if self.is_watched else self._watched
        if left_s > 0:
            waits_for.wait(left_s)


def _end_of(series: PageSeries) -> float:
    return series.ended_s or 0.0
