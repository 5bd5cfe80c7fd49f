"""The micro rows: each body runs, more than once, and leaves its loop fit for the next."""

import pytest
from benchmarks.micro.cases import CASES

import penstock


@pytest.mark.parametrize("row", CASES)
def test_every_body_runs_more_than_once_on_a_loop(row: str) -> None:
    case, loop = CASES[row], penstock.new_event_loop()
    try:
        for _ in range(1 if case.last else 2):
            case.run(loop, case.step)
    finally:
        loop.close()
