"""Histograms of steps for each site: at level trace alone, each step counted once, ready times apart from durations."""

import asyncio
import gc
import time

import pytest

from penstock.loop import EventLoop
from penstock.loop.native import native_core
from penstock.tasks.observers.native import NativeObserver

OFF, COUNT, TIME, TRACE = range(4)


@pytest.fixture
def loop():
    loop = EventLoop()
    native_core(loop).probe.set_level(TRACE)
    yield loop
    loop.close()


def steps(loop):
    """Return (count of steps, count of ready times) of each site that has them, by the name of its function."""
    probe = native_core(loop).probe
    return {
        probe.sites.sites[row.site][0].co_name: (row.step, row.schedule)
        for row in probe.ledger.site_counts()
        if row.step is not None and probe.sites.sites[row.site] is not None
    }


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def make(coro):
    await asyncio.create_task(coro)


def test_each_step_of_a_sites_tasks_is_counted_once(loop):
    loop.run_until_complete(make(turns(9)))
    step, schedule = steps(loop)["make"]
    assert step.count == schedule.count == 10


def test_the_steps_of_all_sites_are_the_steps_of_the_loop(loop):
    async def main():
        await asyncio.gather(*(make(turns(5)) for _ in range(20)))

    loop.run_until_complete(main())
    probe = native_core(loop).probe
    rows = [row for row in probe.ledger.site_counts() if row.step is not None]
    assert sum(row.step.count for row in rows) == probe.ledger.steps == probe.took()[0].count
    assert sum(row.step.total_ns for row in rows) == probe.took()[0].total_ns


def test_a_long_step_and_a_long_wait_are_told_apart(loop):
    async def busy():
        time.sleep(0.02)

    async def patient():
        pass

    async def make_busy():
        await asyncio.create_task(busy())

    async def make_patient():
        await asyncio.create_task(patient())

    async def main():
        await asyncio.gather(make_busy(), make_patient())

    loop.run_until_complete(main())
    found = steps(loop)
    assert found["make_busy"][0].longest_ns >= 20e6
    # it was made before the busy one ran
    assert found["make_patient"][1].longest_ns >= 20e6
    assert found["make_patient"][0].count == 1


def test_the_wait_of_a_later_step_counts_from_when_it_was_ready(loop):
    async def woken(event):
        await event.wait()

    async def make_woken(event):
        await asyncio.create_task(woken(event))

    async def main():
        event = asyncio.Event()
        waiter = asyncio.ensure_future(make_woken(event))
        await asyncio.sleep(0.05)
        event.set()
        time.sleep(0.02)
        await waiter

    loop.run_until_complete(main())
    schedule = steps(loop)["make_woken"][1]
    assert schedule.count == 2
    assert schedule.longest_ns >= 20e6


@pytest.mark.parametrize("level", [COUNT, TIME])
def test_below_level_trace_no_site_has_histograms(level):
    loop = EventLoop()
    native_core(loop).probe.set_level(level)
    loop.run_until_complete(make(turns(3)))
    ledger = native_core(loop).probe.ledger
    assert all((row.step, row.schedule) == (None, None) for row in ledger.site_counts())
    assert ledger.steps_of(0) == ledger.steps_of(10**6) == (None, None)
    loop.close()


def test_a_step_in_which_the_level_changes_is_not_counted(loop):
    probe = native_core(loop).probe
    seen = []

    async def changing():
        probe.set_level(TIME)
        await asyncio.sleep(0)
        probe.set_level(TRACE)
        await asyncio.sleep(0)
        seen.append(True)

    loop.run_until_complete(make(changing()))
    step, schedule = steps(loop)["make"]
    # the last one: the first ended at level time, the second began there
    assert seen == [True]
    assert step.count == schedule.count == 1


def test_the_histograms_stay_when_the_level_falls(loop):
    loop.run_until_complete(make(turns(2)))
    native_core(loop).probe.set_level(TIME)
    loop.run_until_complete(make(turns(2)))
    assert steps(loop)["make"][0].count == 3


def test_a_thousand_sites_have_histograms_of_their_own_until_the_loop_is_gone(loop):
    source = "async def make_{0}(coro):\n    import asyncio\n    await asyncio.create_task(coro)\n"
    names = {}
    for at in range(300):
        exec(source.format(at), names)

    async def main():
        for at in range(300):
            await names[f"make_{at}"](turns(1))

    loop.run_until_complete(main())
    found = {name: each for name, each in steps(loop).items() if name.startswith("make_")}
    assert len(found) == 300
    assert {each[0].count for each in found.values()} == {2}
    del found
    gc.collect()


def test_a_tasks_step_that_ends_its_record_is_counted(loop):
    async def main():
        for _ in range(500):
            await asyncio.create_task(turns(0))

    loop.run_until_complete(main())
    # one site for the tasks; the main task has another
    assert steps(loop)["main"][0].count == 500


def test_the_statistics_of_a_site_have_both():
    loop = EventLoop()
    observer = NativeObserver(loop, level="trace")
    loop.run_until_complete(make(turns(4)))
    site = next(site for site in observer.sites() if site.site.function == "make")
    assert site.step.count == site.schedule.count == 5
    assert site.step.total_s > 0
    scan = observer.scan(lambda: None)
    scanned = next(site for site in observer.scanned_sites(scan) if site.site.function == "make")
    assert (scanned.step.count, scanned.schedule.count) == (5, 5)
    loop.close()
