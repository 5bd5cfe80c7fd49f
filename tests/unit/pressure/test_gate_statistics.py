"""Tests of a gate's statistics: consistent counts, times, sheds by reason, limit changes, listener and registry."""

import asyncio
import gc
import logging
import math
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock import pressure
from penstock.errors import Overloaded
from penstock.pressure.admission.gate import Gate, Priority, gates, statistics
from penstock.pressure.limits import Window
from tests.unit.pressure.driving import Crowd, settle

pytestmark = pytest.mark.runner("on_loop")

Run = Callable[..., Any]


class Scripted:
    """A limit with values from the test, which records the windows that it gets."""

    def __init__(self, *values: int, window_s: float = 0.1) -> None:
        self.values = list(values)
        self.value = self.values.pop(0)
        self.reason = "begins"
        self.window_s = window_s
        self.windows: list[Window] = []

    def update(self, window: Window) -> int:
        self.windows.append(window)
        if self.values:
            self.value = self.values.pop(0)
            self.reason = f"moved to {self.value}"
        return self.value


async def test_counts_and_times_add_up(gate_class: type[Gate], standing: Any) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=1.0, name="db"))
    await crowd.come("in", "next", "gone")
    await crowd.cancel("gone")
    standing.now_s += 0.25
    found = crowd.gate.statistics()
    assert (found.name, found.limit, found.scale, found.limit_reason) == ("db", 1, 1.0, "fixed")
    assert (found.inflight, found.queued, found.oldest_wait_s) == (1, 1, pytest.approx(0.25))
    await crowd.leave("in")
    standing.now_s += 0.5
    await crowd.leave("next")
    found = crowd.gate.statistics()
    assert (found.admitted, found.finished, found.waited, found.inflight, found.queued) == (2, 2, 1, 0, 0)
    assert (found.wait.count, found.wait.max_s) == (1, pytest.approx(0.25))
    assert found.service.count == 2
    assert found.service.max_s == pytest.approx(0.5)
    assert not any(found.sheds.values())


async def test_sheds_are_counted_by_reason_and_reported(gate_class: type[Gate]) -> None:
    reported: list[tuple[Gate, str]] = []
    gate = gate_class(1, max_wait_s=0)
    gate.on_shed = lambda *shed: reported.append(shed)
    assert gate.try_enter()
    assert not gate.try_enter()
    with pytest.raises(Overloaded):
        await gate.enter(priority=Priority.CRITICAL)
    gate.close()
    with pytest.raises(Overloaded):
        await gate.enter()
    assert reported == [(gate, "limit"), (gate, "limit"), (gate, "closed")]
    assert {reason: count for reason, count in gate.statistics().sheds.items() if count} == {
        "limit": 2,
        "closed": 1,
    }


