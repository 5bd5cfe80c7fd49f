"""What only shows over time: tasks far older than their site's others, and sites whose live count only grows.

Pure arithmetic over snapshots, whoever takes them and however often. Knows no loop.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from itertools import pairwise
from typing import TYPE_CHECKING

from penstock.tasks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.tasks.finding import Site
    from penstock.tasks.records import LiveTask, SiteStatistics

__all__ = ["GrowthWatch", "HungWatch", "hung_message", "hung_tasks"]

# sites that a watch remembers; of more, those not seen for longest begin anew
MOST_SITES = 2048
# one more of a site is told of only when it has grown by this again
GROWN_AGAIN = 2


def hung_tasks(
    live: Iterable[LiveTask],
    sites: Iterable[SiteStatistics],
    factor: float,
    least_s: float,
    least_samples: int = 100,
) -> list[LiveTask]:
    """The tasks older than `least_s` and than `factor` times what 99 % of their site's took, oldest first.

    Of a site with fewer than `least_samples` ended tasks nothing is known: its tasks are never hung.
    """
    usual_s = {each.site: each.latency.p99_s for each in sites if each.latency.count >= least_samples}
    found = [
        task
        for task in live
        if task.age_s > least_s and task.site in usual_s and task.age_s > factor * usual_s[task.site]
    ]
    return sorted(found, key=lambda task: -task.age_s)


class HungWatch:
    """`hung_tasks` over time, each told of once. Remembers no more than the tasks that hang now."""

    def __init__(self, factor: float, least_s: float, least_samples: int = 100, loop: str = "") -> None:
        self._factor, self._least_s, self._least_samples, self._loop = factor, least_s, least_samples, loop
        self._told: set[int] = set()

    def look(self, live: Sequence[LiveTask], sites: Sequence[SiteStatistics]) -> list[Finding]:
        """What has come to hang since the last look, from one snapshot of each."""
        hung = hung_tasks(live, sites, self._factor, self._least_s, self._least_samples)
        new = [task for task in hung if task.number not in self._told]
        # A site's p99 may rise past a task and fall again: that task stays told of for as long as it lives.
        self._told = (self._told & {task.number for task in live}) | {task.number for task in new}
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


def hung_message(task: str, age_s: float, site: Site, p99_s: float) -> str:
    """The line about a task far older than its like."""
    return f"task {task!r} is {age_s:.1f} s old, of {site}, where 99 % end within {p99_s:.3g} s"


class _Course:
    """The live counts of one site over the last looks, and what was told of it."""

    __slots__ = ("counts", "told_count")

    def __init__(self, samples: int) -> None:
        self.counts: deque[int] = deque(maxlen=samples)
        self.told_count = 0


class GrowthWatch:
    """Sites that fill up: over `samples` looks the live count never fell, rose in at least half the steps, and in all
    by `least_count` and by `share` of what it was.

    Steps without a rise are allowed since a slow leak has them; half must rise since a burst at start has one.
    """

    def __init__(self, samples: int = 24, least_count: int = 50, share: float = 0.2, loop: str = "") -> None:
        if samples < 3:
            raise ValueError(f"{samples} samples show no trend: give at least 3")
        self._samples, self._least_count, self._share, self._loop = samples, least_count, share, loop
        self._courses: OrderedDict[Site, _Course] = OrderedDict()

    def look(self, sites: Iterable[SiteStatistics]) -> list[Finding]:
        """Take one sample of every site, at equal intervals of some seconds; what only grows, once until it falls below
        what was told or has doubled since."""
        found = []
        seen: set[Site] = set()
        for each in sites:
            seen.add(each.site)
            course = self._course(each.site)
            if course.counts and each.live < course.counts[-1]:
                course.counts.clear()
            if each.live < course.told_count:
                course.told_count = 0
            course.counts.append(each.live)
            if self._grows(course.counts) and each.live >= GROWN_AGAIN * course.told_count:
                course.told_count = each.live
                found.append(self._finding(each, list(course.counts)))
        for site in [site for site in self._courses if site not in seen]:
            del self._courses[site]
        return found

    def _course(self, site: Site) -> _Course:
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
            message=f"{site.live} tasks of {site.site} live, {counts[0]} of them {len(counts)} looks ago, never fewer",
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
