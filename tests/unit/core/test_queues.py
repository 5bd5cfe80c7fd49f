"""Ready ring and timer heap against models of a few lines."""

import asyncio
import heapq
import math
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
    assert timers_at(7.0, 8.5, 9.0, slack_s=1.0).next_wake() == 7.0


def test_timers_within_the_slack_of_the_first_end_one_wait_at_the_last_of_them() -> None:
    assert timers_at(9.5, 7.75, 7.0, 7.5, 8.25, slack_s=1.0).next_wake() == 7.75


def test_without_slack_each_time_ends_a_wait() -> None:
    assert timers_at(7.25, 7.0, 7.0, slack_s=0.0).next_wake() == 7.0


def test_too_many_timers_to_look_at_are_woken_for_at_the_end_of_the_slack() -> None:
    assert timers_at(*(7.0 + number / 1000 for number in range(500)), slack_s=1.0).next_wake() == 8.0


@steady
@given(st.lists(st.integers(0, 60), min_size=1, max_size=25), st.integers(0, 30))
def test_the_wake_is_the_latest_time_within_the_slack(times: list[int], slack: int) -> None:
    timers = timers_at(*map(float, times), slack_s=float(slack))
    assert timers.next_wake() == max(time for time in times if time <= min(times) + slack)
