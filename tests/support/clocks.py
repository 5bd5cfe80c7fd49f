"""Clocks that a test moves. A program that waits runs on `penstock.testing.VirtualLoop` instead."""

from typing import Any

__all__ = ["HandClock", "StandingTime"]


class HandClock:
    """A clock in seconds: call it for the time, set `now_s` to move it."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class StandingTime:
    """A base for loops whose clock moves when a test says so. It counts the futures made for the loop's tasks."""

    now_s = 1000.0
    futures = 0

    def time(self) -> float:
        return self.now_s

    def create_future(self) -> Any:
        self.futures += 1
        return super().create_future()  # type: ignore[misc]
