"""call_later and call_at: order, cancelling, memory, clocks that the user replaced."""

import asyncio
import gc
import math
import weakref
from decimal import Decimal
from fractions import Fraction

import pytest

from penstock.loop import NATIVE, EventLoop
from tests.support.clocks import HandClock

numpy = pytest.importorskip("numpy", reason="numpy is not there yet for this Python")


@pytest.fixture
def clock(loop, monkeypatch):
    """A clock that the test moves: on a loop it makes timers exact."""
    manual = HandClock()
    monkeypatch.setattr(loop, "time", manual)
    return manual


def test_timers_fire_in_the_order_of_their_times(loop, turn, clock):
    fired = []
    for delay in (5, 1, 4, 2, 3):
        loop.call_later(delay, fired.append, delay)
    clock.now_s += 10
    turn()
    assert fired == [1, 2, 3, 4, 5]


def test_no_timer_fires_before_its_time(loop, turn, clock):
    fired = []
    for delay in (1, 2, 3):
        loop.call_later(delay, fired.append, delay)
    for expected in ([1], [1, 2], [1, 2, 3]):
        clock.now_s += 1
        turn()
        assert fired == expected


def test_a_clock_patched_on_the_instance_moves_the_timers(loop, turn, clock):
    fired = []
    handle = loop.call_later(3600, fired.append, "hour")
    assert handle.when() == 4600.0
    turn()
    assert fired == []
    clock.now_s += 3601
    turn()
    assert fired == ["hour"]


def test_a_clock_overridden_by_a_subclass_moves_the_timers(loop_factory):
    class Warped(loop_factory):
        offset_s = 0.0

        def time(self) -> float:
            return super().time() + self.offset_s

    loop = Warped()
    fired = []
    loop.call_later(3600, fired.append, "hour")
    loop.call_later(3600, loop.stop)
    loop.call_soon(setattr, loop, "offset_s", 3601.0)
    loop.run_forever()
    loop.close()
    assert fired == ["hour"]


def test_a_timer_runs_at_its_absolute_time(loop):
    fired_at = []
    when = loop.time() + 0.02
    handle = loop.call_at(when, lambda: (fired_at.append(loop.time()), loop.stop()))
    assert handle.when() == when
    loop.run_forever()
    assert fired_at[0] >= when - 0.002


def test_equal_times_all_fire_in_one_turn(loop, turn, clock):
    fired = []
    for number in range(100):
        loop.call_at(1005.0, fired.append, number)
    clock.now_s = 1005.0
    turn()
    assert sorted(fired) == list(range(100))


@pytest.mark.parametrize("delay", [0, -1, -1e9])
def test_a_delay_that_is_over_fires_in_the_next_turn(loop, turn, delay):
    fired = []
    loop.call_later(delay, fired.append, "now")
    turn()
    assert fired == ["now"]


def test_a_due_timer_runs_after_what_was_ready_before(loop, turn, clock):
    order = []
    loop.call_later(1, order.append, "timer")
    loop.call_soon(order.append, "ready")
    clock.now_s += 2
    turn()
    assert order == ["ready", "timer"]


def test_a_cancelled_timer_never_fires(loop, turn, clock):
    fired = []
    handles = [loop.call_later(1, fired.append, number) for number in range(10)]
    for handle in handles[1::2]:
        handle.cancel()
    assert handles[1].cancelled() and not handles[0].cancelled()
    clock.now_s += 2
    turn()
    assert sorted(fired) == [0, 2, 4, 6, 8]


def test_a_timer_cancelled_by_another_of_the_same_turn_does_not_fire(loop, turn, clock):
    fired = []
    later = []
    loop.call_later(1, lambda: later[0].cancel())
    later.append(loop.call_later(2, fired.append, "never"))
    clock.now_s += 3
    turn()
    assert fired == []


def test_cancelling_a_timer_after_it_fired_is_harmless(loop, turn, clock):
    handle = loop.call_later(1, int)
    others = [loop.call_later(60, int) for _ in range(200)]
    clock.now_s += 2
    turn()
    handle.cancel()
    for other in others:
        other.cancel()
    turn()


def test_an_infinite_delay_never_fires_and_never_stops_the_others(loop):
    fired = []
    forever = loop.call_later(float("inf"), fired.append, "never")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert fired == []
    assert forever.when() == float("inf")
    forever.cancel()


def test_a_delay_of_years_does_not_overflow(loop):
    handle = loop.call_later(1e12, int)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    handle.cancel()


@pytest.mark.parametrize(
    "delay",
    [True, False, -math.inf, -1e300, Fraction(1, 1000), numpy.float64(1e-3), numpy.float32(1e-3), numpy.int64(0)],
    ids=repr,
)
def test_any_kind_of_number_is_a_delay(loop, delay):
    loop.call_later(delay, loop.stop)
    loop.run_forever()
    when = loop.time() + delay
    handle = loop.call_at(when, loop.stop)
    assert handle.when() == when
    loop.run_forever()


