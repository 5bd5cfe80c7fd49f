"""`make soak`: a million random steps through gates of every kind, each checked (GATE_STEPS)."""

import os

import pytest

from tests.unit.pressure.gatedriver import SETUPS, drive

STEPS = int(os.environ.get("GATE_STEPS", "1000000"))
STEPS_OF_ONE, PARTS = 5_000, 12


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", SETUPS)
def test_the_invariants_hold_through_a_million_steps(name: str, part: int) -> None:
    runs = -(-STEPS // (len(SETUPS) * PARTS * STEPS_OF_ONE))
    for at in range(runs):
        drive(SETUPS[name], seed=part * runs + at, steps=STEPS_OF_ONE)
