"""A fleet in trouble: no descriptors, starts that fail until new settings come, kills whose reason has gone."""

import errno
import signal

import pytest

from penstock.runtime.supervisor.fleet import STACK_WAIT_S, FleetOptions
from penstock.runtime.supervisor.worker_process import State, WorkerProcess
from tests.unit.runtime.supervisor.fleets import Fleets, PretendedProcess, generation


def test_a_supervisor_without_descriptors_left_goes_on_with_the_workers_it_has(make: type[Fleets]) -> None:
    fleets = make().ready()

    def refuse(*_: object) -> WorkerProcess:
        raise OSError(errno.EMFILE, "Too many open files")

    fleets.fleet._make_worker = refuse  # type: ignore[assignment]
    fleets.end(fleets.alive()[0], status="was ended by SIGSEGV")
    for _ in range(10):
        fleets.tick(1.0)
    assert len(fleets.alive(State.SERVING)) == 1 and fleets.fleet.fatal is None
    fleets.fleet._make_worker = PretendedProcess
    fleets.settle()
    fleets.tick(60.0)
    fleets.settle()
    assert len(fleets.alive(State.SERVING)) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_reload_mends_a_service_whose_workers_do_not_start_any_more(make: type[Fleets], count: int) -> None:
    fleets = make(count=count).ready()
    fleets.end(*fleets.alive(), status="was ended by SIGSEGV")
    fleets.tick()
    for worker in fleets.alive(State.STARTING):
        fleets.fail(worker)
    fleets.fleet.roll(generation(2))
    fleets.tick()
    assert {worker.generation.number for worker in fleets.alive(State.STARTING)} == {2}
    fleets.settle()
    assert {worker.generation.number for worker in fleets.alive(State.SERVING)} == {2}
    assert fleets.rolled == [""]


def test_a_reload_that_does_not_mend_it_either_is_told_and_the_old_settings_are_tried_on(make: type[Fleets]) -> None:
    fleets = make(count=1).ready()
    fleets.end(*fleets.alive(), status="was ended by SIGSEGV")
    fleets.tick()
    fleets.fail(*fleets.alive(State.STARTING))
    fleets.fleet.roll(generation(2))
    fleets.tick()
    fleets.fail(*fleets.alive(State.STARTING), reason="no database")
    assert fleets.rolled == ["no database"]
    fleets.tick(31.0)
    assert [worker.generation.number for worker in fleets.alive(State.STARTING)] == [1]


def test_a_crash_in_a_reload_is_no_reason_to_try_settings_that_are_not_proved(make: type[Fleets]) -> None:
    fleets = make().ready()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    fleets.end(fleets.alive(State.SERVING)[1], status="was ended by SIGSEGV")
    fleets.tick()
    assert sorted(worker.generation.number for worker in fleets.alive(State.STARTING)) == [1, 2]


def test_a_worker_that_has_started_while_its_kill_was_prepared_is_spared(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(start_s=10.0), count=1).ready()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    [late] = fleets.alive(State.STARTING)
    fleets.tick(10.0)
    fleets.start(late)
    fleets.tick(STACK_WAIT_S * 2)
    assert signal.SIGKILL not in late.signals
    fleets.settle()
    assert fleets.alive(State.SERVING) == [late] and fleets.rolled == [""]


def test_a_worker_whose_start_is_told_after_its_kill_takes_no_place(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(start_s=10.0), count=1).ready()
    [old] = fleets.alive()
    fleets.fleet.roll(generation(2))
    fleets.tick()
    [late] = fleets.alive(State.STARTING)
    fleets.tick(10.0)
    fleets.tick(STACK_WAIT_S)
    assert signal.SIGKILL in late.signals
    fleets.start(late)
    assert old.state is State.SERVING
    fleets.end(late, status="was ended by SIGKILL")
    assert fleets.rolled != [""] and fleets.alive() == [old]


@pytest.mark.parametrize("recovers", [True, False])
def test_a_hang_that_ends_while_the_stack_is_awaited_is_not_killed(make: type[Fleets], recovers: bool) -> None:
    fleets = make(FleetOptions(hang_s=2.0), count=1).ready()
    [worker] = fleets.alive()
    began_ns = int(fleets.now_s * 1e9)
    while not worker.kill_reason:
        fleets.tick(0.25)
        worker.page.note_turn(int(fleets.now_s * 1e9), began_ns)
    if recovers:
        worker.page.note_turn(int(fleets.now_s * 1e9), 0)
    for _ in range(4):
        fleets.tick(0.25)
        worker.page.note_turn(int(fleets.now_s * 1e9), 0 if recovers else began_ns)
    assert (signal.SIGKILL in worker.signals) == (not recovers)
    assert bool(worker.kill_reason) == (not recovers)


def test_a_hang_in_a_drain_without_a_bound_is_found(make: type[Fleets]) -> None:
    fleets = make(FleetOptions(drain_s=None, hang_s=2.0), count=1).ready()
    [worker] = fleets.alive()
    fleets.fleet.drain_all(fleets.now_s)
    worker.page.set_state(3)
    began_ns = int(fleets.now_s * 1e9)
    for _ in range(20):
        fleets.tick(0.25)
        worker.page.note_turn(int(fleets.now_s * 1e9), began_ns)
    assert signal.SIGKILL in worker.signals


@pytest.mark.parametrize("packet", [b"7", b"[]", b"\xff", b'{"failed": "x"}', b'{"pid": "x"}', b"[" * 5000])
def test_bytes_that_the_application_writes_to_the_channel_do_no_harm(make: type[Fleets], packet: bytes) -> None:
    fleets = make(count=1).ready()
    [worker] = fleets.alive()
    worker.child_channel.send(packet)
    for message in worker.messages():
        fleets.fleet.on_message(worker, message, fleets.now_s)
    fleets.tick()
    assert worker.state is State.SERVING


def test_a_worker_that_sends_without_end_does_not_keep_the_supervisor(make: type[Fleets]) -> None:
    fleets = make(count=1).ready()
    [worker] = fleets.alive()
    worker.child_channel.send(b'{"signal": 15}')
    for taken, message in enumerate(worker.messages(), 1):
        # each message that is taken makes room for the next one
        worker.child_channel.send(b'{"signal": 15}')
        assert message == {"signal": 15} and taken < 10_000
