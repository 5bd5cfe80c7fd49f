"""Random histories of a fleet: whatever happens, capacity is kept by replacements, and peace returns."""

import signal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.runtime.supervisor.fleet import FleetOptions
from penstock.runtime.supervisor.recycling import RecycleBounds
from penstock.runtime.supervisor.worker_process import State
from tests.unit.runtime.supervisor.fleets import Fleets, generation


class History(RuleBasedStateMachine):
    """Starts, failures, crashes, reloads, signals, requests and scaling, in any order."""

    @initialize(count=st.integers(1, 4), max_requests=st.sampled_from([None, 50]))
    def begin(self, count: int, max_requests: int | None) -> None:
        options = FleetOptions(drain_s=5.0, start_s=60.0, recycling=RecycleBounds(max_requests=max_requests))
        self.fleets = Fleets(options, count).ready()
        self.count = count
        self.generations = 1
        self.is_rolling = False
        # serving workers that the history itself took away
        self.crashed = 0

    def teardown(self) -> None:
        if hasattr(self, "fleets"):
            self.fleets.close()

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 2.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleets.tick(seconds)
        self.fleets.tick(0.6)
        # the kernel ends those that are killed
        for worker in self.fleets.alive():
            if signal.SIGKILL in worker.signals:
                self.fleets.end(worker, status="was ended by SIGKILL")

    @rule(choice=st.integers(0, 7))
    def one_starts(self, choice: int) -> None:
        if starting := self.fleets.alive(State.STARTING):
            self.fleets.start(starting[choice % len(starting)])

    @rule(choice=st.integers(0, 7))
    def one_fails_to_start(self, choice: int) -> None:
        if starting := self.fleets.alive(State.STARTING):
            self.fleets.fail(starting[choice % len(starting)])

    @rule(choice=st.integers(0, 7))
    def one_crashes(self, choice: int) -> None:
        if serving := self.fleets.alive(State.SERVING):
            self.fleets.end(serving[choice % len(serving)], status="was ended by SIGSEGV")

    @rule(choice=st.integers(0, 7))
    def one_has_drained(self, choice: int) -> None:
        if draining := self.fleets.alive(State.DRAINING):
            self.fleets.end(draining[choice % len(draining)])

    @rule(choice=st.integers(0, 7), served=st.integers(0, 100))
    def one_has_served(self, choice: int, served: int) -> None:
        if serving := self.fleets.alive(State.SERVING):
            serving[choice % len(serving)].page.note_work(1, served, 1)

    @rule(choice=st.integers(0, 7))
    def one_is_asked_to_end(self, choice: int) -> None:
        if serving := self.fleets.alive(State.SERVING):
            worker = serving[choice % len(serving)]
            self.fleets.fleet.on_message(worker, {"signal": 15}, self.fleets.now_s)

    @precondition(lambda self: not self.fleets.fleet.is_rolling)
    @rule()
    def a_reload(self) -> None:
        self.generations += 1
        self.fleets.fleet.roll(generation(self.generations))

    @rule(count=st.integers(1, 5))
    def scaled(self, count: int) -> None:
        self.count = count
        self.fleets.fleet.scale(count, self.fleets.now_s)

    @invariant()
    def one_replacement_is_under_way_at_a_time(self) -> None:
        if hasattr(self, "fleets"):
            assert sum(slot.successor is not None for slot in self.fleets.fleet.slots.values()) <= 1

    @invariant()
    def no_slot_loses_its_worker_to_a_replacement(self) -> None:
        """A worker drains only after its successor serves, or because there are to be fewer workers."""
        if hasattr(self, "fleets"):
            for worker in self.fleets.alive(State.DRAINING):
                assert worker in self.fleets.fleet.leaving
            for slot in self.fleets.fleet.slots.values():
                assert slot.worker is None or slot.worker.state in (State.STARTING, State.SERVING)

    @invariant()
    def a_process_is_in_one_place(self) -> None:
        if hasattr(self, "fleets"):
            held = list(self.fleets.fleet.workers())
            assert len(held) == len(set(map(id, held)))
            assert {id(worker) for worker in self.fleets.alive()} == set(map(id, held))

    @rule()
    def peace_returns(self) -> None:
        """Once starts succeed and drains end, the fleet has its count of workers, all of one generation."""
        for worker in self.fleets.alive():
            worker.page.note_work(0, 0, 0)
        self.fleets.tick(61.0)
        for worker in self.fleets.alive(State.STARTING):
            self.fleets.tick(0.6)
            if signal.SIGKILL in worker.signals:
                self.fleets.end(worker, status="was ended by SIGKILL")
        for _ in range(60):
            self.fleets.tick(1.0)
            for worker in self.fleets.alive():
                worker.signalled_s = None
            self.fleets.start(*self.fleets.alive(State.STARTING))
            self.fleets.end(*self.fleets.alive(State.DRAINING))
        alive = self.fleets.alive()
        assert [worker.state for worker in alive] == [State.SERVING] * self.count
        assert sorted(worker.number for worker in alive) == list(range(1, self.count + 1))
        assert {worker.generation for worker in alive} == {self.fleets.fleet.current}
        assert self.fleets.fleet.fatal is None


TestHistory = History.TestCase
