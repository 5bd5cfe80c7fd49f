"""The probe: every task counted once, its steps timed, its site right, and nothing of it left when it is gone."""

import asyncio
import gc
import random
import sys
import time
import weakref

import pytest

from penstock._core import seams
from penstock._core.tasks import layout
from penstock._core.tasks import sites as task_sites
from penstock.loop import EventLoop
from penstock.loop.native import native_core

OFF, COUNT, TIME, TRACE = range(4)
WAITING = 2


@pytest.fixture(params=[COUNT, TIME, TRACE])
def loop(request):
    loop = EventLoop()
    native_core(loop).probe.set_level(request.param)
    yield loop
    loop.close()


@pytest.fixture
def timed():
    loop = EventLoop()
    native_core(loop).probe.set_level(TIME)
    yield loop
    loop.close()


def records(loop):
    snapshot = native_core(loop).snapshot_tasks()
    return [snapshot[at] for at in range(len(snapshot))]


async def noop():
    pass


async def sleep_a_turn():
    await asyncio.sleep(0)


async def fail():
    raise ValueError


def test_the_fields_of_asyncios_tasks_and_of_frames_are_found():
    assert all(layout.offsets())
    assert layout.unknown() == ()


@pytest.fixture
def unknown_layout():
    seams.forget_layout()
    yield layout.unknown()
    seams.remember_layout()


def test_tasks_are_counted_with_their_sites_where_the_layout_is_not_known(unknown_layout):
    assert unknown_layout == ("the state of a future", "the exception of a future", "the task of a step", "frames")
    loop = EventLoop()
    native_core(loop).probe.set_level(TRACE)

    async def main():
        tasks = [asyncio.create_task(noop()), asyncio.create_task(sleep_a_turn()), asyncio.create_task(fail())]
        [line] = [record.site for record in records(loop) if record.weak() is tasks[0]]
        await asyncio.gather(*tasks, return_exceptions=True)
        return line

    line = loop.run_until_complete(main())
    code, lasti = native_core(loop).probe.sites.sites[line]
    assert code.co_name == "main"
    ledger = native_core(loop).probe.ledger
    assert (ledger.created, ledger.outcomes(), ledger.live) == (4, (3, 1, 0, 0), 0)
    assert task_sites.stack_here()[0][0] is sys._getframe().f_code
    loop.close()


def test_every_outcome_is_counted(loop):
    async def main():
        tasks = [asyncio.create_task(noop()), asyncio.create_task(sleep_a_turn()), asyncio.create_task(fail())]
        never = asyncio.create_task(noop())
        never.cancel()
        tasks.append(never)
        waits = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.gather(*tasks, waits, return_exceptions=True)

    loop.run_until_complete(main())
    ledger = native_core(loop).probe.ledger
    assert (ledger.created, ledger.outcomes(), ledger.live) == (6, (3, 1, 2, 0), 0)


def test_a_failure_that_nobody_looks_at_is_still_told_by_asyncio(loop):
    told = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def main():
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    loop.run_until_complete(main())
    assert told == ["Task exception was never retrieved"]


def test_a_task_that_asyncio_made_by_itself_is_adopted_at_its_first_step(loop):
    async def main():
        await asyncio.Task(sleep_a_turn(), loop=loop)

    loop.run_until_complete(main())
    assert native_core(loop).probe.ledger.created == 2
    assert native_core(loop).probe.ledger.outcomes() == (2, 0, 0, 0)


def test_a_callback_that_is_a_method_of_a_task_is_no_step_of_it(loop):
    async def main():
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        steps = native_core(loop).probe.ledger.steps
        loop.call_soon(task.get_name)
        loop.call_soon(task.cancel)
        await asyncio.sleep(0)
        # one step: that of this task itself
        assert native_core(loop).probe.ledger.steps == steps + 1
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())


def test_records_follow_ten_thousand_tasks_that_end_in_any_order(loop):
    choose = random.Random(4)

    async def main():
        loop_tasks = {asyncio.create_task(asyncio.sleep(60)) for _ in range(10_000)}
        await asyncio.sleep(0)
        while loop_tasks:
            for task in choose.sample(sorted(loop_tasks, key=id), min(1500, len(loop_tasks))):
                task.cancel()
                loop_tasks.discard(task)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            alive = {record[1]() for record in records(loop)}
            assert alive == asyncio.all_tasks()

    loop.run_until_complete(main())
    assert native_core(loop).probe.ledger.outcomes() == (1, 0, 10_000, 0)
    assert native_core(loop).probe.ledger.live == 0


