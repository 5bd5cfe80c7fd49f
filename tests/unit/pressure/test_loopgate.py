"""Tests of the loop's gate: its measures at gates and servers while the loop is behind, and their end."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from penstock import pressure
from penstock.config import Config, LoopConfig, PressureConfig
from penstock.errors import ConfigError
from penstock.loop import NATIVE
from penstock.pressure.overload import sheds
from penstock.pressure.overload.loop import CHECKS_UNTIL_PAUSE, LoopGate, LoopStatistics, loop_statistics
from penstock.pressure.overload.sheds import LOG_EVERY_S, all_sheds, count_shed
from penstock.runtime.build import build_loop
from tests.support.loops import POLLERS

MS = 1_000_000


class Lag(SimpleNamespace):
    """The interface of a native Lag, with settable values."""

    def __init__(self):
        super().__init__(lag_ns=0.0, high_ns=10 * MS, low_ns=5 * MS, for_ns=100 * MS)
        self.is_overloaded = self.is_deferring = False
        self.overloaded_count = 0
        self.spent_ns = 0

    def overloaded_for_ns(self):
        return self.spent_ns


class FakeServer:
    def __init__(self):
        self.reasons = set()
        self.answers_unread = False

    def _sheds_unread(self):
        return self.answers_unread

    def _pause(self, reason):
        self.reasons.add(reason)

    def _resume(self, reason):
        self.reasons.discard(reason)


class FakeGate:
    def __init__(self, loop, name):
        self.loop, self.name, self.scale, self.sheds = loop, name, 1.0, {"limit": 3}

    def statistics(self):
        return SimpleNamespace(sheds=dict(self.sheds))


class FakeLoop:
    """The interface of a loop that a LoopGate uses, with timers that the test runs."""

    def __init__(self):
        self.timers, self.dropped, self.delays = [], [], []
        self.server = FakeServer()
        self.deferred_reads = SimpleNamespace(count=3, most=7, total=20, abandoned=2)
        self.deferred_accepts = SimpleNamespace(
            count=4, most=8, total=30, abandoned=21, urgent=SimpleNamespace(admitted=7)
        )
        lingering = SimpleNamespace(count=5, total=50, cut=1)
        self.sheds = SimpleNamespace(lingering=lingering, counts=self.counts, watch=lambda _: None)
        self._native_core = self
        self.shed_unread_count = 40
        self.gone = [23, 2]

    def counts(self):
        return self.shed_unread_count, *self.gone

    def is_closed(self):
        return False

    def call_later(self, delay_s, callback):
        self.delays.append(delay_s)
        self.timers.append(callback)

    def servers(self):
        return [self.server]

    def close_abandoned(self, older_ns):
        self.dropped.append(older_ns)

    def run_timers(self):
        """Run the due timer. Return whether there was one."""
        due, self.timers = self.timers, []
        for callback in due:
            callback()
        return bool(due)


@pytest.fixture
def made():
    loop, lag = FakeLoop(), Lag()
    gates = [FakeGate(loop, "asgi"), FakeGate(None, "another's")]
    notified = []
    gate = LoopGate(loop, lag=lag, gates=lambda: gates, notify=lambda *record: notified.append(record))
    return SimpleNamespace(loop=loop, lag=lag, gates=gates, notified=notified, gate=gate)


def overload(made, lag_ms):
    made.lag.lag_ns = lag_ms * MS
    made.lag.is_overloaded = True
    made.lag.overloaded_count += 1
    made.gate.on_change()


def recover(made):
    made.lag.lag_ns = MS
    made.lag.is_overloaded = False
    made.lag.spent_ns += 300 * MS
    made.loop.deferred_reads.total += 5
    made.loop.shed_unread_count += 6
    made.gate.on_change()


def test_gates_of_the_loop_are_scaled_by_how_far_it_is_behind_and_others_are_not(made):
    overload(made, 40)
    assert [gate.scale for gate in made.gates] == [0.25, 1.0]
    made.lag.lag_ns = 80 * MS
    made.loop.run_timers()
    assert made.gates[0].scale == 0.125


def test_however_far_behind_some_are_let_in(made):
    overload(made, 100_000)
    assert made.gates[0].scale == 0.1


def test_held_reads_alone_scale_nothing(made):
    overload(made, 2)
    assert made.gates[0].scale == 1.0


def test_the_scale_comes_back_by_doubling_and_then_the_checks_end(made):
    overload(made, 100_000)
    recover(made)
    scales = []
    while made.loop.run_timers():
        scales.append(made.gates[0].scale)
    assert scales == pytest.approx([0.2, 0.4, 0.8, 1.0])


def test_a_new_overload_while_the_scale_comes_back_sets_one_timer_only(made):
    overload(made, 40)
    recover(made)
    overload(made, 40)
    assert len(made.loop.timers) == 1
    assert made.gates[0].scale == 0.25


def test_accepts_are_paused_only_when_it_stays_behind_and_resume_below_the_low_watermark(made):
    overload(made, 20)
    for _ in range(CHECKS_UNTIL_PAUSE - 2):
        made.loop.run_timers()
    assert made.loop.server.reasons == set()
    made.loop.run_timers()
    assert made.loop.server.reasons == {"lag"}
    assert made.gate.statistics().accepts_paused
    made.lag.lag_ns = 7 * MS
    made.loop.run_timers()
    assert made.loop.server.reasons == {"lag"}
    made.lag.lag_ns = 4 * MS
    made.loop.run_timers()
    assert made.loop.server.reasons == set()
    assert made.gate.statistics().accept_pauses == 1


def test_a_server_that_answers_unread_is_not_paused(made):
    made.loop.server.answers_unread = True
    overload(made, 20)
    for _ in range(CHECKS_UNTIL_PAUSE):
        made.loop.run_timers()
    assert made.loop.server.reasons == set()
    assert not made.gate.statistics().accepts_paused


def test_the_end_of_an_overload_resumes_accepts(made):
    overload(made, 20)
    for _ in range(CHECKS_UNTIL_PAUSE):
        made.loop.run_timers()
    recover(made)
    assert made.loop.server.reasons == set()


def test_the_program_hears_of_an_overload_in_its_log_but_not_of_each(made, caplog):
    with caplog.at_level(logging.INFO, "penstock.pressure"):
        for _ in range(3):
            overload(made, 40)
            recover(made)
    begins = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(begins) == 1
    assert begins[0].getMessage() == (
        "the loop is behind: ready callbacks wait 40.0 ms on average, above pressure.lag_high_s (10 ms);"
        " its gates are scaled to 25 % of their limits"
    )


def test_a_loop_that_is_behind_by_held_reads_alone_says_so_and_nothing_of_a_wait_above_the_watermark(made, caplog):
    overload(made, 6.7)
    assert [record.getMessage() for record in caplog.records] == [
        "the loop is behind: reads have been deferred for 0.1 s, so that ready callbacks wait 6.7 ms only"
    ]


def shed(made, lag=0, left=0):
    made.loop.shed_unread_count += lag
    made.loop.gone[0] += left
    made.gate._on_shed()


def test_sheds_are_logged_in_one_line_with_all_reasons_and_the_loops_own_gates(made, caplog, monkeypatch):
    # the clock stands still: the duration in the line says nothing of this machine
    monkeypatch.setattr(sheds, "monotonic", lambda: 1000.0)
    # sheds of an earlier report
    made.gates[0].sheds["full"] = 1000
    for _ in range(100):
        shed(made, lag=26)
    shed(made, left=10)
    for gate in made.gates:
        gate.sheds["full"] = gate.sheds.get("full", 0) + 5
    assert caplog.records == []
    assert made.loop.run_timers()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = "2615 requests and connections were shed in 0.0 s: asgi: full 5; loop: lag 2600, left 10"
    assert record.getMessage() == message
    assert record.penstock["sheds"] == {"asgi: full": 5, "loop: lag": 2600, "loop: left": 10}
    assert not made.loop.run_timers()


def test_the_next_line_has_only_what_came_since_and_waits_its_time(made, caplog):
    shed(made, lag=1)
    made.loop.run_timers()
    shed(made, lag=2)
    assert made.loop.delays[-1] > LOG_EVERY_S - 5
    made.loop.run_timers()
    assert [record.args[-1] for record in caplog.records] == ["loop: lag 1", "loop: lag 2"]


def test_a_flight_recorder_gets_the_sheds_of_each_turn(made):
    shed(made, lag=3, left=2)
    shed(made, left=1)
    assert made.notified == [("shed", "loop: lag 3, left 2", 0), ("shed", "loop: left 1", 0)]


def test_all_that_was_shed_is_listed_for_metrics_as_long_as_its_loop_lives(made):
    before = all_sheds()
    shed(made, lag=7)
    count_shed("connections", "limit")
    assert all_sheds() - before == {("loop", "lag"): 7, ("connections", "limit"): 1}


def test_a_flight_recorder_gets_each_record(made):
    overload(made, 40)
    recover(made)
    ((kind, text, took_ns),) = made.notified
    assert (kind, took_ns) == ("overload", 300 * MS)
    assert "after 0.300 s in which 5 reads were deferred and 6 requests shed unread" in text


def test_clients_that_left_long_ago_are_removed_at_each_check(made):
    overload(made, 40)
    made.loop.run_timers()
    assert made.loop.dropped == [1_000_000_000] * 2


def test_statistics_say_how_it_stands(made):
    overload(made, 40)
    made.lag.spent_ns = 1500 * MS
    assert loop_statistics(made.loop) == LoopStatistics(
        state="overloaded",
        lag_s=0.04,
        overloaded_count=1,
        overloaded_s=1.5,
        scale=0.25,
        deferred_reads=3,
        deferred_reads_most=7,
        deferred_reads_total=20,
        deferred_reads_abandoned=2,
        deferred_accepts=4,
        deferred_accepts_most=8,
        deferred_accepts_total=30,
        deferred_accepts_abandoned=21,
        shed_unread=40,
        health_checks=7,
        sheds={"lag": 40, "left": 23, "closed": 2},
        lingering=5,
        lingering_total=50,
        lingering_aborted=1,
    )
    made.lag.is_overloaded, made.lag.is_deferring = False, True
    assert made.gate.statistics().state == "deferring"
    made.lag.is_deferring = False
    assert made.gate.statistics().state == "calm"


# --- in a loop


def block(seconds):
    """Block the loop as a callback that computes does."""
    import time

    time.sleep(seconds)


@pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to measure")
def test_a_loop_that_is_behind_says_so_and_recovers():
    # the watermarks are wide apart, for slow machines
    config = Config(pressure=PressureConfig(lag_high_s=0.02, lag_low_s=0.01, lag_for_s=0.05))
    loop = build_loop(config)

    async def main():
        assert pressure.loop_statistics().state == "calm"
        while loop_statistics().state != "overloaded":
            loop.call_soon(block, 0.03)
            loop.call_soon(block, 0.03)
            await asyncio.sleep(0)
        behind = loop_statistics()
        while loop_statistics().state != "calm":
            await asyncio.sleep(0.01)
        while loop_statistics().scale < 1:
            await asyncio.sleep(0.01)
        return behind, loop_statistics()

    behind, after = loop.run_until_complete(asyncio.wait_for(main(), 20))
    loop.close()
    assert behind.lag_s > 0.02
    assert behind.scale < 1
    assert (after.overloaded_count, after.scale) == (1, 1.0)
    assert after.overloaded_s > 0.05


@pytest.mark.parametrize("poller", POLLERS)
def test_without_watermarks_nothing_is_checked(poller):
    loop = build_loop(Config(loop=LoopConfig(poller=poller)))

    async def main():
        return loop_statistics()

    assert loop.run_until_complete(main()) == LoopStatistics(state="off")
    loop.close()


def test_asyncios_own_loop_cannot_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, "penstock.pressure"):
        loop = build_loop(Config(loop=LoopConfig(poller="selector"), pressure=PressureConfig(lag_high_s=0.01)))
    assert loop_statistics(loop).state == "off"
    assert "pressure.lag_high_s" in caplog.text
    loop.close()


def test_watermarks_the_wrong_way_round_are_refused():
    with pytest.raises(ConfigError, match="lag_low_s"):
        PressureConfig(lag_high_s=0.01, lag_low_s=0.02)


@pytest.mark.parametrize(
    ("former", "new"),
    [("held", "deferred_reads"), ("parked_left", "deferred_accepts_abandoned"), ("turned_away", "shed_unread")],
)
def test_a_former_name_of_a_field_is_refused_with_the_new_one(former, new):
    assert hasattr(LoopStatistics(), new)
    with pytest.raises(AttributeError, match=rf"'{former}': it is named {new} now"):
        getattr(LoopStatistics(), former)
    with pytest.raises(AttributeError, match=r"has no field 'other'$"):
        LoopStatistics().other  # noqa: B018