def test_a_listener_that_raises_is_logged_and_removed(
    gate_class: type[Gate], on_loop: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        gate = gate_class(1, max_wait_s=0, name="db")
        gate.on_shed = lambda *_: 1 / 0
        await gate.enter()
        for _ in range(2):
            assert not gate.try_enter()
        assert gate.on_shed is None

    with caplog.at_level(logging.ERROR, logger="penstock.pressure"):
        on_loop(main())
    assert len(caplog.records) == 1
    assert "'db'" in caplog.text
    assert "its on_shed raised" in caplog.text


async def test_a_listener_may_raise_the_limit(gate_class: type[Gate]) -> None:
    gate = gate_class(1, max_wait_s=math.inf, max_queued=1)
    crowd = Crowd(gate)
    gate.on_shed = lambda gate, _: gate.resize(4)
    await crowd.come("in")
    await crowd.come("low", priority=Priority.LOW)
    await crowd.come("high", priority=Priority.HIGH)
    await settle()
    assert crowd.came_in == ["in", "high"]
    assert (gate.inflight, gate.queued()) == (2, 0)
    await crowd.end()


async def test_a_closed_gate_sheds_waiting_requests_too(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in", "waits")
    crowd.gate.close()
    await crowd.come("late")
    assert crowd.reasons() == {"waits": "closed", "late": "closed"}
    assert not crowd.gate.try_enter()
    assert "is closed" in str(crowd.refused["late"])
    await crowd.leave("in")
    assert crowd.gate.inflight == 0


async def test_a_window_has_the_counts_since_the_last_one(gate_class: type[Gate], standing: Any) -> None:
    limit = Scripted(4, 2, 8)
    crowd = Crowd(gate_class(limit, max_wait_s=math.inf))  # type: ignore[arg-type]

    async def serve(batch: Any) -> None:
        names = [(batch, number) for number in range(6)]
        await crowd.come(*names[:4], priority=Priority.NORMAL)
        await crowd.come(*names[4:], key="x")
        standing.now_s += 0.02
        await crowd.leave(*names[:4])
        standing.now_s += 0.02
        await crowd.leave(*names[4:])

    for batch in range(5):
        await serve(batch)
    first = limit.windows[0]
    assert first.duration_s == pytest.approx(0.12, abs=0.021)
    assert first.completed >= 10
    assert {round(rtt_s, 6) for rtt_s in first.rtts_s} == {0.02}
    assert (first.most_inflight, first.was_full, first.dropped) == (4, True, 0)
    found = crowd.gate.statistics()
    assert (found.limit, found.limit_reason) == (limit.value, limit.reason)
    assert found.limit_moved_at_s > 1000


async def test_entries_that_began_before_the_last_window_have_no_sample_in_this_one(
    gate_class: type[Gate], standing: Any
) -> None:
    limit = Scripted(20)
    crowd = Crowd(gate_class(limit))  # type: ignore[arg-type]
    await crowd.come("old", key="x")
    for batch in range(4):
        names = [(batch, number) for number in range(12)]
        await crowd.come(*names, key="x")
        standing.now_s += 0.11
        await crowd.leave(*names)
    await crowd.leave("old")
    assert len(limit.windows) >= 3
    assert max(rtt_s for window in limit.windows for rtt_s in window.rtts_s) < 0.4
    await crowd.end()


async def test_bare_entries_are_measured_by_their_tasks(gate_class: type[Gate], standing: Any) -> None:
    crowd = Crowd(gate_class(50))
    names = range(40)
    await crowd.come(*names)
    standing.now_s += 0.3
    await crowd.leave(*names)
    found = crowd.gate.statistics().service
    assert found.count == 16
    assert found.mean_s == pytest.approx(0.3)


async def test_permits_given_back_by_other_tasks_do_not_stop_the_measuring(
    gate_class: type[Gate], standing: Any
) -> None:
    gate = gate_class(50)
    await asyncio.gather(*(asyncio.ensure_future(gate.enter()) for _ in range(20)))
    for _ in range(20):
        gate.leave()
    for _ in range(100):
        async with gate:
            standing.now_s += 0.2
    assert gate.statistics().service.count > 20
    assert gate.statistics().service.max_s == pytest.approx(0.2)


async def test_work_that_time_ran_out_for_counts_as_dropped(gate_class: type[Gate]) -> None:
    gate = gate_class(9)
    crowd = Crowd(gate)
    await crowd.come("bare")
    await crowd.come("entry", key="x")
    await crowd.cancel("bare", "entry")
    assert gate.dropped == 2


def test_gates_are_listed_while_they_live() -> None:
    first, second = penstock.Gate(1, name="twice"), pressure.Gate(2, name="twice")
    assert [gate for gate in gates() if gate.name == "twice"] == [first, second] or [second, first]
    assert {statistics()[name].limit for name in ("twice", "twice (2)")} == {1, 2}
    gone = weakref.ref(second)
    del second
    gc.collect()
    assert gone() is None
    assert "twice (2)" not in statistics()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "limit",
            "gate 'db' has no permit free (limit 4, 2 queued): raise its limit, or let entries wait by max_wait_s",
        ),
        ("expired", "gate 'db' had no permit within 0.05 s (limit 4, 2 queued)"),
        ("memory", "gate 'db' sheds (memory; limit 4, 2 queued)"),
    ],
)
def test_a_refusal_says_what_was_met_and_the_way_out(reason: str, words: str) -> None:
    problem = Overloaded(None, reason=reason, queued=2, limit=4, retry_after_s=0.25, queue_age_s=0.05, gate="db")
    assert str(problem).startswith(words)
    assert str(problem).endswith("; try again in 0.25 s")
    assert repr(problem) == f"Overloaded({str(problem)!r}, reason={reason!r})"


def test_a_refusal_travels() -> None:
    problem = pickle.loads(pickle.dumps(Overloaded("no", reason="share", queued=3, retry_after_s=1.5)))
    assert (str(problem), problem.reason, problem.queued, problem.limit) == ("no", "share", 3, 0)
    assert (problem.retry_after_s, problem.queue_age_s, problem.gate) == (1.5, 0.0, "")
