"""The observers of this process, by loop, and the listeners for the findings of all of them.

An observer is registered when its loop is made, and leaves when the loop is closed or collected. Knows no loop and no
observer's class.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from penstock.tasks.finding_log import FindingLog, Listener
    from penstock.tasks.flighttrace import Event
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask, SiteStatistics, TaskStatistics

__all__ = [
    "LEVELS",
    "Observer",
    "listen",
    "observed_loops",
    "observer_of",
    "observers",
    "register",
    "registered_s",
    "unlisten",
    "unregister",
]


# how much is recorded of each task, least first
LEVELS = ("off", "count", "time", "trace")


class Observer(Protocol):
    """The recorder of a loop's tasks. Any thread may call every method; none blocks the loop for long."""

    findings: FindingLog

    @property
    def name(self) -> str | None:
        """The loop's name; None before the first task of a task factory."""

    def statistics(self) -> TaskStatistics:
        """Return the counts and times so far."""

    def live(self) -> Sequence[LiveTask]:
        """Return a record of each task that has not ended."""

    def numbered(self, number: int) -> tuple[LiveTask, Any] | None:
        """Return the record of the live task with this number, and the task; None without one."""

    def number_of(self, task: Any) -> int:
        """Return the number of a live task; 0 if it was not recorded."""

    def site_of_task(self, task: Any) -> Place | None:
        """Return the site of a live task; None if it was not recorded."""

    def creation_stack(self, task: Any) -> list[Place]:
        """Return the creation stack of a live task, innermost first; empty if it was not recorded."""

    def sites(self) -> list[SiteStatistics]:
        """Return the statistics of each site."""

    def set_level(self, level: str) -> None:
        """Set the level: off, count, time or trace."""

    def events(self) -> list[Event]:
        """Return the flight recorder's events, oldest first."""


_observers: WeakKeyDictionary[asyncio.AbstractEventLoop, Observer] = WeakKeyDictionary()
# the time of registration, on time.monotonic()'s clock
_since_s: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
# called with each loop that loses its observer: it is closed
on_unregister: Callable[[asyncio.AbstractEventLoop], object] | None = None
# called with the findings of every loop, also of loops made later
_listeners: tuple[Listener, ...] = ()
# reentrant: a garbage collection may close a loop while it is held
_lock = threading.RLock()


def register(loop: asyncio.AbstractEventLoop, observer: Observer) -> None:
    """Make `observer` the observer of `loop`, in place of an earlier one."""
    with _lock:
        _observers[loop], _since_s[loop] = observer, time.monotonic()
        listeners = _listeners
    for listener in listeners:
        observer.findings.listen(listener)


def listen(listener: Listener) -> None:
    """Call `listener(finding)` for the findings of every loop, also of loops made later."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)
    for observer in observers():
        observer.findings.listen(listener)


def unlisten(listener: Listener) -> None:
    """Undo `listen`."""
    global _listeners
    with _lock:
        _listeners = tuple(each for each in _listeners if each != listener)
    for observer in observers():
        observer.findings.unlisten(listener)


def unregister(loop: asyncio.AbstractEventLoop) -> None:
    """Remove the observer of a closed loop."""
    with _lock:
        _observers.pop(loop, None)
    if on_unregister is not None:
        on_unregister(loop)


def observer_of(loop: asyncio.AbstractEventLoop) -> Observer | None:
    """Return the observer of the loop, None if it has none."""
    return _observers.get(loop)


def observers() -> list[Observer]:
    """Return the observers of all open loops, in the order of registration."""
    # once each: a task factory may serve several loops
    return list(dict.fromkeys(observer for _, observer in observed_loops()))


def registered_s(loop: asyncio.AbstractEventLoop) -> float:
    """Return when the loop got its observer, on time.monotonic()'s clock; now if it has none."""
    return _since_s.get(loop) or time.monotonic()


def observed_loops() -> list[tuple[asyncio.AbstractEventLoop, Observer]]:
    """Return the open loops with their observers, in the order of registration."""
    while True:
        with _lock, suppress(RuntimeError):
            # a collection that closes a loop in the middle changes the dictionary: once more
            found = list(_observers.items())
            break
    return [(loop, observer) for loop, observer in found if not loop.is_closed()]


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
