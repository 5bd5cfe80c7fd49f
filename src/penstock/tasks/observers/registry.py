"""The observers of this process: who watches the tasks of which loop. Knows no loop and no way to watch one.

An observer is registered when its loop is built, and leaves when the loop is closed or collected.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from penstock.tasks.finding_log import FindingLog, Listener
    from penstock.tasks.flighttrace import Event
    from penstock.tasks.records import LiveTask, SiteStatistics, TaskStatistics

__all__ = ["Observer", "listen", "observer_of", "observers", "register", "unlisten", "unregister"]


class Observer(Protocol):
    """What watches the tasks of one loop. Every method may be called from any thread, and holds the loop for little."""

    findings: FindingLog

    def statistics(self) -> TaskStatistics:
        """The counts and times so far."""

    def live(self) -> Sequence[LiveTask]:
        """A record of each task that has not ended."""

    def sites(self) -> list[SiteStatistics]:
        """The tasks by where they were created."""

    def set_level(self, level: str) -> None:
        """off, count, time or trace."""

    def events(self) -> list[Event]:
        """What the flight recorder holds, oldest first."""


_observers: WeakKeyDictionary[asyncio.AbstractEventLoop, Observer] = WeakKeyDictionary()
# called for the findings of every loop, those made later too
_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()


def register(loop: asyncio.AbstractEventLoop, observer: Observer) -> None:
    """From now on `observer` speaks for `loop`, in place of whoever did."""
    with _lock:
        _observers[loop] = observer
        listeners = _listeners
    for listener in listeners:
        observer.findings.listen(listener)


def listen(listener: Listener) -> None:
    """Tell `listener` of the findings of every loop: those there are, and those made from now on."""
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
    """The loop is closed: it is counted no more."""
    with _lock:
        _observers.pop(loop, None)


def observer_of(loop: asyncio.AbstractEventLoop) -> Observer | None:
    """Who watches the loop, if anybody."""
    return _observers.get(loop)


def observers() -> list[Observer]:
    """All of them, in the order they came."""
    with _lock:
        # once each: a task factory may serve several loops
        return list(dict.fromkeys(observer for loop, observer in _observers.items() if not loop.is_closed()))


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
