"""Tests of the other limits, of the choice of a limit, and of their shared arithmetic."""

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pressure.limits import Aimd, Fixed, Gradient, Gradient2, Limit, Vegas, Window, make_limit
from penstock.pressure.limits.correlation import Correlation, pearson, variation
from penstock.pressure.limits.floor import Floor
from penstock.pressure.limits.reading import Reading, median
from tests.unit.pressure.simulation import CpuService, IoService, Phase, simulate
from tests.unit.pressure.test_gradient import quick, windows

ADAPTIVE = [Gradient, Aimd, Vegas, Gradient2]


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (7, Fixed),
        ("7", Fixed),
        ("auto", Gradient),
        (" Auto ", Gradient),
        ("gradient", Gradient),
        ("vegas", Vegas),
        ("aimd", Aimd),
        ("gradient2", Gradient2),
    ],
)
def test_a_word_or_a_number_names_a_limit(spec: int | str, kind: type) -> None:
    assert type(make_limit(spec)) is kind


def test_a_limit_of_ones_own_is_itself() -> None:
    class Own:
        value, reason, window_s = 3, "mine", 1.0

        def update(self, window: Window) -> int:
            return self.value

    own = Own()
    assert make_limit(own) is own


@pytest.mark.parametrize("spec", [0, -1, True, "0", "fast", "-1", "1.5", "", 1.5, None, object()])
def test_an_invalid_limit_is_refused_with_the_allowed_ones(spec: object) -> None:
    with pytest.raises(ValueError, match=r"limit = .*: (allowed is|a fixed limit is) a whole number of at least 1"):
        make_limit(spec)  # type: ignore[arg-type]


def test_a_fixed_limit_stands_and_wants_no_windows() -> None:
    limit = Fixed(5)
    assert limit.update(quick(rtts_s=[9.0] * 40, dropped=30, was_full=True)) == 5
    assert (limit.window_s, limit.reason) == (inf, "fixed")


@pytest.mark.parametrize("kind", [Fixed, *ADAPTIVE])
def test_every_limit_keeps_the_contract(kind: type) -> None:
    limit = Fixed(4) if kind is Fixed else kind()
    assert isinstance(limit, Limit)
    assert limit.reason
    assert limit.window_s > 0


@pytest.mark.parametrize("kind", [Aimd, Vegas, Gradient2])
@settings(max_examples=40, deadline=None)
@given(st.lists(windows, max_size=20))
def test_no_windows_move_a_limit_out_of_its_bounds(kind: type, row: list[Window]) -> None:
    limit = kind()
    for window in row:
        assert 1 <= limit.update(window) == limit.value <= 1000


@pytest.mark.parametrize("kind", [Aimd, Vegas, Gradient2, Gradient])
def test_an_idle_service_does_not_raise_a_limit(kind: type) -> None:
    limit = kind()
    before = limit.value
    for _ in range(200):
        limit.update(quick(most_inflight=2, inflight=0))
    assert limit.value == before


@pytest.mark.parametrize("kind", [Gradient, Aimd, Vegas])
def test_the_same_windows_make_the_same_moves(kind: type) -> None:
    def moves() -> list[int]:
        random, limit = Random(3), kind()
        return [
            limit.update(quick(rtts_s=[random.random() / 10 for _ in range(20)], was_full=True, most_inflight=30))
            for _ in range(100)
        ]

    assert moves() == moves()


