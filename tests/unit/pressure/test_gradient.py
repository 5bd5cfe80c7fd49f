"""Tests of the gradient with simulated services: its goodput as a share of the feasible, from an initial guess."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pressure.limits import Gradient, Window, make_limit
from tests.unit.pressure.simulation import CpuService, IoService, Phase, Report, simulate

LOADS = [0.5, 1, 2, 5, 10]
CAPACITY = 400.0


def io_service(slots: int = 4, service_s: float = 0.01) -> IoService:
    return IoService(slots, lambda _: service_s)


def steady(load: float, **options: float) -> Report:
    return simulate(Gradient(), io_service(), [Phase(6, load * CAPACITY, CAPACITY)], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("load", LOADS)
def test_an_io_bound_service_does_all_it_can_at_any_load(load: float) -> None:
    report = steady(load, max_wait_s=0.05)
    assert report.goodput(settle_s=2) >= 0.95
    assert report.p99_s(settle_s=2) <= 0.08


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("lag_off", [0.0, 0.5], ids=["raw", "half the lag off"])
def test_a_cpu_bound_service_does_all_it_can_at_any_load(load: float, lag_off: float) -> None:
    phases = [Phase(6, load * CAPACITY, CAPACITY)]
    report = simulate(Gradient(), CpuService(), phases, max_wait_s=0.05, lag_off=lag_off)
    assert report.goodput(settle_s=2) >= 0.95
    assert report.p99_s(settle_s=2) <= 0.08


def test_overload_is_felt_even_where_all_of_the_loops_lag_is_taken_off() -> None:
    """Every service time is that of an idle loop; only the time for which permits are held shows the queue."""
    report = simulate(Gradient(), CpuService(), [Phase(6, 2000, CAPACITY)], max_wait_s=0.05, lag_off=1.0)
    assert report.goodput(settle_s=2) >= 0.95


@pytest.mark.parametrize("load", [2, 5, 10])
def test_without_a_queue_in_front_overload_is_served_all_the_same(load: float) -> None:
    report = steady(load)
    assert report.goodput(settle_s=2) >= 0.95
    assert report.p99_s(settle_s=2) <= 0.05


def test_without_a_queue_in_front_what_chance_brings_together_is_refused_in_part() -> None:
    """By Erlang's formula, a service with 8 permits loses some of the arrivals at its capacity."""
    goodputs = [steady(1, seed=seed).goodput(settle_s=2) for seed in (1, 2, 3)]
    assert sum(goodputs) / 3 >= 0.9


@pytest.mark.parametrize("wait_s", [0.0, 0.05])
def test_at_half_the_load_no_call_is_shed(wait_s: float) -> None:
    assert steady(0.5, max_wait_s=wait_s).refused(settle_s=2) <= 0.002


@pytest.mark.parametrize("slots", [1, 4, 20, 100, 400])
def test_a_service_of_any_width_is_found(slots: int) -> None:
    capacity = slots / 0.05
    phases = [Phase(8, 2 * capacity, capacity)]
    report = simulate(Gradient(), io_service(slots, 0.05), phases, max_wait_s=0.25, deadline_s=0.5)
    assert report.goodput(settle_s=3) >= 0.95


@pytest.mark.parametrize("load", [0.5, 2])
def test_service_times_of_any_length_leave_the_limit_near_the_width(load: float) -> None:
    """The lowest of many noisy medians would be too low a floor and would lower the limit with it."""
    random = Random(7)
    service = IoService(100, lambda _: random.expovariate(100))
    report = simulate(Gradient(), service, [Phase(5, load * 10_000, 10_000)], max_wait_s=0.05)
    assert report.goodput(settle_s=2) >= 0.9


def spike(limit: Gradient) -> Report:
    phases = [Phase(2, 200, CAPACITY), Phase(3, 2000, CAPACITY), Phase(4, 200, CAPACITY)]
    return simulate(limit, io_service(), phases, max_wait_s=0.05)


def test_a_spike_is_served_and_over_at_once() -> None:
    report = spike(Gradient())
    assert report.goodput(1) >= 0.93
    assert report.goodput(2, settle_s=0.25) >= 0.98


