"""A lane's counts: fixed memory, a picture that stays as it was taken. Its times: test_times.py."""

import json
import sys
from dataclasses import FrozenInstanceError, asdict

import pytest

from penstock.executors.counters import LaneCounters
from penstock.times import BUCKETS, Times


def test_memory_is_fixed():
    meter = LaneCounters("io", "threads")

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
    meter = LaneCounters("cpu", "processes")
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
    assert taken.wait == taken.run == Times()
    with pytest.raises(FrozenInstanceError):
        taken.queued = 5


def test_a_snapshot_can_be_written_as_json():
    assert json.loads(json.dumps(asdict(LaneCounters("io", "threads").snapshot())))["completed"]["ok"] == 0


@pytest.mark.parametrize("count", ["ended", "shed", "restarted"])
def test_a_word_that_nobody_knows_is_refused(count):
    with pytest.raises(KeyError):
        getattr(LaneCounters("io", "threads"), count)("vanished")