@pytest.mark.parametrize("kind", [Aimd, Vegas, Gradient2])
@pytest.mark.parametrize("wrong", [{"initial": 0}, {"least": 500}, {"most": 2}])
def test_impossible_bounds_are_refused(kind: type, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must ascend from 1"):
        kind(**wrong)


def test_aimd_backs_off_by_a_tenth_and_grows_by_one() -> None:
    limit = Aimd(20)
    assert limit.update(quick(rtts_s=[0.06] * 10)) == 18
    assert limit.reason == "latency 60.0 ms, above 50 ms"
    assert limit.update(quick(dropped=1)) == 16
    assert limit.reason == "1 dropped"
    assert limit.update(quick(most_inflight=16)) == 17
    assert limit.update(quick(most_inflight=3)) == 17


def test_vegas_moves_by_the_queue_it_estimates() -> None:
    limit = Vegas(20)
    limit.update(quick(most_inflight=20))
    assert (limit.value, limit.reason) == (27, "no queue to speak of (0)")
    limit.update(quick(most_inflight=27, rtts_s=[0.0112] * 10))
    assert (limit.value, limit.reason) == (29, "a short queue (3)")
    limit.update(quick(most_inflight=29, rtts_s=[0.02] * 10))
    assert (limit.value, limit.reason) == (27, "a long queue (15)")
    limit.update(quick(most_inflight=27, dropped=2))
    assert (limit.value, limit.reason) == (26, "2 dropped")


def test_gradient2_falls_when_latency_leaves_its_long_average() -> None:
    limit = Gradient2(100)
    for _ in range(20):
        limit.update(quick(most_inflight=100))
    before = limit.value
    limit.update(quick(most_inflight=before, rtts_s=[0.1] * 10))
    assert limit.value < before
    assert limit.reason.endswith("x its average")


@pytest.mark.parametrize("kind", [Gradient2, Vegas])
def test_established_limits_do_not_follow_a_dependency_that_turns_slower(kind: type) -> None:
    """With four slots and 10 ms that become 40 ms, a limit that stays at 20 serves no call in time."""

    def goodput(limit: Limit) -> float:
        service = IoService(4, lambda now_s: 0.01 if now_s < 2 else 0.04)
        return simulate(limit, service, [Phase(2, 240, 400), Phase(4, 240, 100)]).goodput(1)

    assert goodput(kind()) < 0.2 < 0.8 < goodput(Gradient())


def test_established_limits_do_not_follow_a_busy_loop() -> None:
    """Vegas takes the latency of a queue as its floor, and climbs."""

    def goodput(limit: Limit) -> float:
        return simulate(limit, CpuService(), [Phase(5, 2000, 400)], max_wait_s=0.05).goodput(settle_s=2)

    assert goodput(Vegas()) < 0.2 < 0.95 < goodput(Gradient())


def test_correlation_is_pearsons() -> None:
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert pearson([1, 2, 3], [5, 5, 5]) == 0
    assert pearson([], []) == 0
    assert variation([1, 3]) == pytest.approx(0.5)
    assert variation([0, 0]) == variation([]) == 0


def filled(throughput: list[float], rtts_s: list[float]) -> Correlation:
    correlation = Correlation()
    for at, (done, rtt_s) in enumerate(zip(throughput, rtts_s, strict=True)):
        correlation.add(10 + at, done, rtt_s)
    return correlation


def test_growth_is_vetoed_by_each_of_the_three_rules() -> None:
    rising = [0.01 + at / 1000 for at in range(10)]
    level = [0.01] * 10
    assert filled([400 - at for at in range(10)], level).veto() == "more in flight brings less throughput"
    assert filled([400, 100] * 5, rising).veto() == "more in flight brings less throughput"
    assert filled([100, 400] * 5, rising).veto() == "more in flight brings no throughput"
    assert filled([400 + at for at in range(10)], rising).veto().startswith("throughput is level")
    assert not filled([40.0 * at for at in range(10, 20)], level).veto()


def test_a_limit_that_stands_still_or_has_few_windows_is_not_judged() -> None:
    assert not filled([400, 399, 398], [0.01, 0.02, 0.03]).veto()
    correlation = Correlation()
    for at in range(50):
        correlation.add(10, 400 - at, 0.01)
    assert not correlation.veto()


def test_the_true_median_is_within_the_interval_most_of_the_time() -> None:
    random = Random(1)
    within = 0
    for _ in range(300):
        found = median([random.expovariate(1) for _ in range(40)])
        within += found.low_s <= 0.6931 <= found.high_s
    assert within >= 0.82 * 300


def reading(inflight: int, throughput: float, rtt_s: float, left: int = 0) -> Reading:
    return Reading(inflight, left, round(throughput / 10), throughput, median([rtt_s] * 40), rtt_s)


def test_the_balance_distinguishes_a_queue_from_a_slow_service() -> None:
    full = reading(40, 400, 0.1)
    assert reading(20, 400, 0.05).balance(full) < -1.5
    assert reading(20, 200, 0.1).balance(full) > 1.5
    assert full.balance(reading(20, 200, 0.1)) > 1.5
    assert reading(40, 400, 0.1).balance(full) == 0


def test_the_lowest_median_is_the_floor_until_it_is_forgotten() -> None:
    floor = Floor(1.0)
    floor.add(0.5, reading(10, 400, 0.01))
    floor.add(0.5, reading(10, 400, 0.02))
    assert floor.floor_s == 0.01
    floor.add(0.6, reading(10, 400, 0.03))
    assert floor.floor_s == 0.02


def test_a_floor_is_reset_when_fewer_in_flight_do_not_lower_latency() -> None:
    floor = Floor(30.0)
    floor.add(0.1, reading(100, 10_000, 0.01))
    floor.add(0.1, reading(100, 2_500, 0.04))
    assert floor.floor_s == 0.01
    assert floor.add(0.1, reading(50, 1_250, 0.04))
    assert floor.floor_s == 0.04


def test_a_floor_stays_when_latency_follows_what_is_in_flight() -> None:
    floor = Floor(30.0)
    floor.add(0.1, reading(4, 400, 0.01))
    for inflight in (64, 40, 20, 8):
        assert not floor.add(0.1, reading(inflight, 400, inflight / 400))
    assert floor.floor_s == 0.01


def test_a_change_under_way_teaches_nothing() -> None:
    """If latency rises while fewer calls are in flight, the service is changing and the old reading is invalid."""
    floor = Floor(30.0)
    floor.add(0.1, reading(15, 130, 0.04))
    assert not floor.add(0.1, reading(10, 90, 0.125))
    assert floor.floor_s == 0.04


def test_windows_are_joined_in_order() -> None:
    joined = quick(inflight=3).joined(quick(rtts_s=[0.02], completed=1, dropped=2, most_inflight=12, was_full=True))
    assert joined.duration_s == pytest.approx(0.2)
    assert (joined.completed, joined.dropped, joined.most_inflight, joined.inflight) == (41, 2, 12, 4)
    assert joined.was_full
    assert joined.rtts_s[-1] == 0.02
