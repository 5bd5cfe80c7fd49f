"""The micro rows by name. A row's body runs `count` operations on a loop and returns, without arms or clocks."""

from __future__ import annotations

from benchmarks.micro import coroutines, inputs, scheduling, threads
from benchmarks.micro.case import Case

__all__ = ["CASES"]

CASES: dict[str, Case] = {**scheduling.CASES, **coroutines.CASES, **threads.CASES, **inputs.CASES}
