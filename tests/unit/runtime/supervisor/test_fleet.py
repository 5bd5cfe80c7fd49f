"""The fleet's decisions: which workers are started, replaced, drained and killed, and when."""

import errno
import signal

import pytest

from penstock.runtime.supervisor.fleet import KILL_GRACE_S, FleetOptions
from penstock.runtime.supervisor.recycling import RecycleBounds
from penstock.runtime.supervisor.restarts import STABLE_S
from penstock.runtime.supervisor.worker_process import State
from tests.unit.runtime.supervisor.fleets import Fleets, generation


def test_the_first_generation_fills_every_slot_and_is_ready_when_all_serve(make: type[Fleets]) -> None:
    fleets = make(count=3)
    fleets.tick()
    assert [worker.number for worker in fleets.launched] == [1, 2, 3]
    fleets.start(*fleets.launched[:2])
    assert not fleets.fleet.is_ready
    fleets.start(fleets.launched[2])
    assert fleets.fleet.is_ready


def test_a_failed_start_of_the_first_generation_is_fatal_with_its_reason_and_code(make: type[Fleets]) -> None:
    fleets = make()
    fleets.tick()
    fleets.start(fleets.launched[0])
    fleets.fail(fleets.launched[1], "no database")
    assert fleets.fleet.fatal == ("no database", 3)
    # the server ends: nothing takes the empty place
    fleets.tick(1.0)
    assert len(fleets.launched) == 2


def test_a_process_that_cannot_be_started_is_fatal_at_first(make: type[Fleets]) -> None:
    fleets = make()
    fleets.refuses = OSError(errno.EAGAIN, "no more processes")
    fleets.tick()
    assert fleets.fleet.fatal is not None and "no more processes" in fleets.fleet.fatal[0]


def test_a_crashed_worker_is_started_again_at_once_and_then_later_and_later(make: type[Fleets]) -> None:
    fleets = make().ready()
    delays = []
    for _ in range(6):
        crashed = fleets.alive(State.SERVING)[-1]
        fleets.end(crashed, status="was ended by SIGSEGV")
        waited_s = 0.0
        while not fleets.alive(State.STARTING):
            fleets.tick(0.05)
            waited_s += 0.05
        delays.append(waited_s)
        fleets.start(*fleets.alive(State.STARTING))
    assert delays[0] == pytest.approx(0.05)
    assert delays == sorted(delays) and delays[-1] > 1.0


def test_a_worker_that_has_served_for_long_is_started_again_at_once(make: type[Fleets]) -> None:
    fleets = make().ready()
    for _ in range(3):
        fleets.tick(STABLE_S + 1)
        fleets.end(fleets.alive(State.SERVING)[-1], status="was ended by SIGKILL")
        fleets.tick()
        fleets.start(*fleets.alive(State.STARTING))
        assert len(fleets.alive(State.SERVING)) == 2


def test_restarts_beyond_the_bound_are_fatal(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(max_restarts=3), count=1).ready()
    for _ in range(4):
        assert fleets.fleet.fatal is None
        fleets.end(fleets.alive(State.SERVING)[-1], status="was ended by SIGSEGV")
        fleets.tick(31)
        fleets.start(*fleets.alive(State.STARTING))
    assert fleets.fleet.fatal == ("more than 3 restarts of workers in five minutes", 3)


def test_restarts_beyond_the_bound_do_not_end_a_service_that_serves(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(max_restarts=3)).ready()
    fleets.tick(STABLE_S)
    for _ in range(8):
        crashed = next(each for each in fleets.alive(State.SERVING) if each.number == 2)
        fleets.end(crashed, status="was ended by SIGSEGV")
        fleets.tick(31)
        fleets.start(*fleets.alive(State.STARTING))
    assert fleets.fleet.fatal is None


def test_a_reload_replaces_one_after_the_other_and_each_new_one_serves_before_the_old_one_drains(
    make: type[Fleets],
) -> None:
    fleets = make(count=3).ready()
    fleets.fleet.roll(generation(2))
    for _ in range(3):
        fleets.tick()
        [successor] = fleets.alive(State.STARTING)
        assert len(fleets.alive(State.SERVING)) == 3
        fleets.tick(5)
        assert len(fleets.alive(State.STARTING)) == 1
        fleets.start(successor)
        [old] = fleets.alive(State.DRAINING)
        assert old.number == successor.number and {"drain": 10.0} in old.told()
        # none begins while one drains
        fleets.tick(1)
        assert not fleets.alive(State.STARTING)
        fleets.end(old)
    fleets.tick()
    assert fleets.rolled == [""]
    assert {worker.generation.number for worker in fleets.alive()} == {2}


def test_a_new_generation_that_fails_leaves_the_old_one_at_work(make: type[Fleets]) -> None:
    fleets = make().ready()
    before = fleets.alive()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    fleets.fail(fleets.alive(State.STARTING)[0], "no database")
    fleets.settle()
    assert fleets.rolled == ["no database"]
    assert fleets.alive() == before and fleets.fleet.fatal is None and not fleets.fleet.is_rolling


