"""`make soak`, ten minutes each (SOAK_SECONDS): memory stands still under stress; no fault is found where none is."""

import os
import tempfile

from penstock.loop import EventLoop
from tests.soak.lives import lives, make_contexts
from tests.soak.stress import rounds
from tests.unit.tasks.test_watcher import run_without_faults

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
GROWTH_BYTES_PER_MINUTE = 1_000_000


def test_memory_stands_still_under_stress() -> None:
    report = rounds(EventLoop, SECONDS, seed=1)
    assert not report["wrong"]
    assert report["slope_bytes_per_minute"] < GROWTH_BYTES_PER_MINUTE


def test_five_hundred_lives_leave_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        growth = lives(EventLoop, make_contexts(folder), count=500, first=100)
    assert growth[:3] == (0, 0, 0)
    assert growth.objects < 100
    assert growth.rss_bytes < 8_000_000


def test_a_program_without_faults_gives_no_finding() -> None:
    assert run_without_faults(SECONDS) == []