@pytest.mark.parametrize("when", [0, True, 10**15, Fraction(1, 3), numpy.float64(0.5), Decimal("0.5")], ids=repr)
def test_a_timer_tells_its_time_as_the_very_number_that_was_given(loop, when):
    loop.call_later(0, loop.stop)
    loop.run_forever()
    handle = loop.call_at(when, loop.stop)
    assert handle.when() is when
    assert f"when={when}" in repr(handle)
    handle.cancel()
    after = loop.call_later(1, loop.stop)
    assert type(after.when()) is float
    after.cancel()


@pytest.mark.parametrize("delay", [math.inf, 1e300, 10**300, 2**63], ids=str)
def test_a_delay_longer_than_any_run_stops_no_other_timer(loop, delay):
    handles = [loop.call_later(delay, pytest.fail, "fired"), loop.call_at(float(delay), pytest.fail, "fired")]
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    for handle in handles:
        handle.cancel()


@pytest.mark.parametrize("delay", ["1", b"1", [], Decimal(1)], ids=repr)
def test_what_cannot_be_added_to_a_float_is_no_delay(loop, delay):
    with pytest.raises(TypeError):
        loop.call_later(delay, int)


def test_a_number_too_large_for_a_float_is_no_delay(loop):
    with pytest.raises(OverflowError):
        loop.call_later(10**400, int)


@pytest.mark.skipif(not NATIVE, reason="the pure loop's timers are asyncio's")
@pytest.mark.parametrize("nan", [math.nan, numpy.float64("nan"), numpy.float32("nan"), -math.nan], ids=repr)
def test_nan_is_refused_and_stops_no_other_timer(nan):
    """asyncio takes it into its heap, whose order is lost: timers beside it fire late or never. uvloop refuses it."""
    loop = EventLoop()

    async def main():
        other = asyncio.create_task(asyncio.sleep(0.001, "ended"))
        with pytest.raises(ValueError, match="NaN"):
            loop.call_later(nan, int)
        with pytest.raises(ValueError, match="NaN"):
            loop.call_at(nan, int)
        with pytest.raises(ValueError, match="NaN"):
            async with asyncio.timeout(nan):
                pass
        with pytest.raises(ValueError, match="NaN"):
            await asyncio.sleep(nan)
        with pytest.raises(ValueError, match="NaN"):
            await asyncio.wait_for(loop.create_future(), nan)
        return await other

    try:
        assert loop.run_until_complete(main()) == "ended"
    finally:
        loop.close()


def test_a_delay_must_be_a_number(loop):
    with pytest.raises(TypeError):
        loop.call_later(None, int)
    with pytest.raises(TypeError):
        loop.call_at(None, int)


@pytest.mark.parametrize("count", range(7))
def test_a_timer_passes_its_positional_arguments(loop, turn, count):
    got = []
    loop.call_later(0, lambda *args: got.append(args), *range(count))
    turn()
    assert got == [tuple(range(count))]


def test_timers_compare_by_time_and_hash(loop):
    early, late = loop.call_at(1e9, int), loop.call_at(2e9, int)
    assert early < late and late > early and early <= late and late >= early
    assert early != late and len({early, late, early}) == 2
    early.cancel()
    late.cancel()


def test_the_repr_of_a_timer_tells_its_time(loop):
    handle = loop.call_at(12345678.5, int)
    assert repr(handle).startswith("<TimerHandle") and "when=12345678.5" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_cancelled_timers_give_their_memory_back(loop, turn):
    class Load:
        def __call__(self):
            raise AssertionError("cancelled")

    references = []
    for _ in range(2000):
        load = Load()
        references.append(weakref.ref(load))
        loop.call_later(3600, load).cancel()
    del load
    turn()
    gc.collect()
    assert not any(reference() for reference in references)


def test_cancelled_timers_are_compacted_away_among_living_ones(loop, turn, clock):
    fired = []
    for number in range(500):
        loop.call_later(10, fired.append, number)
        cancelled = [weakref.ref(loop.call_later(10, int)) for _ in range(3)]
        for reference in cancelled:
            handle = reference()
            if handle is not None:
                handle.cancel()
            del handle
    turn()
    clock.now_s += 11
    turn()
    assert sorted(fired) == list(range(500))


def test_timers_set_by_a_timer_for_now_wait_for_the_next_turn(loop, turn, clock):
    fired = []

    def first():
        fired.append("first")
        loop.call_at(loop.time(), fired.append, "second")

    loop.call_later(1, first)
    clock.now_s += 1
    turn()
    assert fired == ["first"]
    turn()
    assert fired == ["first", "second"]


def test_sleep_lets_the_shorter_one_end_first(run):
    async def main():
        ended = []

        async def sleeper(delay):
            await asyncio.sleep(delay)
            ended.append(delay)

        await asyncio.gather(*map(sleeper, (0.03, 0.01, 0.02)))
        return ended

    assert run(main()) == [0.01, 0.02, 0.03]


def test_wait_for_gives_up_in_time(loop, run):
    async def main():
        began = loop.time()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.02)
        return loop.time() - began

    assert 0.015 <= run(main()) < 5
