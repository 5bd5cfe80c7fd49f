"""The cause of a stall by the watchdog's numbers."""

import asyncio
from typing import Any, cast

import pytest

from penstock._core.tasks.rows import StallSighting
from penstock.tasks.detectors.stall_causes import CAUSES, cause_of, figures_of
from penstock.tasks.detectors.stalls import StallWatch
from penstock.tasks.finding_log import FindingLog

MS = 1_000_000
SWITCH_NS = 5 * MS


def sight(**figures: Any) -> StallSighting:
    """A stall of 100 ms in which the loop's thread was blocked, but for the figures given, those in ms."""
    quiet = {
        "since_ns": 1,
        "lasted_ns": 100,
        "gil_wait_ns": 0,
        "observed_ns": 80,
        "cpu_ns": 0,
        "wait_cpu_ns": 0,
        "gc_ns": 0,
        "runnable_ns": 0,
        "late_ns": 0,
    }
    times = {name: value * MS for name, value in (quiet | figures).items() if name in quiet}
    rest = {"turn": 1, "callbacks": 0, "is_turn": False, "again": False, "is_over": False}
    return StallSighting(watched=None, **(times | rest))


@pytest.mark.parametrize(
    ("figures", "cause"),
    [
        pytest.param({}, "python", id="blocked outside"),
        pytest.param(
            {"cpu_ns": 80, "gil_wait_ns": 5, "wait_cpu_ns": 5}, "python", id="a busy loop gives way when asked"
        ),
        pytest.param({"cpu_ns": 80, "gil_wait_ns": 40, "wait_cpu_ns": 39}, "gil", id="its own C code did not"),
        pytest.param({"cpu_ns": 80, "gil_wait_ns": 15, "wait_cpu_ns": 15}, "gil", id="nor for three switches"),
        pytest.param({"gil_wait_ns": 20, "wait_cpu_ns": 0}, "python", id="others had it in turns"),
        pytest.param({"gil_wait_ns": 60, "wait_cpu_ns": 0}, "gil", id="another thread's C code kept it"),
        pytest.param({"cpu_ns": 80, "gc_ns": 60, "gil_wait_ns": 50, "wait_cpu_ns": 50}, "gc", id="most of it garbage"),
        pytest.param({"cpu_ns": 80, "gc_ns": 40}, "python", id="garbage, but not most of it"),
        pytest.param({"late_ns": 90, "gc_ns": 60}, "descheduled", id="the watchdog did not run either"),
        pytest.param({"runnable_ns": 65, "cpu_ns": 20}, "descheduled", id="ready without a CPU"),
        pytest.param(
            {"runnable_ns": 50, "cpu_ns": 30, "late_ns": 10}, "python", id="a busy machine, but not the cause"
        ),
    ],
)
def test_the_cause_is_the_largest_part_of_the_stall(figures: dict[str, int], cause: str) -> None:
    assert cause_of(sight(**figures), SWITCH_NS) == cause


@pytest.mark.parametrize(("cpu_ns", "blocked"), [(0, True), (30, True), (50, False), (80, False)])
def test_blocked_is_less_than_half_of_the_cpu(cpu_ns: int, blocked: bool) -> None:
    figures = figures_of(sight(cpu_ns=cpu_ns), "python")
    assert figures["blocked"] is blocked
    assert figures["cpu_share"] == pytest.approx(cpu_ns / 80)


def test_a_thread_that_shares_its_cpu_is_not_blocked() -> None:
    assert figures_of(sight(cpu_ns=45, runnable_ns=55), "python")["blocked"] is False
    assert figures_of(sight(cpu_ns=5, runnable_ns=55), "python")["blocked"] is True


def test_only_python_code_is_called_blocked() -> None:
    assert figures_of(sight(), "descheduled")["blocked"] is False


def test_a_cpu_time_that_is_not_known_says_nothing() -> None:
    unknown = sight()._replace(cpu_ns=-1)
    figures = figures_of(unknown, "python")
    assert figures["cpu_s"] is None
    assert figures["cpu_share"] is None
    assert figures["blocked"] is False


def test_without_native_code_no_loop_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PURE", "1")
    watch = StallWatch()
    loop = asyncio.new_event_loop()
    try:
        assert not watch.watch(loop, cast("Any", object()), 0.1, FindingLog())
        watch.unwatch(loop)
        assert watch.causes(loop) == dict.fromkeys(CAUSES, 0)
        assert watch.collections() == (0, 0.0)
        watch.before_fork()
        watch.after_fork_in_parent()
        watch.close()
    finally:
        loop.close()
