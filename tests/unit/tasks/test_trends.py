"""Trends: hung tasks and growing sites, and tasks and sites that only look similar."""

import asyncio

import pytest

from penstock.config import TasksConfig
from penstock.tasks.detectors.trends import GrowthWatch, HungWatch, hung_tasks
from penstock.tasks.detectors.watcher import SelectorWatcher
from penstock.tasks.observers.factory import TaskFactory
from penstock.tasks.place import Place
from penstock.tasks.records import LiveTask, SiteStatistics
from penstock.times import Histogram, taken

HERE = Place("app.py", 10, "handler")
THERE = Place("app.py", 20, "other")


def site_of(site: Place = HERE, live: int = 1, samples: int = 200, took_s: float = 0.1) -> SiteStatistics:
    histogram = Histogram()
    for _ in range(samples):
        histogram.add(int(took_s * 1e9))
    return SiteStatistics(site, samples + live, samples, 0, 0, live, 0.0, 0.0, taken(histogram))


def task_of(number: int, age_s: float, site: Place = HERE) -> LiveTask:
    return LiveTask(number, f"Task-{number}", site, age_s, "waiting", 0.0, 0.0, age_s, 3)


def test_a_task_far_older_than_its_sites_others_is_hung() -> None:
    live = [task_of(1, 0.2), task_of(2, 61.0), task_of(3, 300.0)]
    assert [task.number for task in hung_tasks(live, [site_of()], factor=10, least_s=60)] == [3, 2]


def test_an_old_task_among_old_ones_is_not_hung() -> None:
    assert hung_tasks([task_of(1, 100.0)], [site_of(took_s=30.0)], factor=10, least_s=60) == []


def test_a_task_younger_than_the_least_age_is_not_hung() -> None:
    assert hung_tasks([task_of(1, 59.0)], [site_of()], factor=10, least_s=60) == []


def test_of_a_site_with_few_samples_nothing_is_said() -> None:
    assert hung_tasks([task_of(1, 1e6)], [site_of(samples=99)], factor=10, least_s=60) == []
    assert hung_tasks([task_of(1, 1e6)], [site_of(samples=100)], factor=10, least_s=60) != []
    assert hung_tasks([task_of(1, 1e6, THERE)], [site_of()], factor=10, least_s=60) == []


def test_a_hung_task_is_reported_once() -> None:
    watch = HungWatch(factor=10, least_s=60, loop="main")
    [finding] = watch.check([task_of(1, 61.0), task_of(2, 1.0)], [site_of()])
    assert (finding.kind, finding.task, finding.site, finding.loop) == ("hung", "Task-1", HERE, "main")
    assert finding.evidence["age_s"] == 61.0
    assert finding.evidence["p99_s"] == pytest.approx(0.1, rel=0.03)
    assert watch.check([task_of(1, 66.0), task_of(2, 6.0)], [site_of()]) == []
    # the site's p99 rises past it and falls again
    assert watch.check([task_of(1, 71.0)], [site_of(took_s=30.0)]) == []
    assert watch.check([task_of(1, 76.0), task_of(2, 70.0)], [site_of()])[0].task == "Task-2"


def test_a_reported_task_is_forgotten_at_its_end() -> None:
    watch = HungWatch(factor=10, least_s=60)
    for number in range(1000):
        assert len(watch.check([task_of(number, 61.0)], [site_of()])) == 1
    assert len(watch._reported) == 1


def course(counts: list[int], watch: GrowthWatch | None = None) -> list[int]:
    """The checks, by index, at which a site with these live counts is reported."""
    watch = watch or GrowthWatch(samples=8, least_count=10, share=0.2)
    return [index for index, live in enumerate(counts) if watch.check([site_of(live=live, samples=1)])]


def test_a_growing_site_is_reported_once_and_again_when_it_has_doubled() -> None:
    assert course(list(range(0, 400, 5))) == [7, 14, 28]


def test_a_slow_leak_with_steps_of_rest_is_growing() -> None:
    assert course([100 + 10 * (index // 2) for index in range(9)]) == [8]


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([50] * 40, id="steady"),
        pytest.param([0, 1000] + [1000] * 40, id="a burst at start"),
        pytest.param([index % 7 * 50 for index in range(60)], id="a sawtooth"),
        pytest.param(list(range(9)), id="fewer than the least"),
        pytest.param([10000 + index * 10 for index in range(20)], id="a small share"),
        pytest.param([index * 10 for index in range(7)], id="too short a time"),
    ],
)
def test_counts_without_a_leak_are_not_reported(counts: list[int]) -> None:
    assert course(counts) == []


def test_the_evidence_is_the_counts() -> None:
    watch = GrowthWatch(samples=3, least_count=10, loop="main")
    found = [finding for live in (10, 20, 40) for finding in watch.check([site_of(live=live)])]
    [finding] = found
    assert (finding.kind, finding.site, finding.loop) == ("growing", HERE, "main")
    assert finding.evidence["live"] == [10, 20, 40]


def test_each_site_has_a_course_of_its_own() -> None:
    watch = GrowthWatch(samples=4, least_count=10)
    found = []
    for live in range(0, 100, 10):
        found += watch.check([site_of(HERE, live=live), site_of(THERE, live=50)])
    assert {finding.site for finding in found} == {HERE}


def test_sites_that_are_gone_are_forgotten_and_the_many_are_bounded() -> None:
    from penstock.tasks.detectors.trends import MOST_SITES

    watch = GrowthWatch()
    watch.check(
        [SiteStatistics(Place("app.py", line, "f"), 1, 0, 0, 0, 1, 0.0, 0.0) for line in range(MOST_SITES + 50)]
    )
    assert len(watch._courses) == MOST_SITES
    watch.check([site_of(HERE)])
    assert list(watch._courses) == [HERE]


def test_two_samples_are_no_trend() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        GrowthWatch(samples=2)


def test_a_growing_site_of_a_selector_loop_is_a_finding_with_the_loops_name() -> None:
    loop = asyncio.SelectorEventLoop()
    factory = TaskFactory(name="orders")
    loop.set_task_factory(factory)
    watcher = SelectorWatcher(loop, factory, TasksConfig(check_s=None))
    tasks = []
    try:
        for _ in range(24):
            tasks += [loop.create_task(asyncio.sleep(60)) for _ in range(5)]
            watcher._check()
        (finding,) = factory.findings.all()
        assert (finding.kind, finding.loop) == ("growing", "orders")
    finally:
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
