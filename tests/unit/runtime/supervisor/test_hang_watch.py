"""The judgement of a hang: only time that the supervisor has observed counts, for one callback or for silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.supervisor.health.hang_watch import MOST_STEP_NS, HangWatch
from penstock.runtime.supervisor.health.page import DRAINING, SERVING, STARTING, HealthReading

TICK_NS = 250_000_000
BEGIN_NS = 5_000_000_000_000
HOUR_NS = 3600 * 10**9
# the time since the last check; whether another callback runs, whether the page was written, and the state
CHECKS = st.lists(
    st.tuples(
        st.integers(0, 3 * MOST_STEP_NS) | st.integers(0, HOUR_NS),
        st.booleans(),
        st.booleans(),
        st.sampled_from([STARTING, SERVING, SERVING, SERVING, DRAINING]),
    ),
    max_size=40,
)


def reading(written_ns: int, callback_since_ns: int = 0, state: int = SERVING, turn_since_ns: int = 0) -> HealthReading:
    return HealthReading(state, written_ns, turn_since_ns, callback_since_ns, 1, 0, 0, 0)


def test_one_callback_counts_for_as_long_as_it_was_observed() -> None:
    watch = HangWatch()
    for tick in range(1, 41):
        now_ns = BEGIN_NS + tick * TICK_NS
        assert watch.check(reading(now_ns, BEGIN_NS), now_ns) == tick * TICK_NS / 1e9


def test_a_turn_of_callbacks_that_end_is_busy() -> None:
    watch = HangWatch()
    for tick in range(1, 100):
        now_ns = BEGIN_NS + tick * TICK_NS
        assert watch.check(reading(now_ns, now_ns - 1000, turn_since_ns=BEGIN_NS), now_ns) < 0.001


def test_a_page_that_is_not_written_counts_until_it_is_written() -> None:
    watch = HangWatch()
    hung_s = [watch.check(reading(BEGIN_NS), BEGIN_NS + tick * TICK_NS) for tick in range(1, 41)]
    assert hung_s == sorted(hung_s)
    assert 10 - 0.75 <= hung_s[-1] <= 10
    now_ns = BEGIN_NS + 41 * TICK_NS
    assert watch.check(reading(now_ns), now_ns) == 0


def test_a_worker_that_starts_never_hangs() -> None:
    watch = HangWatch()
    for tick in range(1, 100):
        assert watch.check(reading(BEGIN_NS, BEGIN_NS, STARTING), BEGIN_NS + tick * TICK_NS) == 0


def test_a_page_that_was_never_written_is_no_hang() -> None:
    watch = HangWatch()
    for tick in range(1, 100):
        assert watch.check(reading(0), BEGIN_NS + tick * TICK_NS) == 0


@pytest.mark.parametrize("callback_since_ns", [0, BEGIN_NS], ids=["silent", "callback"])
def test_an_hour_in_which_the_supervisor_was_stopped_counts_for_one_step(callback_since_ns: int) -> None:
    watch = HangWatch()
    watch.check(reading(BEGIN_NS, callback_since_ns), BEGIN_NS)
    assert watch.check(reading(BEGIN_NS, callback_since_ns), BEGIN_NS + HOUR_NS) <= MOST_STEP_NS / 1e9


@given(CHECKS)
def test_no_worker_hangs_for_longer_than_was_observed(checks: list[tuple[int, bool, bool, int]]) -> None:
    watch = HangWatch()
    now_ns = written_ns = callback_ns = began_ns = BEGIN_NS
    # of the longest span that may count: all steps since the callback or the silence began
    callback_seen_ns = silence_seen_ns = 0
    for step_ns, is_new, is_written, state in checks:
        now_ns += step_ns
        counted_ns = min(now_ns - began_ns, min(step_ns, MOST_STEP_NS)) if step_ns else 0
        callback_ns = now_ns if is_new else callback_ns
        written_ns = now_ns if is_written else written_ns
        callback_seen_ns = 0 if is_new or state == STARTING else callback_seen_ns + counted_ns
        silence_seen_ns = 0 if is_written or state == STARTING else silence_seen_ns + counted_ns
        hung_s = watch.check(reading(written_ns, callback_ns, state), now_ns)
        # the first check of a watch does not know how long ago the last one was
        most_ns = max(callback_seen_ns, silence_seen_ns) + MOST_STEP_NS
        assert 0 <= hung_s * 1e9 <= most_ns + 1
        assert hung_s * 1e9 <= now_ns - min(callback_ns, written_ns) + 1
        assert state != STARTING or hung_s == 0


@given(st.lists(st.integers(-HOUR_NS, HOUR_NS), max_size=20))
def test_a_clock_that_goes_back_is_no_hang_of_negative_length(steps: list[int]) -> None:
    watch, now_ns = HangWatch(), BEGIN_NS
    for step_ns in steps:
        now_ns = max(now_ns + step_ns, 0)
        assert watch.check(reading(BEGIN_NS, BEGIN_NS), now_ns) >= 0
