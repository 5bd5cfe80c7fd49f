"""The timer wheel against a model: a dictionary of ticks."""

import importlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._core.limits.wheel import Wheel

# seams.pyx, which has no types for Python
seams: Any = importlib.import_module("penstock._core.seams")
steady = settings(derandomize=True, deadline=None, max_examples=150, database=None)
TICK_NS = 100
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arm", "arm", "cancel", "pass"]),
        st.integers(0, 7),
        # Mostly near, at times several revolutions of 512 ticks away.
        st.one_of(st.integers(-300, 3_000), st.integers(0, 200_000)),
    ),
    max_size=120,
)


@steady
@given(st.integers(0, 10**12), STEPS)
def test_a_wheel_is_a_dictionary_of_ticks(start_ns: int, steps: list[tuple[str, int, int]]) -> None:
    wheel, now_ns, model = Wheel(TICK_NS), start_ns, {}
    deadlines = [seams.Deadline(wheel, name) for name in range(8)]
    seams.take_due(wheel, now_ns)
    for step, name, distance_ns in steps:
        if step == "arm":
            model[name] = max(-(-(now_ns + distance_ns) // TICK_NS), now_ns // TICK_NS + 1)
            deadlines[name].arm(now_ns + distance_ns)
        elif step == "cancel":
            model.pop(name, None)
            deadlines[name].cancel()
        else:
            now_ns += max(distance_ns, 0)
            expected = {name for name, tick in model.items() if tick * TICK_NS <= now_ns}
            assert set(seams.take_due(wheel, now_ns)) == expected
            model = {name: tick for name, tick in model.items() if name not in expected}
        assert len(wheel) == len(model)
        assert [deadline.armed for deadline in deadlines] == [name in model for name in range(8)]
        # Never too late, and never again without need.
        assert (wheel.next_at_ns is None) == (not model)
        assert not model or wheel.next_at_ns <= min(model.values()) * TICK_NS


def test_looking_only_when_told_to_finds_everything_on_its_tick() -> None:
    wheel, found, now_ns = Wheel(TICK_NS), {}, 0
    due_ns = {name: 37 * name * name for name in range(1, 120)}
    deadlines = {name: seams.Deadline(wheel, name) for name in due_ns}
    for name, deadline in deadlines.items():
        deadline.arm(due_ns[name])
    looks: list[int] = []
    while wheel.next_at_ns is not None:
        now_ns = wheel.next_at_ns
        looks.append(now_ns)
        found.update(dict.fromkeys(seams.take_due(wheel, now_ns), now_ns))
    assert found == {name: -(-at_ns // TICK_NS) * TICK_NS for name, at_ns in due_ns.items()}
    # Within a revolution there is no look for nothing; beyond, one for each that is met on the way.
    first = [at_ns for at_ns in found.values() if at_ns < 512 * TICK_NS]
    assert [at_ns for at_ns in looks if at_ns in first] == sorted(set(first))
    assert len(looks) <= sum(1 + at_ns // (512 * TICK_NS) for at_ns in found.values())


def test_a_deadline_that_goes_leaves_the_wheel() -> None:
    wheel = Wheel(TICK_NS)
    seams.Deadline(wheel, "gone").arm(1000)
    assert len(wheel) == 0
    assert seams.take_due(wheel, 10**6) == []