def slow_dependency(slots: int, seed: int) -> Report:
    capacity = slots * 100.0
    phases = [
        Phase(2, 0.6 * capacity, capacity),
        Phase(4, 0.6 * capacity, capacity / 4),
        Phase(3, 0.6 * capacity, capacity),
    ]
    service = IoService(slots, lambda now_s: 0.04 if 2 <= now_s < 6 else 0.01)
    return simulate(Gradient(), service, phases, max_wait_s=0.05, seed=seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_dependency_that_turns_four_times_slower_is_followed_within_a_second(seed: int) -> None:
    report = slow_dependency(4, seed)
    assert report.goodput(1) >= 0.87
    assert report.goodput(1, settle_s=1) >= 0.92
    assert report.goodput(2) >= 0.97


def test_a_wide_service_that_turns_slower_keeps_its_width() -> None:
    """With the old floor alone the limit would fall to 4, which is 4 % of the feasible, until it is forgotten."""
    report = slow_dependency(100, 1)
    assert report.goodput(1, settle_s=1) >= 0.9
    assert report.limit_range(4, 6)[0] > 60
    assert report.goodput(2) >= 0.97


def test_a_slow_start_is_forgotten() -> None:
    """The service is ten times slower while it warms up; the limit has recovered two seconds later."""
    service = IoService(20, lambda now_s: 0.1 if now_s < 2 else 0.01)
    phases = [Phase(2, 1600, 200), Phase(2, 1600, 2000), Phase(4, 1600, 2000)]
    report = simulate(Gradient(), service, phases, max_wait_s=0.05)
    assert report.goodput(2) >= 0.97


def test_a_start_under_overload_does_not_poison_the_floor() -> None:
    """No call ever meets an empty service; probes below the limit find the latency without a queue."""
    limit = Gradient(initial=100)
    report = simulate(limit, io_service(), [Phase(6, 4000, CAPACITY)], max_wait_s=0.05)
    assert limit.floor_s < 0.015
    assert report.goodput(settle_s=3) >= 0.95


def test_lasting_overload_does_not_move_the_limit_up() -> None:
    """This holds beyond the floor's memory too, because each probe confirms the floor."""
    limit = Gradient(memory_s=5.0)
    report = simulate(limit, io_service(), [Phase(25, 1200, CAPACITY)], max_wait_s=0.05)
    assert report.limit_range(15, 25)[1] <= 12
    assert report.goodput(settle_s=10) >= 0.95


def test_a_quiet_service_does_not_raise_its_limit() -> None:
    limit = Gradient(initial=20)
    report = simulate(limit, io_service(), [Phase(30, 40, CAPACITY)])
    assert report.limit_range() == (20, 20)


def test_a_limit_stays_within_reach_of_what_was_in_flight() -> None:
    limit = Gradient()
    for _ in range(300):
        limit.update(quick(most_inflight=12))
    assert limit.value <= 2 * 12


def quick(**changes: object) -> Window:
    values: dict[str, object] = {
        "duration_s": 0.1,
        "rtts_s": [0.01] * 40,
        "completed": 40,
        "most_inflight": 10,
        "inflight": 4,
        "was_full": False,
    }
    return Window(**(values | changes))  # type: ignore[arg-type]


def test_a_cold_first_window_is_no_floor_for_long() -> None:
    limit = Gradient()
    limit.update(quick(rtts_s=[0.04] * 10))
    assert limit.floor_s == pytest.approx(0.04)
    limit.update(quick())
    assert limit.floor_s == pytest.approx(0.01)


def test_windows_of_few_samples_are_put_together() -> None:
    limit = Gradient()
    for _ in range(4):
        assert limit.update(quick(rtts_s=[0.01] * 2, completed=2, inflight=0)) == 10
    assert limit.floor_s == 0.0
    limit.update(quick(rtts_s=[0.01] * 2, completed=2, inflight=0))
    assert limit.floor_s == pytest.approx(0.01)


def full(rtts_s: Sequence[float] = (), **changes: object) -> Window:
    """Return a window that ends at 10 s, of calls that began one after another."""
    begins_s = [index * 0.001 for index in range(len(rtts_s))]
    return quick(**({"rtts_s": rtts_s, "begins_s": begins_s, "ended_s": 10.0, "was_full": True} | changes))


def test_before_the_first_answer_a_full_limit_doubles_up_to_a_hundred() -> None:
    limit = Gradient()
    assert [limit.when_full(full(completed=0)) for _ in range(6)] == [20, 40, 80, 100, 100, 100]
    assert limit.reason == "no answer yet"


def test_an_initial_limit_that_is_larger_is_not_exceeded_before_the_first_answer() -> None:
    limit = make_limit("auto", initial=300)
    assert limit.value == 300
    assert isinstance(limit, Gradient)
    assert limit.when_full(full(completed=0)) == 300


def test_answers_that_take_longer_the_later_they_began_end_the_growth() -> None:
    limit = Gradient()
    assert limit.when_full(full([0.01 * (1 + index) for index in range(12)])) == 10


def test_a_mixture_of_quick_and_slow_answers_does_not_end_the_growth() -> None:
    limit = Gradient()
    assert limit.when_full(full([0.002, 0.5] * 6)) == 20


def test_the_limit_doubles_again_only_when_calls_that_began_since_have_ended() -> None:
    limit = Gradient()
    limit.update(quick(duration_s=10.0, rtts_s=[3.0] * 40, inflight=10))
    slow = full([3.0] * 20, duration_s=3.0, inflight=10)
    assert limit.when_full(slow) == 20
    assert limit.when_full(slow) == 20
    assert limit.when_full(replace(slow, begins_s=[10.5] * 20, ended_s=14.0)) == 40
    assert limit.reason == "no queue met"


def test_a_queue_at_the_start_is_seen_against_the_first_answers() -> None:
    """The service was empty at first: the earliest calls give the floor, and the limit falls at once."""
    limit = Gradient(initial=100)
    limit.update(full([0.01 * (1 + index // 4) for index in range(40)], inflight=90))
    assert limit.floor_s == pytest.approx(0.02, rel=0.5)
    assert limit.value < 30
    assert limit.reason.startswith("latency rises to")


def test_a_queue_is_met_only_where_both_the_median_and_the_mean_have_risen() -> None:
    """The median of a mix of two kinds of calls jumps between the two latencies."""
    usual = [0.002] * 11 + [0.5] * 9
    limit = Gradient(20)
    for rtts_s in (usual, usual, [0.002] * 9 + [0.5] * 11):
        limit.update(quick(duration_s=2.0, rtts_s=rtts_s, completed=20, inflight=2))
    assert limit.value >= 20
    limit.update(quick(duration_s=4.0, rtts_s=[1.0] * 20, completed=20, inflight=2))
    assert limit.value < 20


def test_a_limit_says_why_it_fell() -> None:
    limit = Gradient()
    limit.update(quick(most_inflight=5))
    limit.update(quick(rtts_s=[0.031] * 40))
    assert limit.value < 10
    assert limit.reason == "latency 3.1x its floor"


def test_dropped_calls_halve_the_limit() -> None:
    limit = Gradient()
    limit.update(quick())
    limit.update(quick(completed=12, dropped=30))
    assert (limit.value, limit.reason) == (5, "30 of 42 calls were dropped")


def test_growth_that_brings_no_throughput_is_vetoed() -> None:
    """Latency stays at its floor, as without the loop's lag; only throughput shows the queue."""
    limit = Gradient()
    for _ in range(60):
        limit.update(quick(most_inflight=limit.value, completed=4000 - limit.value, inflight=0, was_full=True))
        if limit.reason.startswith("growth vetoed"):
            break
    assert limit.reason == "growth vetoed: more in flight brings less throughput"
    value = limit.value
    assert limit.update(quick(most_inflight=value, completed=4000 - value, was_full=True)) == value


@pytest.mark.parametrize("wrong", [{"initial": 0}, {"least": 11}, {"most": 9}, {"tolerance": 1.0}, {"window_s": 0.0}])
def test_impossible_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must ascend|above"):
        Gradient(**wrong)  # type: ignore[arg-type]


windows = st.builds(
    Window,
    duration_s=st.floats(0, 1e4),
    rtts_s=st.lists(st.floats(0, 1e4), max_size=30),
    completed=st.integers(0, 10**6),
    dropped=st.integers(0, 100),
    most_inflight=st.integers(0, 2000),
    inflight=st.integers(0, 2000),
    was_full=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(windows, max_size=20), st.integers(1, 1000))
def test_no_windows_move_it_out_of_its_bounds(row: list[Window], initial: int) -> None:
    limit = Gradient(initial)
    for window in row:
        assert 1 <= limit.update(window) == limit.value <= 1000
        assert limit.reason
