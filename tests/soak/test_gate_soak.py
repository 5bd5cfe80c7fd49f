"""`make soak`: a million random steps through gates of every kind, each checked (GATE_STEPS)."""

import os

import pytest

from tests.unit.pressure.gatedriver import SETUPS, drive

STEPS = int(os.environ.get("GATE_STEPS", "1000000"))
STEPS_OF_ONE = 10_000


@pytest.mark.parametrize("name", SETUPS)
def test_the_invariants_hold_through_a_million_steps(name: str) -> None:
    for seed in range(max(1, STEPS // len(SETUPS) // STEPS_OF_ONE)):
        drive(SETUPS[name], seed=seed, steps=STEPS_OF_ONE)
