"""Trends over snapshots: hung tasks, far older than others of their site, and sites whose live count only grows.

Pure arithmetic; the caller takes the snapshots and sets the interval. Knows no loop.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from itertools import pairwise
from typing import TYPE_CHECKING

from penstock.tasks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask, SiteStatistics

__all__ = ["GrowthWatch", "HungWatch", "hung_message", "hung_tasks"]

# sites that a watch remembers; of more, the least recently seen start again
MOST_SITES = 2048
# the factor of growth after which a site is reported again
GROWN_AGAIN = 2


def hung_tasks(
    live: Iterable[LiveTask],
    sites: Iterable[SiteStatistics],
    factor: float,
    least_s: float,
    least_samples: int = 100,
) -> list[LiveTask]:
    """Return the tasks older than `least_s` seconds and `factor` times their site's 99th percentile, oldest first.

    Tasks of a site with fewer than `least_samples` ended tasks are never hung: its percentile is unknown.
    """
    usual_s = {each.site: each.latency.p99_s for each in sites if each.latency.count >= least_samples}
    found = [
        task
        for task in live
        if task.age_s > least_s and task.site in usual_s and task.age_s > factor * usual_s[task.site]
    ]
    return sorted(found, key=lambda task: -task.age_s)


class HungWatch:
    """`hung_tasks` over time, each reported once. Remembers only the tasks that hang now."""

    def __init__(self, factor: float, least_s: float, least_samples: int = 100, loop: str = "") -> None:
        self._factor, self._least_s, self._least_samples, self._loop = factor, least_s, least_samples, loop
        self._reported: set[int] = set()

    def check(self, live: Sequence[LiveTask], sites: Sequence[SiteStatistics]) -> list[Finding]:
        """Return the findings of tasks hung since the last check, from one snapshot of each."""
        hung = hung_tasks(live, sites, self._factor, self._least_s, self._least_samples)
        new = [task for task in hung if task.number not in self._reported]
        # A site's p99 may rise above a task's age and fall again: the task stays reported while it lives.
        self._reported = (self._reported & {task.number for task in live}) | {task.number for task in new}
        by_site = {each.site: each for each in sites} if new else {}
        return [self._finding(task, by_site[task.site]) for task in new]

    def _finding(self, task: LiveTask, site: SiteStatistics) -> Finding:
        usual_s = site.latency.p99_s
        return Finding(
            kind="hung",
            message=hung_message(task.name, task.age_s, task.site, usual_s),
            site=task.site,
            task=task.name,
            since_s=time.monotonic() - task.age_s,
            wall_time_s=time.time() - task.age_s,
            loop=self._loop,
            evidence={
                "number": task.number,
                "age_s": task.age_s,
                "p99_s": usual_s,
                "samples": site.latency.count,
                "state": task.state,
                "running_s": task.running_s,
                "ready_s": task.ready_s,
                "waiting_s": task.waiting_s,
                "steps": task.steps,
            },
        )


def hung_message(task: str, age_s: float, site: Place, p99_s: float) -> str:
    """Return the message about a hung task; `age_s` and its site's 99th percentile `p99_s` are seconds."""
    return f"task {task!r} is {age_s:.1f} s old, of {site}, where 99 % end within {p99_s:.3g} s"


class _Course:
    """The live counts of one site at the last checks, and the count that was reported."""

    __slots__ = ("counts", "reported_count")

    def __init__(self, samples: int) -> None:
        self.counts: deque[int] = deque(maxlen=samples)
        self.reported_count = 0


class GrowthWatch:
    """A detector of sites whose live count only grows.

    Over `samples` checks the count never fell, rose in at least half of the steps, and in all by `least_count` and by
    `share` of its first value. Steps without a rise are allowed: a slow leak has them. Half must rise: a burst at the
    start is a single one. Raises ValueError for fewer than 3 samples.
    """

    def __init__(self, samples: int = 24, least_count: int = 50, share: float = 0.2, loop: str = "") -> None:
        if samples < 3:
            raise ValueError(f"{samples} samples show no trend: give at least 3")
        self._samples, self._least_count, self._share, self._loop = samples, least_count, share, loop
        self._courses: OrderedDict[Place, _Course] = OrderedDict()

    def check(self, sites: Iterable[SiteStatistics]) -> list[Finding]:
        """Take one sample of every site and return the findings. Call it at equal intervals of some seconds.

        A growing site is reported again after its count has doubled, or has fallen below the reported one.
        """
        found = []
        seen: set[Place] = set()
        for each in sites:
            seen.add(each.site)
            course = self._course(each.site)
            if course.counts and each.live < course.counts[-1]:
                course.counts.clear()
            if each.live < course.reported_count:
                course.reported_count = 0
            course.counts.append(each.live)
            if self._grows(course.counts) and each.live >= GROWN_AGAIN * course.reported_count:
                course.reported_count = each.live
                found.append(self._finding(each, list(course.counts)))
        for site in [site for site in self._courses if site not in seen]:
            del self._courses[site]
        return found

    def _course(self, site: Place) -> _Course:
        course = self._courses.get(site)
        if course is None:
            course = self._courses[site] = _Course(self._samples)
            if len(self._courses) > MOST_SITES:
                self._courses.popitem(last=False)
        self._courses.move_to_end(site)
        return course

    def _grows(self, counts: deque[int]) -> bool:
        if len(counts) < self._samples:
            return False
        grown = counts[-1] - counts[0]
        if grown < max(1, self._least_count, self._share * counts[0]):
            return False
        rises = sum(later > former for former, later in pairwise(counts))
        return rises * 2 >= len(counts) - 1

    def _finding(self, site: SiteStatistics, counts: list[int]) -> Finding:
        return Finding(
            kind="growing",
            message=f"{site.live} live tasks of {site.site}; the count rose from {counts[0]} in {len(counts)} checks",
            site=site.site,
            since_s=time.monotonic(),
            wall_time_s=time.time(),
            loop=self._loop,
            evidence={
                "live": counts,
                "created": site.created,
                "completed": site.completed,
                "failed": site.failed,
                "cancelled": site.cancelled,
            },
        )
