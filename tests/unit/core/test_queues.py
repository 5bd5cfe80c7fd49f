"""Ready ring and timer heap against models of a few lines."""

import asyncio
import heapq
import math
import sys
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._core.events.ready import Ready
from penstock._core.events.timers import Timers
from penstock.loop import EventLoop

steady = settings(derandomize=True, deadline=None, max_examples=60, database=None)
LOOP = EventLoop()
HANDLE = Timers().set(0.0, LOOP, print)
LOOP.close()


@steady
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 900)), max_size=30))
def test_the_ring_is_a_deque(steps: list[tuple[bool, int]]) -> None:
    ring, model, timers = Ready(), deque(), Timers()
    for is_append, count in steps:
        for _ in range(count):
            if is_append:
                model.append(timers.set(0.0, LOOP, print))
                ring.append(model[-1])
            elif model:
                assert ring.popleft() is model.popleft()
        assert len(ring) == len(model)
    assert ring.snapshot() == list(model)


@steady
@given(st.lists(st.tuples(st.sampled_from(["set", "cancel", "due"]), st.integers(0, 40)), max_size=400))
def test_timers_are_a_heap_of_time_and_number(steps: list[tuple[str, int]]) -> None:
    timers, model, alive = Timers(), [], {}
    for number, (step, value) in enumerate(steps):
        if step == "set":
            alive[number] = timers.set(float(value), LOOP, print)
            heapq.heappush(model, (float(value), number))
        elif step == "cancel" and alive:
            alive.pop(sorted(alive)[value % len(alive)]).cancel()
        elif step == "due":
            expected = []
            while model and model[0][0] < value:
                expected.append(alive.pop(heapq.heappop(model)[1], None))
            due = timers.due(float(value))
            wanted = [handle for handle in expected if handle is not None]
            assert len(due) == len(wanted)
            assert all(a is b for a, b in zip(due, wanted, strict=True))
        assert len(timers) <= 2 * len(alive) + 101


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    kept = [timers.set(float(number), LOOP, print) for number in range(10)]
    for handle in [timers.set(float(number), LOOP, print) for number in range(5000)]:
        handle.cancel()
    assert len(timers) <= 2 * len(kept) + 101
    assert isinstance(kept[0], asyncio.TimerHandle)


def timers_at(*times_s: float, slack_s: float) -> Timers:
    timers = Timers()
    timers.slack_s = slack_s
    for when_s in times_s:
        timers.set(when_s, LOOP, print)
    return timers


def test_without_timers_there_is_no_time_to_wake() -> None:
    assert Timers().next_wake() == math.inf


def test_a_timer_alone_is_woken_for_at_its_time() -> None:
    assert timers_at(7.0, 8.5, 9.0, slack_s=1.0).next_wake(6.9) == 7.0


def test_timers_within_the_slack_of_the_first_end_one_wait_at_the_last_of_them() -> None:
    assert timers_at(9.5, 7.75, 7.0, 7.5, 8.25, slack_s=1.0).next_wake(6.9) == 7.75


def test_without_slack_each_time_ends_a_wait() -> None:
    assert timers_at(7.25, 7.0, 7.0, slack_s=0.0).next_wake() == 7.0


def test_too_many_timers_to_look_at_are_woken_for_at_the_end_of_the_slack() -> None:
    assert timers_at(*(7.0 + number / 1000 for number in range(500)), slack_s=1.0).next_wake(6.9) == 8.0


@steady
@given(st.lists(st.integers(0, 60), min_size=1, max_size=25), st.integers(0, 30))
def test_the_wake_is_the_latest_time_within_the_slack(times: list[int], slack: int) -> None:
    timers, first = timers_at(*map(float, times), slack_s=float(slack)), min(times)
    assert timers.next_wake(first - 0.1) == max(time for time in times if time <= first + slack)


# Times at the edges of ticks (a quarter of a second) and of the wheel's levels (16 s, 17 min, 18 h ...), and beyond it.
EDGES_S = [0.0, 0.25, 15.75, 16.0, 16.25, 1023.75, 1024.0, 65536.0, 64.0**4 / 4, 64.0**5 / 4, 64.0**6 / 4, math.inf]
times_s = st.one_of(st.floats(-10, 1e5, allow_nan=False), st.sampled_from(EDGES_S), st.integers(0, 70_000).map(float))


class Model:
    """Timers as a list that is sorted at each look."""

    def __init__(self) -> None:
        self.pending: dict[int, tuple[float, object]] = {}

    def due(self, end_s: float) -> list[object]:
        keys = sorted((when, number) for number, (when, _) in self.pending.items() if when < end_s)
        return [self.pending.pop(number)[1] for _, number in keys]


@settings(steady, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["set", "set", "cancel", "due", "step"]), times_s), max_size=120))
def test_far_timers_fire_in_order_whatever_their_distance(steps: list[tuple[str, float]]) -> None:
    timers, model, now_s = Timers(), Model(), 0.0
    for number, (step, value) in enumerate(steps):
        if step == "set":
            model.pending[number] = value, timers.set(value, LOOP, print)
        elif step == "cancel" and model.pending:
            model.pending.pop(sorted(model.pending)[int(min(abs(value), 1e6)) % len(model.pending)])[1].cancel()
        else:
            now_s = max(now_s, value) if step == "due" else now_s + 0.3
            due, wanted = timers.due(now_s), model.due(now_s)
            assert len(due) == len(wanted)
            assert all(a is b for a, b in zip(due, wanted, strict=True))
        first_s = min((when for when, _ in model.pending.values()), default=math.inf)
        assert timers.next_wake(now_s) <= first_s
        assert {id(handle) for _, handle in model.pending.values()} <= {id(handle) for handle in timers.snapshot()}
    assert len(timers.due(math.inf)) == sum(when < math.inf for when, _ in model.pending.values())


def test_a_wake_for_a_far_timer_comes_at_its_time_and_not_at_each_tick() -> None:
    timers, handle = Timers(), None
    for when_s in (5000.0, 90_000.0):
        handle = timers.set(when_s, LOOP, print)
    assert timers.next_wake() == 5000.0
    assert timers.due(5001.0) and timers.next_wake() == 90_000.0
    assert handle is not None
    handle.cancel()
    assert timers.next_wake() == math.inf


def test_a_far_timer_leaves_when_it_is_cancelled() -> None:
    timers = Timers()
    handles = [timers.set(60.0 + number % 977, LOOP, print) for number in range(5000)]
    assert timers.far_count == 5000
    for left, handle in enumerate(reversed(handles)):
        assert len(timers) == 5000 - left
        handle.cancel()
    assert len(timers) == 0 and timers.snapshot() == []


def test_timers_give_their_references_back_when_they_are_dropped() -> None:
    argument = object()
    before = sys.getrefcount(argument)
    loop = EventLoop()
    for number in range(1000):
        loop.call_later(number * 10.0, print, argument)
    assert sys.getrefcount(argument) == before + 1000
    loop.close()
    assert sys.getrefcount(argument) == before