def test_a_record_keeps_no_task_alive_and_tells_that_it_was_lost(loop):
    async def waits():
        await loop.create_future()

    async def main():
        seen = weakref.ref(asyncio.create_task(waits()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None
        (lost,) = native_core(loop).probe.ledger.sweep(0)
        assert lost[3] == 1  # steps

    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(main())
    assert native_core(loop).probe.ledger.outcomes()[3] == 1


def test_tasks_whose_addresses_are_used_again_are_counted_apart(loop):
    loop.set_exception_handler(lambda *_: None)

    async def waits():
        await loop.create_future()

    async def main():
        for _ in range(200):
            asyncio.create_task(waits())  # noqa: RUF006 (what this test is about)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()

    loop.run_until_complete(main())
    native_core(loop).probe.ledger.sweep(0)
    assert native_core(loop).probe.ledger.created == 201
    assert native_core(loop).probe.ledger.outcomes() == (1, 0, 0, 200)


def test_steps_and_times_add_up(timed):
    async def busy():
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0.03)

    async def main():
        task = asyncio.create_task(busy())
        await asyncio.sleep(0)
        (record,) = [record for record in records(timed) if record[1]() is task]
        assert record[5] == WAITING
        assert 20e6 <= record[6] < 5e9
        await task
        return task

    timed.run_until_complete(main())
    (busiest,) = [
        counts for counts in native_core(timed).probe.ledger.site_counts() if counts[4] > 19e6 and counts[1] == 1
    ][:1]
    assert busiest[2] == (1, 0, 0, 0)
    assert native_core(timed).probe.ledger.latency.longest_ns >= 50e6
    assert native_core(timed).probe.idle_ns >= 25e6


def test_a_waiting_task_takes_no_time_but_that_of_its_steps(timed):
    async def main():
        await asyncio.sleep(0.2)
        (record,) = records(timed)
        assert record[6] < 150e6

    timed.run_until_complete(main())


def test_the_site_is_the_programs_line(timed):
    async def main():
        direct = asyncio.create_task(noop())
        here = sys._getframe().f_lineno - 1
        async with asyncio.TaskGroup() as group:
            grouped = group.create_task(noop())
        gathered = asyncio.gather(noop())
        probe = native_core(timed).probe
        await direct, await gathered
        return here, [probe.sites.sites[counts[0]] for counts in probe.ledger.site_counts()], grouped

    here, sites, _ = timed.run_until_complete(main())
    named = [(code.co_name, line_of(code, lasti)) for code, lasti in sites]
    assert ("main", here) in named
    assert {name for name, _ in named} == {"main", "test_the_site_is_the_programs_line"}
    assert len(named) == 4


def line_of(code, lasti):
    return [position[0] for position in code.co_positions()][lasti // 2]


def test_a_servers_handler_is_its_own_site(timed):
    async def handler(reader, writer):
        writer.close()

    async def main():
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        server.close()

    timed.run_until_complete(main())
    sites = [
        native_core(timed).probe.sites.sites[counts[0]][0].co_name
        for counts in native_core(timed).probe.ledger.site_counts()
    ]
    assert "handler" in sites


def test_frames_are_read_as_python_reads_them():
    def outer():
        return inner()

    def inner():
        frame, seen = sys._getframe(), []
        raw = task_sites.stack_here()
        while frame is not None and len(seen) < len(raw):
            seen.append(frame.f_code)
            frame = frame.f_back
        return raw, seen

    raw, seen = outer()
    assert [code for code, _ in raw] == seen
    assert all(0 <= lasti < len(code.co_code) for code, lasti in raw)

    def generator():
        yield task_sites.stack_here()

    assert [code.co_name for code, _ in next(generator())[:2]] == ["generator", sys._getframe().f_code.co_name]


def test_sites_beyond_the_table_share_one_number():
    table = task_sites.TaskSites(4)
    scope = {"find": table.find}
    numbers = []
    for line in range(10):
        exec(compile("\n" * line + "found = find()", f"made{line}.py", "exec"), scope)
        numbers.append(scope["found"])
    assert numbers == [2, 3, *[1] * 8]
    assert len(table.sites) == 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_are_counted_whether_they_wait_or_not(loop):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        ended = [asyncio.create_task(noop()) for _ in range(3)]
        waits = asyncio.create_task(asyncio.sleep(0.001))
        assert all(task.done() for task in ended)
        (record,) = [record for record in records(loop) if record[1]() is waits]
        assert record[8] == 1  # steps
        await waits

    loop.run_until_complete(main())
    ledger = native_core(loop).probe.ledger
    assert (ledger.created, ledger.eager, ledger.outcomes(), ledger.live) == (5, 3, (5, 0, 0, 0), 0)


def test_a_users_factory_keeps_its_place_and_what_it_makes_is_counted(loop):
    class Own(asyncio.Task):
        pass

    loop.set_task_factory(lambda loop, coro, **kwargs: Own(coro, loop=loop, **kwargs))

    async def main():
        assert type(asyncio.create_task(noop())) is Own
        await asyncio.create_task(sleep_a_turn())

    loop.run_until_complete(main())
    assert native_core(loop).probe.ledger.created == 3
    assert native_core(loop).probe.ledger.outcomes() == (3, 0, 0, 0)


def test_tasks_written_in_python_are_counted(loop):
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.tasks._PyTask(coro, loop=loop, **kwargs))

    async def main():
        await asyncio.gather(noop(), sleep_a_turn(), fail(), return_exceptions=True)

    loop.run_until_complete(main())
    assert native_core(loop).probe.ledger.created == 4
    assert native_core(loop).probe.ledger.outcomes() == (3, 1, 0, 0)


def test_the_level_may_change_at_any_step(timed):
    probe = native_core(timed).probe

    async def changes():
        for level in (OFF, TRACE, COUNT, TIME, OFF, COUNT, TRACE):
            probe.set_level(level)
            await asyncio.sleep(0)
            await asyncio.gather(noop(), sleep_a_turn())

    async def main():
        await asyncio.gather(*[changes() for _ in range(3)])

    timed.run_until_complete(main())
    probe.set_level(OFF)
    ledger = probe.ledger
    assert ledger.live == 0
    assert ledger.created == sum(ledger.outcomes())


def test_tasks_that_were_born_when_nobody_looked_at_the_clock_have_no_age():
    loop = EventLoop()
    native_core(loop).probe.set_level(COUNT)

    async def main():
        early = asyncio.create_task(asyncio.sleep(0.01))
        await asyncio.sleep(0)
        native_core(loop).probe.set_level(TIME)
        await early

    loop.run_until_complete(main())
    # neither of the two that were born before
    assert native_core(loop).probe.ledger.latency.count == 0
    assert native_core(loop).probe.start_delay.count == 0
    assert native_core(loop).probe.ledger.overdue(time.monotonic_ns(), [1] * 10, 10) == []
    loop.close()


def test_off_leaves_nothing_and_counts_nothing(timed):
    native_core(timed).probe.set_level(OFF)
    timed.run_until_complete(sleep_a_turn())
    assert native_core(timed).probe.ledger.created == 0
    assert native_core(timed).probe.turns == 0


def test_debug_mode_counts_the_same(loop):
    loop.set_debug(True)
    loop.run_until_complete(sleep_a_turn())
    assert native_core(loop).probe.ledger.outcomes() == (1, 0, 0, 0)
    assert native_core(loop).probe.ledger.steps == 2


def test_a_loop_closed_with_tasks_pending_leaves_no_dangling_record():
    loop = EventLoop()
    native_core(loop).probe.set_level(TIME)
    loop.set_exception_handler(lambda *_: None)
    coroutines = [noop() for _ in range(5)]
    for coroutine in coroutines:
        loop.create_task(coroutine)
    loop.close()
    gc.collect()
    assert len(native_core(loop).probe.ledger.sweep(0)) == 5
    for coroutine in coroutines:
        coroutine.close()


def test_the_loop_wakes_for_its_check_and_survives_one_that_raises(timed, caplog):
    seen = []

    def check():
        seen.append(asyncio.get_running_loop() is timed)
        if len(seen) == 3:
            timed.stop()
        raise LookupError

    native_core(timed).probe.set_check(check, 1_000_000)
    timed.run_forever()
    native_core(timed).probe.set_check(None, 0)
    assert seen == [True] * 3
    assert native_core(timed).probe.errors == 3
    # one a minute is logged
    assert [record.exc_info[0] for record in caplog.records] == [LookupError]


def test_a_copy_of_the_flight_recorder_is_read_in_portions_while_the_original_goes_on():
    loop = EventLoop()
    native_core(loop).probe.set_level(TRACE)
    loop.run_until_complete(sleep_a_turn())
    flight = native_core(loop).probe.flight
    copy, count = flight.copy(), flight.written
    assert count == copy.written > 3
    loop.run_until_complete(sleep_a_turn())
    assert copy.written == count < flight.written
    everything = flight.read(0)
    assert copy.read_range(0, 0, 2) + copy.read_range(0, 2, 1_000_000) == everything[:count]
    assert copy.read_range(everything[-1].at_ns, 0, count) == []
    loop.close()


def test_the_flight_recorder_holds_the_newest():
    from penstock._core.tasks.flight import FlightRecorder

    with pytest.raises(ValueError, match="a power of two, not 3"):
        FlightRecorder(3)
    loop = EventLoop()
    native_core(loop).probe.set_level(TRACE)
    loop.run_until_complete(sleep_a_turn())
    kinds = [entry[0] for entry in native_core(loop).probe.flight.read(0)]
    assert kinds.count(0) == kinds.count(2) == 1
    assert kinds.count(1) == 2
    loop.close()
