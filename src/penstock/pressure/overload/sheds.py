"""Counts of the sheds that no gate counts, by source and reason; and rate-limited lines in the log."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet, ref

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

__all__ = ["Counts", "ShedLog", "all_sheds", "count_shed", "format_sheds", "register_source"]

logger = logging.getLogger("penstock.pressure")

# the first line waits so long, to count more than the first shed
FIRST_LINE_S = 1.0
LOG_EVERY_S = 10.0

# (source, reason) -> number of sheds; a source is a gate's name, or a name in place of one
Counts = Counter[tuple[str, str]]


class ShedSource(Protocol):
    """An object that sheds and counts its sheds."""

    def sheds(self) -> Counts:
        """Return the counts. Callable from any thread."""


_counts: Counts = Counter()
_sources: WeakSet[ShedSource] = WeakSet()
_lock = threading.Lock()


def count_shed(source: str, reason: str) -> None:
    """Count a shed by a source without counts of its own. Callable from any thread."""
    with _lock:
        _counts[source, reason] += 1


def register_source(source: ShedSource) -> None:
    """Include the sheds of a source for as long as it lives."""
    with _lock:
        _sources.add(source)


def all_sheds() -> Counts:
    """Return all sheds of this process that no gate counts. Callable from any thread."""
    with _lock:
        found, sources = _counts.copy(), list(_sources)
    for source in sources:
        found.update(source.sheds())
    return found


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ShedLog:
    """The log of one loop's sheds: a line in 10 s at most, with all sheds since the last one.

    `own()` returns the loop's own sheds, of which `note` is called; `gates()` those of its gates, which the line adds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, own: Callable[[], Counts], gates: Callable[[], Counts]) -> None:
        self._loop, self._own, self._gates = ref(loop), own, gates
        self._own_told, self._gates_told = own(), Counts()
        # the beginning of the next line's interval; the time of the last line
        self._since_s = self._logged_s = monotonic() - LOG_EVERY_S
        self._is_due = False

    def note(self) -> None:
        """Note that the loop has shed: a line follows in time."""
        loop = self._loop()
        if self._is_due or loop is None or loop.is_closed():
            return
        self._is_due = True
        self._since_s = now_s = monotonic()
        self._gates_told = self._gates()
        loop.call_later(max(FIRST_LINE_S, self._logged_s + LOG_EVERY_S - now_s), self._log)

    def _log(self) -> None:
        own = self._own()
        grown, self._own_told = own - self._own_told + (self._gates() - self._gates_told), own
        self._is_due, self._logged_s = False, monotonic()
        over_s = self._logged_s - self._since_s
        sheds = {f"{source}: {reason}": more for (source, reason), more in grown.items()}
        logger.warning(
            "%d requests and connections were shed in %.1f s: %s",
            grown.total(),
            over_s,
            format_sheds(grown),
            extra={"penstock": {"seconds": over_s, "sheds": sheds}},
        )


def format_sheds(counts: Mapping[tuple[str, str], int]) -> str:
    """Return counts as text: `loop: lag 2590, left 10; asgi: full 5`."""
    by_source: dict[str, list[str]] = {}
    for (source, reason), more in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        by_source.setdefault(source, []).append(f"{reason} {more}")
    return "; ".join(f"{source}: {', '.join(reasons)}" for source, reasons in by_source.items())
