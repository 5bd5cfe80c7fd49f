"""A lane's counts: fixed memory, quantiles within 3 %, a picture that stays as it was taken."""

import json
import random
import sys
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.executors.meter import BUCKETS, LONGEST_NS, LaneMeter, Quantiles, _middle_ns, _Times


def test_quantiles_are_within_three_percent():
    source, times = random.Random(5), _Times()
    given_ns = [int(source.lognormvariate(13, 2)) for _ in range(5000)]
    for ns in given_ns:
        times.add(ns)
    found, ranked = times.quantiles(), sorted(given_ns)
    for share, seconds in ((0.5, found.p50_s), (0.9, found.p90_s), (0.99, found.p99_s)):
        assert seconds == pytest.approx(ranked[int(share * 5000) - 1] / 1e9, rel=0.032)
    assert found.count == 5000
    assert found.mean_s == pytest.approx(sum(given_ns) / 5000 / 1e9)
    assert found.max_s == ranked[-1] / 1e9


@given(st.integers(0, LONGEST_NS))
def test_a_time_lands_in_the_bucket_that_holds_it(ns):
    times = _Times()
    times.add(ns)
    assert _middle_ns(times.buckets.index(1)) == pytest.approx(ns, rel=0.032, abs=0.5)


def test_times_out_of_all_proportion_land_in_the_last_bucket():
    times = _Times()
    for ns in (LONGEST_NS, 10 * LONGEST_NS, 5 * LONGEST_NS):
        times.add(ns)
    assert times.buckets[BUCKETS - 1] == 3
    assert times.quantiles().max_s == 10 * LONGEST_NS / 1e9


def test_one_time_is_its_own_quantiles():
    times = _Times()
    times.add(1_000_000)
    found = times.quantiles()
    assert found.p99_s == pytest.approx(0.001, rel=0.032)
    assert found.p99_s <= found.max_s == 0.001


def test_memory_is_fixed():
    meter = LaneMeter("io", "threads")

    def record(count):
        for ns in range(0, count * 1000, 1000):
            meter.waited(ns)
            meter.ran(ns * 1000)
            meter.ended("ok")

    record(5000)
    before = sys.getallocatedblocks()
    record(20_000)
    # numbers above 256 are objects: at most one for each bucket
    assert sys.getallocatedblocks() - before < 2 * BUCKETS


def test_a_snapshot_has_every_count_and_stays_as_it_was():
    meter = LaneMeter("cpu", "processes")
    meter.ended("worker_lost")
    meter.shed("full")
    meter.moved("out_shm", 4096)
    meter.restarted("crash")
    taken = meter.snapshot(workers=2, queued=3, queue_limit=10)
    meter.ended("worker_lost")
    meter.shed("full")
    assert (taken.name, taken.kind, taken.workers, taken.queued, taken.queue_limit) == ("cpu", "processes", 2, 3, 10)
    assert taken.completed == {"ok": 0, "error": 0, "timeout": 0, "cancelled": 0, "worker_lost": 1}
    assert taken.shed == {"full": 1, "displaced": 0}
    assert taken.transfer_bytes == {"out_inband": 0, "out_shm": 4096, "in_inband": 0, "in_shm": 0}
    assert taken.restarts["crash"] == 1
    assert taken.wait == taken.run == Quantiles()
    with pytest.raises(FrozenInstanceError):
        taken.queued = 5


def test_a_snapshot_can_be_written_as_json():
    assert json.loads(json.dumps(asdict(LaneMeter("io", "threads").snapshot())))["completed"]["ok"] == 0


@pytest.mark.parametrize("count", ["ended", "shed", "restarted"])
def test_a_word_that_nobody_knows_is_refused(count):
    with pytest.raises(KeyError):
        getattr(LaneMeter("io", "threads"), count)("vanished")