def test_a_new_generation_that_fails_in_the_middle_is_rolled_back(make: type[Fleets]) -> None:
    fleets = make(count=3).ready()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    fleets.start(*fleets.alive(State.STARTING))
    fleets.end(*fleets.alive(State.DRAINING))
    fleets.tick()
    fleets.fail(fleets.alive(State.STARTING)[0], "no database")
    assert fleets.rolled == ["no database"]
    fleets.settle()
    assert [worker.generation.number for worker in fleets.alive()] == [1, 1, 1]


def test_a_worker_that_crashes_while_a_new_generation_is_unproven_comes_back_in_the_old_one(
    make: type[Fleets],
) -> None:
    fleets = make().ready()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    fleets.end(fleets.alive(State.SERVING)[-1], status="was ended by SIGSEGV")
    fleets.tick()
    assert sorted(worker.generation.number for worker in fleets.alive(State.STARTING)) == [1, 2]


def test_a_start_that_takes_too_long_is_killed_with_its_stack_and_has_failed(
    make: type[Fleets], caplog: pytest.LogCaptureFixture
) -> None:
    fleets = make(FleetOptions(start_s=30)).ready()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    [slow] = fleets.alive(State.STARTING)
    fleets.tick(29.9)
    assert slow.kill_reason == ""
    fleets.tick(0.2)
    fleets.tick(0.6)
    assert signal.SIGKILL in slow.signals
    assert "it has not started within 30 s" in caplog.text
    fleets.end(slow, status="was ended by SIGKILL")
    assert "it has not started within 30 s" in fleets.rolled[0]


def test_a_start_of_any_length_is_left_alone_without_a_bound(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(start_s=None, hang_s=1.0))
    fleets.tick()
    fleets.tick(3600)
    assert all(worker.signals == [] for worker in fleets.launched)


def test_a_slow_start_is_told_with_its_stack(make: type[Fleets], caplog: pytest.LogCaptureFixture) -> None:
    fleets = make()
    fleets.tick()
    fleets.tick(31)
    fleets.tick(1)
    assert caplog.text.count("has been starting for 31 s") == 2
    assert caplog.text.count("starting:\n") == 2


def test_workers_are_recycled_one_at_a_time(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(recycling=RecycleBounds(max_requests=100))).ready()
    for worker in fleets.alive():
        worker.page.note_work(0, 100, 0)
    fleets.tick()
    assert len(fleets.alive(State.STARTING)) == 1
    fleets.start(*fleets.alive(State.STARTING))
    fleets.tick()
    assert not fleets.alive(State.STARTING)
    fleets.end(*fleets.alive(State.DRAINING))
    fleets.tick()
    assert len(fleets.alive(State.STARTING)) == 1


@pytest.mark.parametrize(
    "bounds", [RecycleBounds(max_age_s=50.0), RecycleBounds(max_rss_bytes=10**6)], ids=["age", "memory"]
)
def test_workers_are_recycled_by_age_and_memory(make: type[Fleets], bounds: RecycleBounds) -> None:
    fleets = make(FleetOptions(recycling=bounds)).ready()
    before = fleets.alive()
    fleets.tick(49)
    assert not fleets.alive(State.STARTING)
    fleets.rss = 10**6 + 1
    fleets.tick(7)
    fleets.start(*fleets.alive(State.STARTING))
    assert [each.number for each in before if each.state is State.DRAINING] == [1]


def test_a_worker_that_is_asked_to_end_is_replaced_first(make: type[Fleets]) -> None:
    fleets = make().ready()
    asked = fleets.alive()[1]
    fleets.fleet.on_message(asked, {"signal": signal.SIGTERM}, fleets.now_s)
    fleets.tick()
    assert not fleets.alive(State.STARTING), "the signal may have come to the supervisor as well"
    fleets.tick(0.2)
    [successor] = fleets.alive(State.STARTING)
    assert asked.state is State.SERVING and successor.number == asked.number
    fleets.start(successor)
    assert asked.state is State.DRAINING


def test_a_drain_that_does_not_end_is_killed_and_its_work_is_told(
    make: type[Fleets], caplog: pytest.LogCaptureFixture
) -> None:
    fleets = make(FleetOptions(drain_s=2.0)).ready()
    worker = fleets.alive()[0]
    worker.page.note_work(3, 10, 4)
    fleets.fleet.drain_all(fleets.now_s)
    fleets.tick(2.0 + KILL_GRACE_S + 0.1)
    fleets.tick(0.6)
    assert signal.SIGKILL in worker.signals
    assert "it waited for 3 requests, 4 connections" in caplog.text


def test_fewer_and_more_workers(make: type[Fleets]) -> None:
    fleets = make().ready()
    fleets.fleet.scale(4, fleets.now_s)
    fleets.settle()
    assert len(fleets.alive(State.SERVING)) == 4
    fleets.fleet.scale(1, fleets.now_s)
    fleets.settle()
    assert [worker.number for worker in fleets.alive()] == [1]


def test_a_fleet_that_waits_for_a_change_starts_again_with_the_next_generation(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(waits_for_change=True), count=1)
    fleets.tick()
    fleets.fail(fleets.launched[0])
    fleets.tick(60)
    assert fleets.fleet.fatal is None and not fleets.alive()
    fleets.fleet.roll(generation(2))
    fleets.settle()
    assert [worker.generation.number for worker in fleets.alive(State.SERVING)] == [2]
