"""`make soak`: the stress for ten minutes (SOAK_SECONDS): memory stands still and nothing is left behind."""

import os

from penstock.loop import EventLoop
from tests.soak.stress import rounds

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
GROWTH_BYTES_PER_MINUTE = 1_000_000


def test_memory_stands_still_under_stress() -> None:
    report = rounds(EventLoop, SECONDS, seed=1)
    assert not report["wrong"]
    assert report["slope_bytes_per_minute"] < GROWTH_BYTES_PER_MINUTE
