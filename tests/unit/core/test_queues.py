"""Ready ring and timer heap against models of a few lines."""

import asyncio
import heapq
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
