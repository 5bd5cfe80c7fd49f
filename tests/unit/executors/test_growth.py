"""When a lane grows, by given times: deterministic. That it does for real is tested with the lane."""

import threading

import pytest

from penstock.executors.threads import growth
from penstock.executors.threads.growth import PATIENCE_NS, RARELY_NS, Growth, computing_cores, threads_cpu_ns

MS = 1_000_000


class Lane:
    """A lane whose next job has waited `waited_ms`, and whose threads use `cores`."""

    def __init__(self):
        self.growth, self.now_ns, self.cpu_ns = Growth(0.5), 1000 * MS, 50 * MS
        assert self.growth.arm(self.now_ns)

    def look(self, *, waited_ms, cores, threads=6):
        passed_ns = self.growth.due_ns - self.now_ns
        self.now_ns, self.cpu_ns = self.growth.due_ns, self.cpu_ns + int(passed_ns * cores)
        return self.growth.look(self.now_ns, self.cpu_ns, waited_ms * MS, threads)


def test_a_lane_of_blocked_threads_grows_while_jobs_wait():
    lane = Lane()
    assert lane.look(waited_ms=0, cores=0) == 0
    assert lane.growth.due_ns == lane.now_ns + PATIENCE_NS
    assert [lane.look(waited_ms=20, cores=0.1, threads=count) for count in (2, 6, 16, 40)] == [1, 1, 4, 10]


def test_a_lane_of_blocked_threads_has_a_thread_for_each_of_48_jobs_within_150_ms():
    lane, threads, began_ns = Lane(), 6, 1000 * MS
    lane.look(waited_ms=0, cores=0)
    while threads < 48:
        threads += lane.look(waited_ms=(lane.now_ns - began_ns) // MS, cores=0.1, threads=threads)
    assert lane.now_ns - began_ns <= 150 * MS


def test_the_first_look_has_nothing_to_compare_with():
    assert Lane().look(waited_ms=50, cores=0) == 0


def test_a_lane_whose_jobs_do_not_wait_stays_as_it_is():
    lane = Lane()
    assert [lane.look(waited_ms=9, cores=0) for _ in range(5)] == [0] * 5


def test_a_lane_of_computing_threads_stays_as_it_is_and_is_looked_at_less_and_less():
    lane, gaps = Lane(), []
    lane.look(waited_ms=0, cores=1)
    for _ in range(6):
        assert lane.look(waited_ms=100, cores=0.9) == 0
        gaps.append((lane.growth.due_ns - lane.now_ns) // PATIENCE_NS)
    assert gaps == [2, 4, 8, 16, 16, 16]
    assert gaps[-1] * PATIENCE_NS == RARELY_NS
    assert lane.look(waited_ms=100, cores=0.1) == 1
    assert lane.growth.due_ns - lane.now_ns == PATIENCE_NS


def test_a_lane_is_armed_once_until_it_is_disarmed():
    lane = Lane()
    assert not lane.growth.arm(5)
    lane.growth.disarm()
    assert lane.growth.due_ns is None
    assert lane.growth.arm(5)


def test_threads_that_share_a_gil_compute_on_one_core(monkeypatch):
    monkeypatch.setattr(growth.sys, "_is_gil_enabled", lambda: True, raising=False)
    assert computing_cores(8) == 0.5
    monkeypatch.setattr(growth.sys, "_is_gil_enabled", lambda: False, raising=False)
    assert computing_cores(8) == 4.0


@pytest.mark.parametrize("has_clock", [True, False])
def test_the_cpu_time_of_threads_is_read(monkeypatch, has_clock):
    if not has_clock:
        monkeypatch.delattr(growth.time, "pthread_getcpuclockid", raising=False)
    elif not hasattr(growth.time, "pthread_getcpuclockid"):
        pytest.skip("this system has no clock for a thread")
    before = threads_cpu_ns([threading.current_thread()])
    while threads_cpu_ns([threading.current_thread()]) < before + MS:
        pass
    assert threads_cpu_ns([threading.current_thread()]) >= before + MS
